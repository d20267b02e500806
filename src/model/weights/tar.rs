//! Tar archives, as `torch.save` wrote them before version 0.1.10: one member of storages, one of tensors, one of names.

use std::collections::BTreeMap;

use tch::Tensor;

use super::pickle::{Global, Id, Node, Pickle};
use super::pth::{PthError, Result, check_endian, little_endian, split, take_pickle, wrong};
use super::storage::{Storage, state_dict, strided};

const BLOCK: usize = 512;

/// Whether `input` is a tar archive, by its magic.
pub fn is_tar(input: &[u8]) -> bool {
    input.get(257..262).is_some_and(|magic| magic == b"ustar")
}

/// The named tensors of a tar archive.
pub fn read(input: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let members = members(input).or_else(wrong)?;
    let member = |name: &str| members.get(name).copied().ok_or(PthError::Layout(format!("it lacks the member {name}")));
    if let Ok(info) = member("sys_info") {
        check_endian(&Pickle::parse(info)?)?;
    }
    let pickle = Pickle::parse(member("pickle")?)?;
    let storages = tar_storages(member("storages")?)?;
    let tensors = tar_tensors(member("tensors")?, &storages)?;
    let mut named = Vec::new();
    for (name, id) in state_dict(&pickle)? {
        let Node::Persistent(key) = pickle.nodes[id] else {
            return wrong(format!("{name} is not a tensor of a tar file"));
        };
        let Some(tensor) = pickle.text(key).and_then(|key| tensors.get(&key)) else {
            return wrong(format!("{name} is missing"));
        };
        named.push((name, tensor.shallow_clone()));
    }
    Ok(named)
}

/// A count, then for each storage (key, location, class), its length and its bytes, and a list of views at last.
fn tar_storages(mut rest: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let mut storages = BTreeMap::new();
    for _ in 0..take_count(&mut rest)? {
        let (meta, [key, _, class]) = take_fields::<3>(&mut rest)?;
        let (Some(key), Node::Global(Global::Typed(kind))) = (meta.text(key), &meta.nodes[class]) else {
            return wrong("a storage has no key or no type");
        };
        let (count, after) = split(rest, 8)?;
        let numel = usize::try_from(little_endian(count)).or_else(|_| wrong("a storage's length is too large"))?;
        let storage = Storage { key, kind: *kind, numel, start: 0 };
        let (content, after) = split(after, storage.bytes()?)?;
        let tensor = storage.tensor(content)?;
        storages.insert(storage.key, tensor);
        rest = after;
    }
    let views = Pickle::parse(rest)?;
    for &view in views.items(views.root).unwrap_or_default() {
        let Some(&[key, root, offset, numel]) = views.items(view) else {
            return wrong("a view of a storage is damaged");
        };
        let parts = (
            views.text(key),
            views.text(root).and_then(|root| storages.get(&root)),
            views.int(offset),
            views.int(numel),
        );
        let (Some(key), Some(root), Some(offset), Some(numel)) = parts else {
            return wrong("a view of a storage is damaged");
        };
        let view = strided(root, offset, vec![numel], vec![1])?;
        storages.insert(key, view);
    }
    Ok(storages)
}

/// A count, then for each tensor (key, storage's key, class), i32 rank, 4 bytes, sizes, strides and offset as i64.
fn tar_tensors(mut rest: &[u8], storages: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for _ in 0..take_count(&mut rest)? {
        let (meta, [key, storage, _]) = take_fields::<3>(&mut rest)?;
        let (Some(key), Some(storage)) = (meta.text(key), meta.text(storage).and_then(|key| storages.get(&key))) else {
            return wrong("a tensor has no key or no storage");
        };
        let (rank, after) = split(rest, 8)?;
        let rank = little_endian(&rank[..4]) as usize;
        let (numbers, after) = split(after, rank.saturating_mul(16).saturating_add(8))?;
        let numbers: Vec<i64> = numbers.chunks_exact(8).map(|bytes| little_endian(bytes) as i64).collect();
        let tensor = strided(storage, numbers[2 * rank], numbers[..rank].to_vec(), numbers[rank..2 * rank].to_vec())?;
        tensors.insert(key, tensor);
        rest = after;
    }
    Ok(tensors)
}

fn take_count(rest: &mut &[u8]) -> Result<i64> {
    let count = take_pickle(rest)?;
    count.int(count.root).filter(|&count| count >= 0).ok_or(PthError::Layout("a count is missing".into()))
}

fn take_fields<const N: usize>(rest: &mut &[u8]) -> Result<(Pickle, [Id; N])> {
    let meta = take_pickle(rest)?;
    match meta.items(meta.root).and_then(|items| <[Id; N]>::try_from(items).ok()) {
        Some(fields) => Ok((meta, fields)),
        None => wrong("a description has another number of fields"),
    }
}

/// Contents of the archive's files by name, a leading `./` removed; what is wrong with the archive otherwise.
fn members(input: &[u8]) -> std::result::Result<BTreeMap<String, &[u8]>, &'static str> {
    let mut members = BTreeMap::new();
    let mut rest = input;
    while let Some((header, body)) = rest.split_at_checked(BLOCK) {
        // Two empty blocks mark the end.
        if header.iter().all(|&byte| byte == 0) {
            let whole = body.get(..BLOCK).is_some_and(|second| second.iter().all(|&byte| byte == 0));
            return if whole { Ok(members) } else { Err("it ends early") };
        }
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u64::from(byte) })
            .sum();
        if octal(&header[148..156]) != Some(sum) {
            return Err("a header's checksum is wrong");
        }
        let size =
            octal(&header[124..136]).and_then(|size| usize::try_from(size).ok()).ok_or("a size is not a number")?;
        let content = body.get(..size).ok_or("it ends early")?;
        let name = header[..100].split(|&byte| byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        members.insert(name.trim_start_matches("./").to_string(), content);
        rest = body.get(size.next_multiple_of(BLOCK)..).ok_or("it ends early")?;
    }
    Err("it ends early")
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}
