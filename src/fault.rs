//! The two kinds of failure, which decide the exit code: what the user must mend (2), and what may pass by itself (1).
//!
//! An error type says for each of its variants which kind it is ([`Failure`]); where an error becomes an
//! `anyhow::Error`, [`classified`] keeps that, so no call site decides. Launchers start a job again after code 1, never
//! after 2. And one thing for tests: a process that dies or panics at a place of their choice.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who can do something about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It lies in what the user gave: a file that is missing or damaged, a wrong value. Code 2.
    Input,
    /// It lies in the circumstances: a disk, a network, another rank. The same start may succeed later. Code 1.
    Passing,
}

impl Kind {
    /// What an error of the system says of the file it happened to. What is not known to be the user's may pass.
    pub fn of(error: &io::Error) -> Kind {
        use io::ErrorKind as E;
        match error.kind() {
            E::NotFound | E::PermissionDenied | E::NotADirectory | E::IsADirectory | E::ReadOnlyFilesystem => {
                Kind::Input
            }
            E::InvalidFilename | E::InvalidInput | E::InvalidData | E::UnexpectedEof => Kind::Input,
            _ if error.raw_os_error() == Some(libc::ELOOP) => Kind::Input,
            _ => Kind::Passing,
        }
    }
}

/// An error that knows its kind.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// Decided by the variant alone.
    fn kind(&self) -> Kind;
}

impl Failure for io::Error {
    fn kind(&self) -> Kind {
        Kind::of(self)
    }
}

/// The error as one that ends the process with the code of its kind.
pub fn classified(failure: impl Failure) -> anyhow::Error {
    match failure.kind() {
        Kind::Input => BadInput(failure.to_string()).into(),
        Kind::Passing => anyhow::Error::new(failure),
    }
}

/// A failure that has only words, and its kind.
pub fn error(kind: Kind, message: String) -> anyhow::Error {
    match kind {
        Kind::Input => BadInput(message).into(),
        Kind::Passing => anyhow::Error::msg(message),
    }
}

/// What keeps a file or folder that the user named from being written, in one line; the system's word in it, if there is
/// one, decides the kind.
pub fn unwritable(path: &Path, cause: impl Into<anyhow::Error>) -> anyhow::Error {
    let cause = cause.into();
    let kind = match cause.chain().find_map(|cause| cause.downcast_ref::<io::Error>()) {
        // A file where a folder is to be made.
        Some(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Kind::Input,
        cause => cause.map_or(Kind::Passing, Kind::of),
    };
    error(kind, format!("{}: cannot be written: {cause:#}; name a place that can be", path.display()))
}

/// A failure that lies in what the user gave: usage, configuration or input data. The process ends with code 2.
///
/// The message is one line that names the file or key, the cause, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

impl Failure for BadInput {
    fn kind(&self) -> Kind {
        Kind::Input
    }
}

/// A failure that every rank knows of: rank 0 tells the user, and all leave in good order.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Agreed {
    /// One line; names the rank when not all ranks failed alike.
    pub message: String,
    /// The job's exit code.
    pub code: u8,
}

/// Shorthand for returning a [`BadInput`] from a function with an `anyhow` result.
#[macro_export]
macro_rules! bad_input {
    ($($message:tt)*) => {
        return Err(::anyhow::Error::new($crate::fault::BadInput(format!($($message)*))))
    };
}

/// For checks of a configuration's values: the message names the key and says what to set.
pub fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

/// The exit code that an error ends the process with.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(agreed) = error.downcast_ref::<Agreed>() {
        return agreed.code;
    }
    if error.chain().any(|cause| cause.is::<BadInput>()) { 2 } else { 1 }
}

/// A place where a test may have the process killed: `SEGDIST_FAULT=forward:3` in the environment does it at the third
/// call with the name `forward`. `forward:3:panic` panics there instead.
pub fn point(name: &str) {
    static INJECTION: OnceLock<Option<Injection>> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let injection = INJECTION.get_or_init(|| Injection::parse(&std::env::var("SEGDIST_FAULT").ok()?));
    let Some(injection) = injection.as_ref().filter(|injection| injection.name == name) else { return };
    if CALLS.fetch_add(1, Ordering::Relaxed) + 1 == injection.call {
        assert!(!injection.panics, "SEGDIST_FAULT asks for a panic in {name}");
        // The signal that leaves no time for any clean-up; it cannot fail towards oneself.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

struct Injection {
    name: String,
    call: u64,
    panics: bool,
}

impl Injection {
    fn parse(text: &str) -> Option<Injection> {
        let mut parts = text.split(':');
        let (name, call) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        Some(Injection { name, call, panics: parts.next() == Some("panic") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_of_a_file_is_the_users_or_may_pass() {
        let kind = |code| Kind::of(&io::Error::from_raw_os_error(code));
        for code in
            [libc::ENOENT, libc::EACCES, libc::ENOTDIR, libc::EISDIR, libc::EROFS, libc::ENAMETOOLONG, libc::ELOOP]
        {
            assert_eq!(kind(code), Kind::Input, "{}", io::Error::from_raw_os_error(code));
        }
        let passing = [
            libc::EIO,
            libc::ESTALE,
            libc::ETIMEDOUT,
            libc::ENOTCONN,
            libc::EAGAIN,
            libc::EINTR,
            libc::ENOSPC,
            libc::EDQUOT,
            libc::EHOSTDOWN,
            libc::ENODEV,
            libc::ENXIO,
            libc::ENOMEM,
            libc::EMFILE,
            libc::EBUSY,
        ];
        for code in passing {
            assert_eq!(kind(code), Kind::Passing, "{}", io::Error::from_raw_os_error(code));
        }
    }
}
