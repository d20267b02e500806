//! Reading again what the system refused to read: a file server that restarts, a link that was down for a moment.
//!
//! Every reader of samples goes through [`read`], so that how long one waits, and the count of it, are here alone.

use crate::fault::{Failure, Kind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Milliseconds before each further attempt: three seconds in all, far less than the time in which a rank must answer.
const PAUSES: [u64; 6] = [50, 100, 200, 400, 800, 1600];

static RETRIES: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// What reading has cost this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts after the first.
    pub retries: u64,
    /// Reads that failed to the last attempt.
    pub failures: u64,
}

/// The counts since the last call.
pub fn take_counts() -> Counts {
    Counts { retries: RETRIES.swap(0, Relaxed), failures: FAILURES.swap(0, Relaxed) }
}

/// Calls `attempt`, which reads from `file`, until it succeeds, fails for good ([`Kind::Input`]), or time is up. It must
/// open the file anew: a handle that is stale stays stale.
///
/// # Errors
/// That of the last attempt.
pub fn read<T, E: Failure>(file: &Path, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    for pause in PAUSES {
        match attempt() {
            Err(error) if error.kind() == Kind::Passing => {
                log::warn!("{}: {error}; reading again in {pause} ms", file.display());
                RETRIES.fetch_add(1, Relaxed);
                thread::sleep(Duration::from_millis(pause));
            }
            result => return result,
        }
    }
    attempt().inspect_err(|_| _ = FAILURES.fetch_add(1, Relaxed))
}
