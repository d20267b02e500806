//! Header and entries of a shard, to bytes and back.

use super::Fault;
use std::ops::Range;

/// The largest image, in pixels: what Pillow refuses as a decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

pub(super) const VERSION: u32 = 1;
pub(super) const HEADER: usize = 64;
const ENTRY: usize = 48;
const MAGIC: &[u8; 8] = b"SEGDIST\0";

/// How the bytes of an image are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// JPEG, baseline or progressive.
    Jpeg = 1,
    /// PNG.
    Png = 2,
    /// JPEG, to be turned as its EXIF block asks.
    UprightJpeg = 3,
}

impl Codec {
    /// Tells the codec from the first bytes of a file.
    pub fn of(bytes: &[u8]) -> Option<Codec> {
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Codec::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Codec::Png)
        } else {
            None
        }
    }
}

/// One record's place in its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The record's name.
    pub name: String,
    /// Of image and label.
    pub width: u32,
    /// Of image and label.
    pub height: u32,
    /// Of the image.
    pub codec: Codec,
    pub(super) offset: u64,
    pub(super) image_len: u32,
    pub(super) label_len: u32,
    pub(super) image_crc: u32,
    pub(super) label_crc: u32,
}

impl Entry {
    /// Where the image's bytes are in the file.
    pub(super) fn image(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.image_len)
    }

    /// Where the label's bytes are in the file.
    pub(super) fn label(&self) -> Range<u64> {
        let start = self.image().end;
        start..start + u64::from(self.label_len)
    }

    fn to_bytes(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        put(&mut bytes, 0, &self.offset.to_le_bytes());
        let words = [
            self.image_len,
            self.label_len,
            self.width,
            self.height,
            self.image_crc,
            self.label_crc,
            self.name.len() as u32,
        ];
        for (i, word) in words.into_iter().enumerate() {
            put(&mut bytes, 8 + 4 * i, &word.to_le_bytes());
        }
        bytes[36] = self.codec as u8;
        bytes
    }

    /// Parses an entry whose image has to start at `offset`; takes its name off the front of `names`.
    fn parse(bytes: &[u8], names: &mut &[u8], offset: u64) -> Result<Entry, &'static str> {
        let [image_len, label_len, width, height, image_crc, label_crc, name_len] =
            std::array::from_fn(|i| u32_at(bytes, 8 + 4 * i));
        let codec = match bytes[36] {
            1 => Codec::Jpeg,
            2 => Codec::Png,
            3 => Codec::UprightJpeg,
            _ => return Err("has an unknown codec"),
        };
        let (name, rest) = names.split_at_checked(name_len as usize).ok_or("has a name past the end of the names")?;
        *names = rest;
        let name = std::str::from_utf8(name).map_err(|_| "has a name that is not UTF-8")?.to_string();
        if name.is_empty() {
            return Err("has no name");
        }
        if u64_at(bytes, 0) != offset {
            return Err("does not follow the record before it");
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels > MAX_PIXELS || image_len == 0 || label_len == 0 {
            return Err("has an impossible size");
        }
        if bytes[37..].iter().any(|&byte| byte != 0) {
            return Err("has bytes that are not zero where they must be");
        }
        Ok(Entry { name, width, height, codec, offset, image_len, label_len, image_crc, label_crc })
    }
}

/// Rounds up to where the next record starts.
pub(super) fn align(at: u64) -> u64 {
    at.next_multiple_of(64)
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub records: u32,
    pub file_len: u64,
    names_len: u64,
    index_crc: u32,
    /// The header's own CRC: with it, all of entries and names is known.
    pub crc: u32,
}

impl Header {
    /// Parses and checks the first bytes of a file that has `file_len` of them.
    pub fn parse(bytes: &[u8], file_len: u64) -> Result<Header, Fault> {
        let bytes = bytes.get(..HEADER).ok_or(Fault::NoHeader(file_len))?;
        if &bytes[..8] != MAGIC {
            return Err(Fault::Magic);
        }
        let crc = u32_at(bytes, 60);
        if crc != crc32fast::hash(&bytes[..60]) {
            return Err(Fault::HeaderCrc);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(Fault::Version(u32_at(bytes, 8)));
        }
        let header = Header {
            records: u32_at(bytes, 12),
            file_len: u64_at(bytes, 16),
            names_len: u64_at(bytes, 24),
            index_crc: u32_at(bytes, 32),
            crc,
        };
        // Bounds whatever is allocated for entries and names.
        let fits = header.file_len <= i64::MAX as u64
            && header.names_len <= header.file_len
            && header.data_start() <= header.file_len;
        if header.records == 0 || !fits || bytes[36..60].iter().any(|&byte| byte != 0) {
            return Err(Fault::Entry { record: 0, what: "cannot be where the header says" });
        }
        Ok(header)
    }

    /// Where the first record starts.
    pub fn data_start(&self) -> u64 {
        align((HEADER + ENTRY * self.records as usize) as u64 + self.names_len)
    }

    /// Parses and checks all between the header and the first record.
    pub fn entries(&self, index: &[u8]) -> Result<Vec<Entry>, Fault> {
        if crc32fast::hash(index) != self.index_crc {
            return Err(Fault::EntriesCrc);
        }
        let (entries, names) = index.split_at(ENTRY * self.records as usize);
        let (mut names, padding) = names.split_at(self.names_len as usize);
        let mut offset = self.data_start();
        let mut parsed = Vec::with_capacity(self.records as usize);
        for (record, bytes) in entries.chunks_exact(ENTRY).enumerate() {
            let entry = Entry::parse(bytes, &mut names, offset).map_err(|what| Fault::Entry { record, what })?;
            offset = align(entry.label().end);
            if offset > self.file_len {
                return Err(Fault::Entry { record, what: "ends past the end of the file" });
            }
            parsed.push(entry);
        }
        let last = |what| Fault::Entry { record: self.records as usize - 1, what };
        if offset != self.file_len {
            return Err(last("does not end where the file does"));
        }
        if !names.is_empty() || padding.iter().any(|&byte| byte != 0) {
            return Err(last("is not the end of the names"));
        }
        Ok(parsed)
    }
}

/// The bytes before the first record, of entries whose offsets are still to be set, and the header's CRC.
pub(super) fn front(entries: &mut [Entry]) -> (Vec<u8>, u32) {
    let names_len: usize = entries.iter().map(|entry| entry.name.len()).sum();
    let data_start = align((HEADER + ENTRY * entries.len() + names_len) as u64);
    let mut offset = data_start;
    let mut bytes = vec![0; HEADER];
    for entry in entries.iter_mut() {
        entry.offset = offset;
        offset = align(entry.label().end);
        bytes.extend(entry.to_bytes());
    }
    entries.iter().for_each(|entry| bytes.extend(entry.name.as_bytes()));
    bytes.resize(data_start as usize, 0);
    let index_crc = crc32fast::hash(&bytes[HEADER..]);
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, 8, &VERSION.to_le_bytes());
    put(&mut bytes, 12, &(entries.len() as u32).to_le_bytes());
    put(&mut bytes, 16, &offset.to_le_bytes());
    put(&mut bytes, 24, &(names_len as u64).to_le_bytes());
    put(&mut bytes, 32, &index_crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    put(&mut bytes, 60, &crc.to_le_bytes());
    (bytes, crc)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
