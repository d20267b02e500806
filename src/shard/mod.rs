//! The record format: what a set of shards is, byte by byte, with the reader and the writer.

mod entry;

pub use entry::{Codec, MAX_PIXELS};
