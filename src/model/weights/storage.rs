//! From a pickle's description to tensors: storages loaded once, views of them checked.

use std::collections::{BTreeMap, BTreeSet};

use tch::{Kind, Tensor};

use super::pickle::{Global, Id, Node, Pickle};
use super::pth::{PthError, Result, wrong};

/// Keys under which training scripts keep the state dict beside other things.
const NESTED_UNDER: [&str; 3] = ["state_dict", "model", "model_state_dict"];

/// A typed run of numbers that tensors are views of.
pub(super) struct Storage {
    pub key: String,
    pub kind: Kind,
    pub numel: usize,
    /// Where views begin to count, in elements.
    pub start: usize,
}

impl Storage {
    /// The storage of a persistent id: ('storage', class, key, location, numel[, (view key, offset, view size)]).
    fn of(pickle: &Pickle, id: Id) -> Option<Storage> {
        let Node::Persistent(id) = pickle.nodes[id] else { return None };
        let &[_, class, key, _, numel, ref view @ ..] = pickle.items(id)? else { return None };
        let Node::Global(Global::Typed(kind)) = pickle.nodes[class] else { return None };
        let start = match view.first().and_then(|&view| pickle.items(view)) {
            Some(&[_, offset, _]) => usize::try_from(pickle.int(offset)?).ok()?,
            _ => 0,
        };
        Some(Storage { key: pickle.text(key)?, kind, numel: usize::try_from(pickle.int(numel)?).ok()?, start })
    }

    pub fn bytes(&self) -> Result<usize> {
        let size = self.numel.checked_mul(self.kind.elt_size_in_bytes()).filter(|&size| size <= isize::MAX as usize);
        size.ok_or(PthError::Layout(format!("storage {} is too large", self.key)))
    }

    pub fn tensor(&self, content: &[u8]) -> Result<Tensor> {
        if content.len() != self.bytes()? {
            return wrong(format!("storage {} has another length than announced", self.key));
        }
        // Any byte but 0 and 1 would be an invalid bool.
        let kind = if self.kind == Kind::Bool { Kind::Uint8 } else { self.kind };
        let tensor = Tensor::f_from_data_size(content, &[self.numel as i64], kind)?;
        Ok(if self.kind == Kind::Bool { tensor.f_ne(0)? } else { tensor })
    }
}

/// Every storage that the pickle mentions, whether a tensor of the state dict uses it or not.
pub(super) fn declared_storages(pickle: &Pickle) -> Result<BTreeMap<String, Storage>> {
    let mut storages: BTreeMap<String, Storage> = BTreeMap::new();
    for storage in (0..pickle.nodes.len()).filter_map(|id| Storage::of(pickle, id)) {
        if storages.get(&storage.key).is_some_and(|other| (other.kind, other.numel) != (storage.kind, storage.numel)) {
            return wrong(format!("storage {} is described in two ways", storage.key));
        }
        storages.insert(storage.key.clone(), storage);
    }
    Ok(storages)
}

/// The tensors of the pickle's state dict, each storage loaded once.
pub(super) fn named_tensors(
    pickle: &Pickle,
    load: impl Fn(&Storage) -> Result<Tensor>,
) -> Result<Vec<(String, Tensor)>> {
    declared_storages(pickle)?;
    let mut loaded: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut named = Vec::new();
    for (name, id) in state_dict(pickle)? {
        let Node::Tensor { storage, offset, size, stride } = pickle.nodes[id] else {
            return wrong(format!("{name} is a bare storage"));
        };
        let dimensions = |id| pickle.items(id)?.iter().map(|&item| pickle.int(item)).collect::<Option<Vec<i64>>>();
        let parts = (Storage::of(pickle, storage), pickle.int(offset), dimensions(size), dimensions(stride));
        let (Some(storage), Some(offset), Some(size), Some(stride)) = parts else {
            return wrong(format!("{name} is not described"));
        };
        if !loaded.contains_key(&storage.key) {
            loaded.insert(storage.key.clone(), load(&storage)?);
        }
        let offset = offset.saturating_add(storage.start as i64);
        match strided(&loaded[&storage.key], offset, size, stride) {
            Ok(tensor) => named.push((name, tensor)),
            Err(problem) => return wrong(format!("{name}: {problem}")),
        }
    }
    Ok(named)
}

/// A view of a storage, after checking that it lies within.
pub(super) fn strided(storage: &Tensor, offset: i64, size: Vec<i64>, stride: Vec<i64>) -> Result<Tensor> {
    if size.len() != stride.len()
        || size.len() > 64
        || size.iter().chain(&stride).chain([&offset]).any(|&value| value < 0)
    {
        return wrong("its shape makes no sense");
    }
    let numel = size.iter().try_fold(1i64, |product, &dimension| product.checked_mul(dimension));
    let reach = size
        .iter()
        .zip(&stride)
        .try_fold(offset, |reach, (&dimension, &step)| reach.checked_add((dimension - 1).max(0).checked_mul(step)?));
    let total = storage.numel() as i64;
    match (numel, reach) {
        (Some(0), Some(_)) if offset <= total => {}
        (Some(numel), Some(reach)) if numel <= total && reach < total => {}
        _ => return wrong("it reaches beyond its storage"),
    }
    Ok(storage.f_as_strided(&size, &stride, Some(offset))?)
}

/// Names of the tensors and what stands for them: the root dict, or the one that it keeps under a usual name.
pub(super) fn state_dict(pickle: &Pickle) -> Result<Vec<(String, Id)>> {
    let entries = |id: Id| match &pickle.nodes[id] {
        Node::Dict(entries) => Some(entries),
        _ => None,
    };
    let Some(root) = entries(pickle.root) else { return wrong("it holds no dict of tensors") };
    let nested = root.iter().find_map(|&(key, value)| {
        let key = pickle.text(key)?;
        if NESTED_UNDER.contains(&key.as_str()) { entries(value) } else { None }
    });
    let mut found: Vec<(String, Id)> = Vec::new();
    let mut seen = BTreeSet::new();
    for &(key, value) in nested.unwrap_or(root) {
        let (Node::Str(_), Node::Tensor { .. } | Node::Persistent(_)) = (&pickle.nodes[key], &pickle.nodes[value])
        else {
            continue;
        };
        let Some(name) = pickle.text(key) else { return wrong("the name of a tensor is far too long") };
        if !seen.insert(name.clone()) {
            return wrong(format!("it names {name} twice"));
        }
        found.push((name, value));
    }
    if found.is_empty() { wrong("it holds no dict of tensors") } else { Ok(found) }
}
