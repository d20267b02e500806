//! Checks every byte of a shard, going on after what is wrong so that all of it is named.

use super::entry::{self, Entry, HEADER, Header};
use super::reader::unpack;
use super::{Fault, Part, ShardInfo};
use std::ops::Range;

/// All that is wrong with a shard's bytes, in the order of the file; nothing if it is the shard that was written.
pub fn check_shard(bytes: &[u8], info: &ShardInfo) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Err(fault) = check_parts(bytes, info, &mut faults) {
        faults.push(fault);
    }
    if faults.is_empty() && blake3::hash(bytes).to_hex().as_str() != info.blake3 {
        faults.push(Fault::Hash);
    }
    faults
}

/// Adds what is wrong to `faults`, and returns what makes the rest unreadable.
fn check_parts(bytes: &[u8], info: &ShardInfo, faults: &mut Vec<Fault>) -> Result<(), Fault> {
    let found = bytes.len() as u64;
    let header = Header::parse(bytes, found)?;
    if (header.records, header.file_len, header.crc) != (info.records, info.bytes, info.header_crc32) {
        return Err(Fault::Other);
    }
    let length = Fault::Length { expected: header.file_len, found };
    let Some(index) = bytes.get(HEADER..header.data_start() as usize) else {
        return Err(length);
    };
    if found != header.file_len {
        faults.push(length);
    }
    for entry in header.entries(index)? {
        check_record(bytes, &entry, faults);
    }
    Ok(())
}

fn check_record(bytes: &[u8], entry: &Entry, faults: &mut Vec<Fault>) {
    let name = || entry.name.clone();
    let get = |range: Range<u64>| bytes.get(range.start as usize..range.end as usize);
    let parts = [(Part::Image, entry.image(), entry.image_crc), (Part::Label, entry.label(), entry.label_crc)];
    for (part, range, crc) in parts {
        match get(range) {
            None => faults.push(Fault::Truncated { name: name(), part }),
            Some(bytes) if crc32fast::hash(bytes) != crc => faults.push(Fault::RecordCrc { name: name(), part }),
            Some(frame) if part == Part::Label => faults.extend(unpack(frame, entry, &mut Vec::new()).err()),
            Some(_) => {}
        }
    }
    let end = entry.label().end;
    let padding = get(end..entry::align(end)).unwrap_or_default();
    if let Some(at) = padding.iter().position(|&byte| byte != 0) {
        faults.push(Fault::Padding(end + at as u64));
    }
}
