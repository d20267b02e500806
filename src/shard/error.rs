//! Every way in which a set of shards can be wrong.

use crate::fault::{Failure, Kind};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What is wrong, and in which file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", .file.display())]
pub struct ShardError {
    /// A shard or index.json.
    pub file: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

impl ShardError {
    /// `fault` in `file`.
    pub fn new(file: &Path, fault: Fault) -> ShardError {
        ShardError { file: file.into(), fault }
    }
}

/// The part of a record that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Part {
    Image,
    Label,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Image => "image",
            Part::Label => "label",
        })
    }
}

/// One way for a file to be wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The system would not read or write it.
    #[error("{0}")]
    Io(io::Error),
    /// No index.json: some other folder, or none.
    #[error("is not there, so its folder is not a packed set; name the one that segdist pack wrote (--out)")]
    NoIndex,
    /// index.json does not end in its CRC, or the CRC is not that of its bytes.
    #[error("is damaged or was edited (its CRC differs); pack or copy the set again")]
    IndexCrc,
    /// index.json is sound but says something that cannot be.
    #[error("is no index of shards: {0}")]
    IndexForm(String),
    /// index.json or a shard is of another version of the format.
    #[error("has version {0} of the record format, this program reads version 1; pack the set again")]
    Version(u32),
    /// Shorter than a header.
    #[error("is no shard: it has {0} bytes, fewer than a header")]
    NoHeader(u64),
    /// Another kind of file.
    #[error("is no shard: it starts with other bytes")]
    Magic,
    /// The header's bytes do not match their CRC.
    #[error("is damaged: the header's CRC differs; copy the shard again")]
    HeaderCrc,
    /// Cut short, or longer than it was written.
    #[error("has {found} bytes instead of {expected}; the shard is truncated or replaced, copy it again")]
    Length {
        /// By header or index.json.
        expected: u64,
        /// On disk.
        found: u64,
    },
    /// Entries, names or the padding after them do not match their CRC.
    #[error("is damaged: the index's CRC differs; copy the shard again")]
    EntriesCrc,
    /// An entry that no writer makes.
    #[error("is no shard: the entry of record {record} {what}")]
    Entry {
        /// From 0.
        record: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A sound shard, but not the one that index.json lists.
    #[error("is not the shard that index.json lists; copy the set again")]
    Other,
    /// A record's bytes do not match their CRC, read twice.
    #[error("record {name}: the {part} is damaged (its CRC differs); copy the shard again")]
    RecordCrc {
        /// The record's name.
        name: String,
        /// Image or label.
        part: Part,
    },
    /// The file ends before a record that it had when it was opened.
    #[error("record {name}: the {part} is cut off; the shard is truncated, copy it again")]
    Truncated {
        /// The record's name.
        name: String,
        /// Image or label.
        part: Part,
    },
    /// A label that is not a zstd frame of the image's size.
    #[error("record {name}: the label does not unpack to the image's size; pack the set again")]
    LabelFrame {
        /// The record's name.
        name: String,
    },
    /// A byte between records that is not zero.
    #[error("is damaged: the padding at byte {0} is not zero; copy the shard again")]
    Padding(u64),
    /// All else is sound, but the file's hash is another.
    #[error("is damaged: its hash is not the one in index.json; copy the shard again")]
    Hash,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl Failure for Fault {
    fn kind(&self) -> Kind {
        match self {
            Fault::Io(error) => Kind::of(error),
            _ => Kind::Input,
        }
    }
}

impl Failure for ShardError {
    fn kind(&self) -> Kind {
        self.fault.kind()
    }
}
