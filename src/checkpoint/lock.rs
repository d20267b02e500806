//! One job at a time on a run's folder.

use crate::fault::{Failure, Kind};
use crate::run_dir::RunDir;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The lock on a run's folder, held until it is dropped or the process ends, however it ends.
///
/// It is the kernel's lock on `DIR/.lock`, not the file: what a killed job left there stops nobody. The file says
/// who holds it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another job works there.
    #[error("DIR {} is in use by {holder}: wait for that job, stop it, or give another DIR", dir.display())]
    Held {
        /// The folder.
        dir: PathBuf,
        /// `process PID on HOST`.
        holder: String,
    },
    /// A file has the folder's name.
    #[error("DIR {}: is a file; name the folder of the run", .0.display())]
    NoFolder(PathBuf),
    /// The file system refused.
    #[error("DIR {}: {cause}", path.display())]
    Io {
        /// What was to be created.
        path: PathBuf,
        /// The refusal.
        cause: io::Error,
    },
}

impl Failure for LockError {
    fn kind(&self) -> Kind {
        match self {
            LockError::Held { .. } | LockError::NoFolder(_) => Kind::Input,
            LockError::Io { cause, .. } => Kind::of(cause),
        }
    }
}

impl Lock {
    /// Creates `dir` where it is missing and locks it.
    pub fn take(dir: &Path) -> Result<Lock, LockError> {
        fs::create_dir_all(dir).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => LockError::NoFolder(dir.to_path_buf()),
            _ => LockError::Io { path: dir.to_path_buf(), cause },
        })?;
        let path = RunDir::new(dir).lock();
        let failed = |cause| LockError::Io { path: path.clone(), cause };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(OFlags::NOFOLLOW.bits() as i32);
        let mut file = options.open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Held { dir: dir.to_path_buf(), holder: holder(&mut file) });
            }
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => {
                log::warn!("{}: this file system has no locks, nothing keeps a second job away", path.display());
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        sign(&mut file).map_err(failed)?;
        Ok(Lock { _file: file })
    }
}

/// Writes who holds the lock.
fn sign(file: &mut File) -> io::Result<()> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("process {} on {host}\n", std::process::id()).as_bytes())
}

/// Reads who holds the lock; its file may say anything.
fn holder(file: &mut File) -> String {
    let mut text = Vec::new();
    let _ = file.take(300).read_to_end(&mut text);
    match String::from_utf8_lossy(&text).lines().next() {
        Some(line) if line.starts_with("process ") => line.to_string(),
        _ => "another job".to_string(),
    }
}
