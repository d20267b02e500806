//! Writes shards, each complete under its name or not there at all.

use super::entry::{self, Codec, Entry};
use super::{Fault, ShardError, ShardInfo};
use crate::durable;
use std::io;
use std::path::Path;

/// Labels are written once and read in every pass; above this level they hardly shrink.
const ZSTD_LEVEL: i32 = 12;

/// What a record is made of.
pub struct Record {
    /// Unique in its set.
    pub name: String,
    /// Of image and label.
    pub width: u32,
    /// Of image and label.
    pub height: u32,
    /// Of `image`.
    pub codec: Codec,
    /// The image file's bytes.
    pub image: Vec<u8>,
    /// What [`compress_label`] returned.
    pub label: Vec<u8>,
}

impl Record {
    /// Bytes of image and label.
    pub fn byte_len(&self) -> usize {
        self.image.len() + self.label.len()
    }
}

/// Raw label values as a zstd frame.
pub fn compress_label(values: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(values, ZSTD_LEVEL)
}

/// The name of the shard with this number.
pub fn shard_name(number: usize) -> String {
    format!("shard-{number:05}.seg")
}

/// Writes shard `number` of a set into `dir`.
pub fn write_shard(dir: &Path, number: usize, records: &[Record]) -> Result<ShardInfo, ShardError> {
    let path = dir.join(shard_name(number));
    let fail = |fault| ShardError::new(&path, fault);
    let entries: Result<Vec<Entry>, _> = records.iter().map(entry_of).collect();
    let mut entries = entries.map_err(|what| fail(Fault::Io(io::Error::other(what))))?;
    let (mut bytes, header_crc32) = entry::front(&mut entries);
    for record in records {
        bytes.extend(&record.image);
        bytes.extend(&record.label);
        bytes.resize(entry::align(bytes.len() as u64) as usize, 0);
    }
    durable::write(&path, &bytes).map_err(|error| fail(error.into()))?;
    Ok(ShardInfo {
        file: shard_name(number),
        records: records.len() as u32,
        bytes: bytes.len() as u64,
        header_crc32,
        blake3: blake3::hash(&bytes).to_hex().to_string(),
    })
}

fn entry_of(record: &Record) -> Result<Entry, String> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| format!("{} has more than 4 GiB", record.name));
    Ok(Entry {
        name: record.name.clone(),
        width: record.width,
        height: record.height,
        codec: record.codec,
        offset: 0,
        image_len: length(&record.image)?,
        label_len: length(&record.label)?,
        image_crc: crc32fast::hash(&record.image),
        label_crc: crc32fast::hash(&record.label),
    })
}
