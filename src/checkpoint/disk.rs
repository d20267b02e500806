//! The system calls that a checkpoint is made of. Tests end the process at any one of them.
//!
//! With `SEGDIST_FAULT=checkpoint:N` in the environment the process kills itself just before the N-th of these calls
//! ([`fault::point`]).

use super::CheckpointError;
use super::state::FileSeal;
use crate::{durable, fault};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs;
use std::io::Write;
use std::path::Path;

type Result<T> = std::result::Result<T, CheckpointError>;

/// Written at once; the hash of the next piece is computed while the page cache drains the one before.
const PIECE: usize = 4 << 20;

/// Creates a folder and those above it.
pub(super) fn create_dir(path: &Path) -> Result<()> {
    fault::point("checkpoint");
    fs::create_dir_all(path).map_err(CheckpointError::io(path))
}

/// Writes a new file of `parts`, one after the other, and waits until it is on the disk.
pub(super) fn write(path: &Path, parts: &[&[u8]]) -> Result<FileSeal> {
    fault::point("checkpoint");
    let mut file = durable::create_new(path).map_err(CheckpointError::io(path))?;
    let mut hash = blake3::Hasher::new();
    let mut bytes = 0;
    for piece in parts.iter().flat_map(|part| part.chunks(PIECE)) {
        fault::point("checkpoint");
        file.write_all(piece).map_err(CheckpointError::io(path))?;
        hash.update(piece);
        bytes += piece.len() as u64;
    }
    fault::point("checkpoint");
    file.sync_all().map_err(CheckpointError::io(path))?;
    Ok(FileSeal { bytes, blake3: hash.finalize().to_hex().to_string() })
}

/// Waits until the names in a folder are on the disk.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    fault::point("checkpoint");
    durable::sync_dir(path).map_err(CheckpointError::io(path))
}

/// Gives a folder its other name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fault::point("checkpoint");
    fs::rename(from, to).map_err(CheckpointError::io(to))
}

/// Gives a finished folder its true name. A folder that has that name already takes the temporary one, in the same
/// instant where the file system can do that.
pub(super) fn publish(temporary: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        return rename(temporary, target);
    }
    fault::point("checkpoint");
    match renameat_with(CWD, temporary, CWD, target, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            let aside = temporary.with_extension("replaced");
            remove_dotted(&aside)?;
            rename(target, &aside)?;
            rename(temporary, target)?;
            rename(&aside, temporary)
        }
        result => result.map_err(|errno| CheckpointError::io(target)(errno.into())),
    }
}

/// Removes a folder whose name starts with a dot, if it is there.
pub(super) fn remove_dotted(path: &Path) -> Result<()> {
    fault::point("checkpoint");
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CheckpointError::io(path)(error)),
        _ => Ok(()),
    }
}
