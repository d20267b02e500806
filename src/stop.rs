//! The wish to stop: signals and the time limit, kept until the next step asks.
//!
//! A request is one rank's own; that all ranks stop after the same step is for them to agree.

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The exit code of a process that Ctrl-C stopped at once: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Listens for requests to stop, from [`StopRequest::install`] to the end of the process.
#[derive(Clone, Debug)]
pub struct StopRequest {
    /// The number of the last signal; 0: none has come.
    signal: Arc<AtomicUsize>,
    deadline: Option<Instant>,
}

/// Why this rank wants the run to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// SIGTERM.
    Term,
    /// SIGUSR1.
    Usr1,
    /// SIGINT.
    Int,
    /// TRAIN.max_minutes are over.
    TimeLimit,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Reason::Term => "SIGTERM",
            Reason::Usr1 => "SIGUSR1",
            Reason::Int => "SIGINT",
            Reason::TimeLimit => "TRAIN.max_minutes",
        })
    }
}

impl StopRequest {
    /// Turns SIGTERM, SIGUSR1 and SIGINT into requests from now on; a second SIGINT ends the process at once.
    ///
    /// SIGXFSZ becomes harmless: a file that outgrows its limit is then a failed write, not the end of the process.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn install() -> io::Result<StopRequest> {
        let interrupted = Arc::new(AtomicBool::new(false));
        // In this order the first SIGINT finds the flag unset.
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&interrupted))?;
        flag::register(SIGINT, interrupted)?;
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGTERM, SIGUSR1, SIGINT] {
            flag::register_usize(number, Arc::clone(&signal), number as usize)?;
        }
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        Ok(StopRequest { signal, deadline: None })
    }

    /// Adds a time limit, counted from now; 0 or less: none.
    pub fn with_limit(mut self, minutes: f64) -> StopRequest {
        let limit = Duration::try_from_secs_f64(minutes * 60.0).ok().filter(|limit| !limit.is_zero());
        self.deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self
    }

    /// The request, if there is one.
    pub fn requested(&self) -> Option<Reason> {
        match self.signal.load(Ordering::Relaxed) as i32 {
            SIGTERM => Some(Reason::Term),
            SIGUSR1 => Some(Reason::Usr1),
            SIGINT => Some(Reason::Int),
            _ => self.deadline.filter(|&deadline| Instant::now() >= deadline).map(|_| Reason::TimeLimit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> StopRequest {
        StopRequest { signal: Arc::default(), deadline: None }
    }

    #[test]
    fn without_limit_or_signal_nothing_is_requested() {
        for minutes in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300, 60.0] {
            assert_eq!(quiet().with_limit(minutes).requested(), None, "{minutes}");
        }
    }

    #[test]
    fn a_limit_that_is_over_is_a_request() {
        let stop = quiet().with_limit(1e-6);
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(stop.requested(), Some(Reason::TimeLimit));
    }

    #[test]
    fn each_signal_is_a_request_that_stays() {
        let stop = StopRequest::install().unwrap();
        for (number, reason) in [(SIGTERM, Reason::Term), (SIGUSR1, Reason::Usr1), (SIGINT, Reason::Int)] {
            signal_hook::low_level::raise(number).unwrap();
            assert_eq!(stop.requested(), Some(reason));
            assert_eq!(stop.requested(), Some(reason));
        }
    }
}
