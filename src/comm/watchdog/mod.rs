//! Ends a job in which a rank is silent or makes no progress, and says which and where.
//!
//! A thread on every rank sends heartbeats over TCP, because MPI may be what hangs: all ranks to rank 0, rank 0 to
//! rank 1, who hear nobody that does not prove to be of the job. The heartbeat says how far the rank's own work has come
//! ([`Watchdog::progress`]), so that one who still lives but is stuck is found as well. Before the end every rank tells
//! its last collectives, by its own clock: those who could tell it may be the ones that hang.

mod beat;
mod inbox;
mod peer;
mod sender;
mod table;

use super::journal::Journal;
use super::{Comm, CommError};
use beat::Beat;
use inbox::Inbox;
use peer::Peer;
use sender::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use table::Table;

/// The part of its limit after which a waiting rank tells its last collectives.
const TELL: f64 = 0.75;
/// Between looks while ranks find their watcher, and how long that may take.
const MEETING: Duration = Duration::from_millis(5);
const MEETING_MOST: Duration = Duration::from_secs(2);

/// How long without progress until a rank is given up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Before the first step is done.
    pub start: Duration,
    /// From then on.
    pub stall: Duration,
    /// The job goes on without a rank whose process has ended: that alone is no reason to end it.
    pub survives: bool,
}

impl Limits {
    /// Limits in seconds; out of range is for ever.
    pub fn seconds(start: f64, stall: f64, survives: bool) -> Limits {
        let duration = |value| Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX);
        Limits { start: duration(start), stall: duration(stall), survives }
    }
}

/// The thread that watches; ends when dropped.
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<Progress>,
    wake: Condvar,
}

struct Progress {
    step: u64,
    phase: &'static str,
    /// Calls of `progress`.
    ticks: u64,
    /// A heartbeat has left for this rank's watcher.
    heard: bool,
    stop: bool,
}

impl Watchdog {
    /// Exchanges addresses over `comm` (collective), then watches until dropped. Returns when this rank's first
    /// heartbeat has left, or after two seconds without a way to the watcher: whoever stops later is known by then.
    ///
    /// `journal` knows the collectives that count as progress, and that are told in the end. `abort` must end the job
    /// on all ranks at once; it is called with the exit code after the message is logged.
    pub fn start(
        comm: &dyn Comm,
        limits: Limits,
        journal: Journal,
        abort: impl Fn(i32) + Send + 'static,
    ) -> Result<Watchdog, CommError> {
        let rank = comm.rank();
        let alone = peer::alone(comm)?;
        let listeners = (rank < 2 && comm.size() > 1).then(|| peer::listen(alone));
        let listeners = listeners.transpose().map_err(|cause| failed(rank, cause))?;
        let peers = Peer::all_gather(comm, listeners.as_deref().unwrap_or_default())?;
        let shared = Arc::new(Shared {
            state: Mutex::new(Progress { step: 0, phase: "start", ticks: 0, heard: false, stop: false }),
            wake: Condvar::new(),
        });
        // Rank 0 watches everyone, rank 1 watches rank 0 alone.
        let watched: Vec<usize> = match rank {
            0 => (0..peers.len()).collect(),
            1 => vec![0],
            _ => Vec::new(),
        };
        let mut watch = Watch {
            rank,
            shared: shared.clone(),
            inbox: listeners
                .map(|listeners| Inbox::new(listeners, peers[0].token, watched.len()))
                .transpose()
                .map_err(|cause| failed(rank, cause))?,
            table: Table::new(&peers, watched),
            sender: Sender::new(&peers, rank),
            limits,
            journal,
            own: Own::default(),
        };
        let work = move || {
            if let Some(verdict) = watch.run() {
                log::error!("{verdict}");
                abort(1);
            }
        };
        let thread = std::thread::Builder::new().name("segdist-watchdog".into()).spawn(work);
        let watchdog = Watchdog { shared, thread: Some(thread.map_err(|cause| failed(rank, cause))?) };
        watchdog.meet();
        Ok(watchdog)
    }

    fn meet(&self) {
        let state = lock(&self.shared.state);
        let met = self.shared.wake.wait_timeout_while(state, MEETING_MOST, |state| !state.heard);
        drop(met.expect("nothing panics while it holds this lock"));
    }

    /// This rank's work goes on: it is in `phase` of `step`, the number of finished updates.
    pub fn progress(&self, step: u64, phase: &'static str) {
        let mut state = lock(&self.shared.state);
        (state.step, state.phase) = (step, phase);
        state.ticks += 1;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the watchdog has panicked");
        }
    }
}

fn lock(state: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    state.lock().expect("nothing panics while it holds this lock")
}

fn failed(rank: usize, cause: std::io::Error) -> CommError {
    CommError::Failed { call: "watchdog", rank, cause: cause.to_string() }
}

/// What the thread owns.
struct Watch {
    rank: usize,
    shared: Arc<Shared>,
    inbox: Option<Inbox>,
    table: Table,
    sender: Sender,
    limits: Limits,
    journal: Journal,
    own: Own,
}

/// How far this rank had come, and for how long it has stood there.
#[derive(Default)]
struct Own {
    seen: (u64, u64),
    stuck: Duration,
    /// It has told its last collectives since.
    told: bool,
}

impl Watch {
    /// Beats and listens until stopped (None) or until a rank has to be given up (the message).
    fn run(&mut self) -> Option<String> {
        let shortest = self.limits.start.min(self.limits.stall);
        let interval = (shortest / 10).clamp(Duration::from_millis(20), Duration::from_secs(1));
        let start = Instant::now();
        let mut before = start;
        loop {
            let meets = start.elapsed() < MEETING_MOST && !(self.sender.is_up() && self.table.all_heard());
            let stop = self.sleep(if meets { MEETING } else { interval });
            let own = self.own_beat(stop);
            self.sender.send(&own);
            if self.sender.is_up() {
                lock(&self.shared.state).heard = true;
                self.shared.wake.notify_all();
            }
            if stop {
                return None;
            }
            // A watcher that was stopped itself must not take its own absence for everyone's.
            let passed = before.elapsed().min(2 * interval);
            before = Instant::now();
            self.table.age(passed);
            self.tell_if_stuck(&own, passed);
            self.table.heard(&own);
            let received = self.inbox.as_mut().map(Inbox::receive).unwrap_or_default();
            received.beats.iter().for_each(|beat| self.table.heard(beat));
            for rank in received.gone {
                if self.limits.survives { self.table.forget(rank) } else { self.table.lost(rank) }
            }
            let verdict = self.table.verdict(&self.limits);
            if verdict.is_some() {
                self.tell();
                return verdict;
            }
        }
    }

    /// Well before it may be killed: rank 0's word to end the job is its last.
    fn tell_if_stuck(&mut self, beat: &Beat, passed: Duration) {
        let seen = (beat.ticks, beat.collectives);
        if seen != self.own.seen {
            self.own = Own { seen, ..Own::default() };
        }
        self.own.stuck += passed;
        let limit = if beat.step > 0 { self.limits.stall } else { self.limits.start };
        if beat.waits && self.own.stuck >= limit.mul_f64(TELL) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.own.told, true) {
            self.journal.lines().iter().for_each(|line| log::warn!("{line}"));
        }
    }

    /// Whether it is time to stop.
    fn sleep(&self, interval: Duration) -> bool {
        let state = lock(&self.shared.state);
        let wait = self.shared.wake.wait_timeout_while(state, interval, |state| !state.stop);
        wait.expect("nothing panics while it holds this lock").0.stop
    }

    fn own_beat(&self, last: bool) -> Beat {
        let state = lock(&self.shared.state);
        Beat {
            rank: self.rank,
            last,
            step: state.step,
            ticks: state.ticks,
            collectives: self.journal.done(),
            waits: self.journal.waits(),
            phase: state.phase.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use std::sync::mpsc;

    /// What the watchdog of each rank did: an exit code, if it gave up.
    fn codes(advances: [bool; 2]) -> Vec<Option<i32>> {
        threads::run(2, |comm| {
            let (send, receive) = mpsc::channel();
            let limits = Limits::seconds(300.0, 0.3, false);
            let abort = move |code| send.send(code).unwrap();
            let watchdog = Watchdog::start(comm.as_ref(), limits, Journal::default(), abort).unwrap();
            let start = Instant::now();
            let mut code = None;
            for step in 1.. {
                if step == 1 || advances[comm.rank()] {
                    watchdog.progress(step, "gradients");
                }
                std::thread::sleep(Duration::from_millis(20));
                code = receive.try_recv().ok();
                if code.is_some() || start.elapsed() > Duration::from_secs(1) {
                    break;
                }
            }
            code
        })
    }

    #[test]
    fn ranks_that_advance_are_left_alone() {
        assert_eq!(codes([true, true]), [None, None]);
    }

    #[test]
    fn a_rank_that_stands_still_ends_the_job() {
        assert_eq!(codes([true, false])[0], Some(1));
    }
}
