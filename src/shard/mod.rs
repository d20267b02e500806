//! The record format: what a set of shards is, byte by byte, with the reader and the writer.
//!
//! A set is a folder: `index.json` and the shards that it lists, `shard-00000.seg` and so on, of about 64 MiB each.
//! Numbers are little-endian. CRC is CRC-32 (IEEE 802.3). Any name that starts with a dot is unfinished.
//!
//! # A shard
//!
//! | bytes | what |
//! |---|---|
//! | 64 | header |
//! | 48 · records | entries |
//! | | the records' names, UTF-8, one after the other |
//! | | zeros up to a multiple of 64 |
//! | | the records, each: image bytes, label bytes, zeros up to a multiple of 64 |
//!
//! | header at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `SEGDIST` and a zero |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | number of records, at least 1 |
//! | 16 | 8 | length of the file |
//! | 24 | 8 | length of the names |
//! | 32 | 4 | CRC of all between the header and the first record |
//! | 36 | 24 | zeros |
//! | 60 | 4 | CRC of the 60 bytes before |
//!
//! | entry at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | where the image's bytes start in the file; the label's follow them |
//! | 8, 12 | 4, 4 | length of the image, of the label |
//! | 16, 20 | 4, 4 | width, height, of both |
//! | 24, 28 | 4, 4 | CRC of the image, of the label |
//! | 32 | 4 | length of the name |
//! | 36 | 1 | codec of the image: 1 JPEG, 2 PNG, 3 JPEG to be turned as its EXIF block asks |
//! | 37 | 11 | zeros |
//!
//! The image is the packed file, untouched, or a PNG file of the same pixels where it was another container. The label is one zstd frame of width · height bytes, the raw label values
//! row by row. There is only one place where each part can be, so a reader refuses any other offset.
//!
//! # index.json
//!
//! `format` "segdist", `version` 1, `records`, `dataset_id` (BLAKE3 of the index without id, CRC and counts), `shards` (each
//! `file`, `records`, `bytes`, `header_crc32`, `blake3` of the file), where known `classes`, `palette` and `label_map`
//! (raw value → class or "ignore"; without it 0 is ignored and k is class k - 1), `translated` (true where labels were
//! colours or wide values: then they are stored as class + 1, 0 ignored, and no other map applies), `pixels` (of each
//! class), `ignored` (pixels) and `seen` (record by record the classes that it shows, a hexadecimal digit for every four,
//! class 0 the lowest bit of the first) as found when packing, which are no part of the id, and last `crc32`: eight lower-case
//! hexadecimal digits, the CRC of every byte of the file before them. Nothing but `"`, a newline, `}` and a newline
//! follows.
//!
//! # What is checked when
//!
//! Opening a set checks index.json, each shard's length, header, entries and names, and that the header is the one
//! that index.json lists. Reading a record checks its CRC, each time: decoders take damaged JPEGs without an error.
//! `segdist verify` checks what is left, the padding and the hashes.

mod access;
mod check;
mod entry;
mod error;
mod index;
mod reader;
mod sigbus;
mod writer;

pub use access::Access;
pub use check::check_shard;
pub use entry::{Codec, Entry, MAX_PIXELS};
pub use error::{Fault, Part, ShardError};
pub use index::{Classes, INDEX_FILE, Index, ShardInfo};
pub use reader::{Set, Shard};
pub use sigbus::set_rank;
pub use writer::{Record, compress_label, shard_name, write_shard};
