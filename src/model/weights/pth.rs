//! Files of `torch.save`, in each of its containers: zip (PyTorch 1.6 and later), a stream of pickles (0.1.10 to 1.5)
//! and tar (before). The containers' layouts are those of `torch/serialization.py`.
//!
//! Written out instead of taken from a crate because the order of the tensors matters (old and new MobileNetV2 files
//! correspond by order), and because a name that has no place in weights must be refused, not read as something opaque.

use std::cell::Cell;
use std::collections::BTreeMap;

use tch::Tensor;

use super::pickle::{Id, Node, Pickle, PickleError};
use super::storage::{declared_storages, named_tensors};
use super::{FORMS, is_text, tar, zip};

/// Why a file is not read as weights.
#[derive(Debug, thiserror::Error)]
pub enum PthError {
    /// The description of the tensors.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The container around it, or tensors that do not fit their storages.
    #[error("{0}")]
    Layout(String),
    /// libtorch.
    #[error("a tensor cannot be made: {0}")]
    Torch(#[from] tch::TchError),
}

pub(super) type Result<T> = std::result::Result<T, PthError>;

pub(super) fn wrong<T>(what: impl Into<String>) -> Result<T> {
    Err(PthError::Layout(what.into()))
}

/// The first number of a stream of pickles.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// All storages together take at most this many times the file's length, and so do all tensors: storages may be deflated
/// and tensors may share one, which writers do rarely and little.
const MAX_EXPANSION: usize = 4;

/// The named tensors of a file of `torch.save`, in the file's order.
pub fn read(input: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let tensors = if input.starts_with(b"PK\x03\x04") {
        read_zip(input)
    } else if tar::is_tar(input) {
        tar::read(input)
    } else {
        read_stream(input)
    }?;
    let size: usize = tensors.iter().map(|(_, tensor)| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum();
    if size > input.len().saturating_mul(MAX_EXPANSION) {
        return wrong(format!("its tensors claim {size} bytes, far more than the file holds"));
    }
    Ok(tensors)
}

fn read_zip(input: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let archive = zip::Archive::open(input).or_else(wrong)?;
    let is_root = |name: &&str| {
        name.strip_suffix("data.pkl").is_some_and(|root| root.is_empty() || root.find('/') == Some(root.len() - 1))
    };
    let mut roots = archive.names().filter(is_root).filter_map(|name| name.strip_suffix("data.pkl"));
    let (Some(root), None) = (roots.next(), roots.next()) else {
        return wrong("it is a zip archive, but not one of torch.save (it lacks data.pkl)");
    };
    let left = Cell::new(input.len().saturating_mul(MAX_EXPANSION));
    let entry = |name: &str, limit: usize| match archive.read(&format!("{root}{name}"), limit) {
        Ok(content) => Ok(content),
        Err(problem) => wrong(format!("{problem} ({root}{name})")),
    };
    if entry("byteorder", input.len())?.is_some_and(|order| order.trim_ascii() != b"little") {
        return wrong("it was written by a big-endian machine");
    }
    let Some(content) = entry("data.pkl", input.len().max(1 << 16))? else { return wrong("it lacks data.pkl") };
    let pickle = Pickle::parse(&content)?;
    named_tensors(&pickle, |storage| {
        let size = storage.bytes()?;
        let Some(rest) = left.get().checked_sub(size) else {
            return wrong("its storages claim far more bytes than the file holds");
        };
        left.set(rest);
        match entry(&format!("data/{}", storage.key), size)? {
            Some(content) => storage.tensor(&content),
            None => wrong(format!("it lacks the storage {}", storage.key)),
        }
    })
}

fn read_stream(input: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let mut rest = input;
    let first = take_pickle(&mut rest).map_err(|problem| match problem {
        // Every pickle since 2003 says first which protocol it is of.
        PthError::Pickle(PickleError::Damaged(_)) if !input.starts_with(b"\x80") => {
            let kind = if is_text(input) { "it is text, no file of weights" } else { "it is no file of weights" };
            PthError::Layout(format!("{kind}; {FORMS}"))
        }
        other => other,
    })?;
    if !matches!(first.nodes[first.root], Node::Int(MAGIC)) {
        return wrong("it is a pickle, but not one of torch.save");
    }
    let version = take_pickle(&mut rest)?;
    if version.int(version.root) != Some(1001) {
        return wrong("it has an unknown protocol version");
    }
    check_endian(&take_pickle(&mut rest)?)?;
    let pickle = take_pickle(&mut rest)?;
    let keys = take_pickle(&mut rest)?;
    let Some(keys) = keys.items(keys.root).map(|items| items.iter().map(|&key| keys.text(key)).collect::<Vec<_>>())
    else {
        return wrong("its list of storages is missing");
    };
    let declared = declared_storages(&pickle)?;
    let mut contents = BTreeMap::new();
    for key in keys {
        let Some(storage) = key.and_then(|key| declared.get(&key)) else {
            return wrong("it lists a storage of no tensor");
        };
        let (count, after) = split(rest, 8)?;
        if usize::try_from(little_endian(count)).ok() != Some(storage.numel) {
            return wrong(format!("storage {} has another length than announced", storage.key));
        }
        let (content, after) = split(after, storage.bytes()?)?;
        contents.insert(storage.key.clone(), content);
        rest = after;
    }
    named_tensors(&pickle, |storage| match contents.get(&storage.key) {
        Some(content) => storage.tensor(content),
        None => wrong(format!("it lacks the storage {}", storage.key)),
    })
}

pub(super) fn take_pickle(rest: &mut &[u8]) -> Result<Pickle> {
    let pickle = Pickle::parse(rest)?;
    *rest = &rest[pickle.length..];
    Ok(pickle)
}

pub(super) fn split(input: &[u8], at: usize) -> Result<(&[u8], &[u8])> {
    input.split_at_checked(at).ok_or(PthError::Layout("it ends early, it was cut".into()))
}

pub(super) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

pub(super) fn check_endian(info: &Pickle) -> Result<()> {
    let Node::Dict(entries) = &info.nodes[info.root] else { return wrong("its system information is missing") };
    let big = |&(key, value): &(Id, Id)| {
        info.text(key).as_deref() == Some("little_endian") && matches!(info.nodes[value], Node::Bool(false))
    };
    if entries.iter().any(big) { wrong("it was written by a big-endian machine") } else { Ok(()) }
}
