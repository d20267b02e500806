//! Opens sets and reads records; the only file that maps memory.

use super::entry::{Entry, HEADER, Header};
use super::sigbus::{self, Watch};
use super::{Access, Fault, Index, Part, ShardError, ShardInfo};
use crate::retry;
use crate::stages::{self, Stage};
use memmap2::{Advice, Mmap};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A shard, open, its entries checked.
pub struct Shard {
    path: PathBuf,
    /// Opened again where the handle has gone stale.
    file: Mutex<Arc<File>>,
    header: Header,
    entries: Vec<Entry>,
    map: Option<Map>,
}

struct Map {
    bytes: Mmap,
    _watch: Watch,
}

impl Shard {
    /// Opens a shard and checks all but its records.
    pub fn open(path: &Path, access: Access) -> Result<Shard, ShardError> {
        let open = || -> Result<Shard, Fault> {
            let (file, header) = open_sound(path)?;
            let mut index = vec![0; header.data_start() as usize - HEADER];
            file.read_exact_at(&mut index, HEADER as u64)?;
            let entries = header.entries(&index)?;
            let file = Arc::new(file);
            let map = if access.maps(&file) { map(&file, path) } else { None };
            Ok(Shard { path: path.into(), file: Mutex::new(file), header, entries, map })
        };
        retry::read(path, open).map_err(|fault| ShardError::new(path, fault))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes of a record's image file, checked; in `scratch` where they are not mapped.
    pub fn image<'a>(&'a self, record: usize, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], ShardError> {
        let entry = &self.entries[record];
        self.bytes(entry, Part::Image, entry.image(), entry.image_crc, scratch)
    }

    /// Unpacks a record's label into `values`, width · height of them; `scratch` as in [`Shard::image`].
    pub fn label(&self, record: usize, scratch: &mut Vec<u8>, values: &mut Vec<u8>) -> Result<(), ShardError> {
        let entry = &self.entries[record];
        let frame = self.bytes(entry, Part::Label, entry.label(), entry.label_crc, scratch)?;
        stages::time(Stage::Label, || unpack(frame, entry, values)).map_err(|fault| ShardError::new(&self.path, fault))
    }

    /// The bytes of a range whose CRC is right; what does not match, or is not to be had, is read once more, past the map.
    fn bytes<'a>(
        &'a self,
        entry: &Entry,
        part: Part,
        range: Range<u64>,
        crc: u32,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], ShardError> {
        let fail = |fault| ShardError::new(&self.path, fault);
        let mapped = stages::time(Stage::Read, || self.map.as_ref().and_then(|map| map.range(&range)));
        let sound = |bytes: &[u8]| stages::time(Stage::Crc, || crc32fast::hash(bytes)) == crc;
        if let Some(bytes) = mapped.filter(|bytes| sound(bytes)) {
            return Ok(bytes);
        }
        let reads = if mapped.is_some() { 1 } else { 2 };
        scratch.resize((range.end - range.start) as usize, 0);
        for _ in 0..reads {
            stages::time(Stage::Read, || self.read_at(scratch, range.start)).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => fail(Fault::Truncated { name: entry.name.clone(), part }),
                _ => fail(error.into()),
            })?;
            if sound(scratch) {
                return Ok(scratch);
            }
        }
        Err(fail(Fault::RecordCrc { name: entry.name.clone(), part }))
    }

    /// Fills `bytes` from the file at `offset`, trying again what may pass.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut failed = false;
        retry::read(&self.path, || {
            if failed {
                self.open_again();
            }
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
            file.read_exact_at(bytes, offset).inspect_err(|_| failed = true)
        })
    }

    /// Takes a fresh handle where the shard is still what it was: on a network the old one may be stale for ever.
    fn open_again(&self) {
        if let Ok((file, header)) = open_sound(&self.path)
            && header == self.header
        {
            *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
        }
    }
}

/// Opens a shard and checks its header and length.
fn open_sound(path: &Path) -> Result<(File, Header), Fault> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut front = vec![0; HEADER.min(length as usize)];
    file.read_exact_at(&mut front, 0)?;
    let header = Header::parse(&front, length)?;
    if header.file_len != length {
        return Err(Fault::Length { expected: header.file_len, found: length });
    }
    Ok((file, header))
}

impl Map {
    /// The bytes of a range, brought into memory first: where the file has lost them or the disk fails, the kernel says
    /// so here, while touching them would raise SIGBUS. None then, and where the kernel cannot do that (before 5.14).
    fn range(&self, range: &Range<u64>) -> Option<&[u8]> {
        let (start, length) = (range.start as usize, (range.end - range.start) as usize);
        self.bytes.advise_range(Advice::PopulateRead, start, length).ok()?;
        Some(&self.bytes[start..start + length])
    }
}

/// Maps a file; None where that is not possible, and it is read instead.
fn map(file: &Arc<File>, path: &Path) -> Option<Map> {
    // SAFETY: shards are not changed once they have their name. Should one be, each range is populated before it is
    // touched, its CRC tells changed bytes, and a SIGBUS of what slips through ends the process (see `sigbus`).
    let bytes = unsafe { Mmap::map(&**file) }.ok()?;
    let watch = sigbus::watch(bytes.as_ptr(), bytes.len(), file, path);
    Some(Map { bytes, _watch: watch })
}

/// Unpacks a label into `values`, which has exactly the image's pixels afterwards.
pub(super) fn unpack(frame: &[u8], entry: &Entry, values: &mut Vec<u8>) -> Result<(), Fault> {
    let pixels = entry.width as usize * entry.height as usize;
    values.resize(pixels, 0);
    match zstd::bulk::decompress_to_buffer(frame, values.as_mut_slice()) {
        Ok(length) if length == pixels => Ok(()),
        _ => Err(Fault::LabelFrame { name: entry.name.clone() }),
    }
}

/// A set of shards, open and checked.
pub struct Set {
    /// What index.json says.
    pub index: Index,
    shards: Vec<Shard>,
    /// The number of the first record of each shard.
    first: Vec<usize>,
}

impl Set {
    /// Opens the set in `dir` and checks all but its records.
    pub fn open(dir: &Path, access: Access) -> Result<Set, ShardError> {
        let index = Index::read(dir)?;
        let mut shards = Vec::with_capacity(index.shards.len());
        let mut first = Vec::with_capacity(index.shards.len());
        let mut records = 0;
        for info in &index.shards {
            let path = dir.join(&info.file);
            let shard = Shard::open(&path, access)?;
            if !shard.is(info) {
                return Err(ShardError::new(&path, Fault::Other));
            }
            first.push(records);
            records += shard.entries.len();
            shards.push(shard);
        }
        Ok(Set { index, shards, first })
    }

    /// Every record's entry, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.shards.iter().flat_map(|shard| &shard.entries)
    }

    /// The shard of a record, and the record's number in it. Panics past the last record.
    pub fn locate(&self, record: usize) -> (&Shard, usize) {
        let shard = self.first.partition_point(|&first| first <= record) - 1;
        (&self.shards[shard], record - self.first[shard])
    }
}

impl Shard {
    /// Whether this is the shard that index.json lists.
    fn is(&self, info: &ShardInfo) -> bool {
        (self.header.records, self.header.file_len, self.header.crc) == (info.records, info.bytes, info.header_crc32)
    }
}
