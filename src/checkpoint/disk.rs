//! The system calls that a checkpoint is made of. Tests end the process at any one of them.
//!
//! With `SEGDIST_FAULT=checkpoint:N` in the environment the process kills itself just before the N-th of these calls,
//! counted from 1: a crash at a place of one's choice.

use super::CheckpointError;
use super::state::FileSeal;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

type Result<T> = std::result::Result<T, CheckpointError>;

/// Written at once; the hash of the next piece is computed while the page cache drains the one before.
const PIECE: usize = 4 << 20;

/// Creates a folder and those above it.
pub(super) fn create_dir(path: &Path) -> Result<()> {
    crash_point();
    fs::create_dir_all(path).map_err(CheckpointError::io(path))
}

/// Writes a new file of `parts`, one after the other, and waits until it is on the disk.
pub(super) fn write(path: &Path, parts: &[&[u8]]) -> Result<FileSeal> {
    crash_point();
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(CheckpointError::io(path))?;
    let mut hash = blake3::Hasher::new();
    let mut bytes = 0;
    for piece in parts.iter().flat_map(|part| part.chunks(PIECE)) {
        crash_point();
        file.write_all(piece).map_err(CheckpointError::io(path))?;
        hash.update(piece);
        bytes += piece.len() as u64;
    }
    crash_point();
    file.sync_all().map_err(CheckpointError::io(path))?;
    Ok(FileSeal { bytes, blake3: hash.finalize().to_hex().to_string() })
}

/// Waits until the names in a folder are on the disk.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    crash_point();
    File::open(path).and_then(|dir| dir.sync_all()).map_err(CheckpointError::io(path))
}

/// Gives a folder its other name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    crash_point();
    fs::rename(from, to).map_err(CheckpointError::io(to))
}

/// Gives a finished folder its true name. A folder that has that name already takes the temporary one, in the same
/// instant where the file system can do that.
pub(super) fn publish(temporary: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        return rename(temporary, target);
    }
    crash_point();
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
    crash_point();
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CheckpointError::io(path)(error)),
        _ => Ok(()),
    }
}

fn crash_point() {
    static AT: OnceLock<Option<u64>> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let at = AT.get_or_init(|| std::env::var("SEGDIST_FAULT").ok()?.strip_prefix("checkpoint:")?.parse().ok());
    if at.is_some_and(|at| CALLS.fetch_add(1, Ordering::Relaxed) + 1 == at) {
        // The signal that leaves no time for any clean-up; it cannot fail towards oneself.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
