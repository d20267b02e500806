//! A pickle, parsed and never executed: a stack machine whose only callables are the ones that PyTorch needs to
//! describe tensors. Every other name is refused before anything else happens.
//!
//! Objects live in an arena and refer to each other by index, so that a hostile file can neither overflow the stack
//! with deep nesting nor copy its way to absurd memory. `machine` interprets the operations.

use super::machine::Machine;

/// The longest text that can be a name or a key, in bytes; a longer one is never copied.
const MAX_TEXT: usize = 1024;

/// Index of an object in [`Pickle::nodes`].
pub type Id = usize;

/// Why a pickle is not read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum PickleError {
    /// A name outside the list of those that describe tensors.
    #[error("it calls or names `{0}`, which has no place in a file of weights: not executed, not loaded")]
    Foreign(String),
    /// An operation that no writer of weights emits, or that makes no sense where it stands.
    #[error("its pickle is damaged or of an unknown kind ({0})")]
    Damaged(&'static str),
}

pub(super) type Result<T> = std::result::Result<T, PickleError>;

/// The names that a pickle may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `torch.Size`.
    Size,
    /// `torch.FloatStorage` and its kin; `torch.FloatTensor` in the oldest files.
    Typed(tch::Kind),
}

/// One object of a pickle.
#[derive(Clone, Debug)]
pub enum Node {
    /// `None`, a float, a set or another value that no tensor depends on.
    Other,
    Bool(bool),
    Int(i128),
    Str(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// A persistent id, to be resolved by the container: a storage, in the oldest files a tensor.
    Persistent(Id),
    /// A view of a storage (a [`Node::Persistent`]): offset, size and stride as objects, not yet checked.
    Tensor {
        storage: Id,
        offset: Id,
        size: Id,
        stride: Id,
    },
}

/// A parsed pickle.
pub struct Pickle {
    /// Every object made on the way.
    pub nodes: Vec<Node>,
    /// The object that the pickle stands for.
    pub root: Id,
    /// Bytes that the pickle takes in the input.
    pub length: usize,
}

impl Pickle {
    /// Parses the pickle at the start of `input`, up to its STOP.
    pub fn parse(input: &[u8]) -> Result<Pickle> {
        Machine::new(input).run()
    }

    /// The integer at `id`.
    pub fn int(&self, id: Id) -> Option<i64> {
        match self.nodes[id] {
            Node::Int(value) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The text at `id`, if it is short enough to be a name; an integer counts as its digits, as keys of storages come in
    /// both forms.
    pub fn text(&self, id: Id) -> Option<String> {
        match &self.nodes[id] {
            Node::Str(text) if text.len() <= MAX_TEXT => Some(text.clone()),
            Node::Int(value) => Some(value.to_string()),
            _ => None,
        }
    }

    /// The items of the tuple or list at `id`.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        match &self.nodes[id] {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        }
    }
}

/// What `module.name` stands for, if it is on the list.
pub(super) fn global(module: &str, name: &str) -> Result<Global> {
    use tch::Kind;
    let typed = |name: &str| {
        Some(match name.strip_suffix("Storage").or(name.strip_suffix("Tensor"))? {
            "Float" => Kind::Float,
            "Double" => Kind::Double,
            "Half" => Kind::Half,
            "BFloat16" => Kind::BFloat16,
            "Long" => Kind::Int64,
            "Int" => Kind::Int,
            "Short" => Kind::Int16,
            "Char" => Kind::Int8,
            "Byte" => Kind::Uint8,
            "Bool" => Kind::Bool,
            _ => return None,
        })
    };
    let found = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch", "Size") => Some(Global::Size),
        ("torch" | "torch.cuda" | "torch.storage", _) => typed(name).map(Global::Typed),
        _ => None,
    };
    found.ok_or_else(|| {
        // Python pickles os.system under the name of the module that implements it.
        let alias = if matches!(module, "posix" | "nt") { format!(" (os.{name})") } else { String::new() };
        PickleError::Foreign(format!("{}.{}{alias}", module.escape_default(), name.escape_default()))
    })
}
