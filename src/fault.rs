//! The two kinds of failure a user meets: something to mend in what was given (exit code 2), and everything else (1).
//! And one for tests: a process that dies or panics at a place of their choice.

use std::fmt::Display;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A failure that lies in what the user gave: usage, configuration or input data. The process ends with code 2.
///
/// The message is one line that names the file or key, the cause, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

impl BadInput {
    /// Marks any error as the user's to mend; the cause chain is kept in its text.
    pub fn new(error: impl Display) -> Self {
        BadInput(error.to_string())
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
