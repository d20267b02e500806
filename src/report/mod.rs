//! What a person looks at: the progress line, tables, curves, overlays, TensorBoard's files.
//!
//! Nothing here decides anything; every function takes finished numbers or pixels.

pub mod axis;
pub mod board;
pub mod canvas;
pub mod curve;
pub mod history;
pub mod html;
pub mod matrix;
pub mod overlay;
pub mod palette;
pub mod picture;
pub mod progress;
pub mod run_curve;
pub mod table;
pub mod tensorboard;

use std::io;
use std::path::Path;

/// Writes a file that appears whole or not at all: under a name that starts with a dot, then renamed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("not a file name"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let hidden = path.with_file_name(hidden);
    std::fs::write(&hidden, bytes)?;
    std::fs::rename(&hidden, path)
}
