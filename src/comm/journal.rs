//! The last collectives of every channel on this rank, told when a job ends because of one.
//!
//! The ranks of a job call the same collectives in the same order on each channel, so that number 812 of "gradients"
//! is the same on all: whose last one is lower is the one the others wait for.

use super::device::DeviceValues;
use super::trace::{Lane, Trace};
use super::{Comm, CommError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Collectives remembered of each channel.
const LAST: usize = 16;

/// Notes the collectives of the channels it makes, for their last moments and for a timeline.
#[derive(Clone, Default)]
pub struct Journal {
    pages: Arc<Mutex<BTreeMap<&'static str, Page>>>,
    /// Where collectives, and whatever else a step consists of, are drawn.
    pub trace: Trace,
}

/// One channel's.
#[derive(Default)]
struct Page {
    started: u64,
    done: u64,
    last: VecDeque<Collective>,
}

struct Collective {
    number: u64,
    operation: &'static str,
    bytes: usize,
    start: Instant,
    took: Option<Duration>,
}

impl Journal {
    /// A journal whose collectives are also drawn on `trace`.
    pub fn new(trace: Trace) -> Journal {
        Journal { trace, ..Journal::default() }
    }

    /// `comm` with its collectives noted under the lane's name; one process alone has none.
    pub fn channel(&self, comm: Arc<dyn Comm>, lane: Lane) -> Arc<dyn Comm> {
        if comm.size() == 1 { comm } else { Arc::new(Channel { inner: comm, lane, journal: self.clone() }) }
    }

    /// Collectives that this rank has finished, on all channels.
    pub fn done(&self) -> u64 {
        self.pages().values().map(|page| page.done).sum()
    }

    /// Whether this rank is in a collective that it computes nothing beside.
    pub fn waits(&self) -> bool {
        let pages = self.pages();
        let open = |lane: Lane| {
            pages.get(lane.name()).and_then(|page| page.last.back()).is_some_and(|last| last.took.is_none())
        };
        open(Lane::Step) || open(Lane::BatchNorm)
    }

    /// One line for every channel.
    pub fn lines(&self) -> Vec<String> {
        let text = |(name, page): (&&str, &Page)| {
            let told: Vec<String> = page.last.iter().map(Collective::text).collect();
            format!("last collectives of {name}: {}", told.join(", "))
        };
        self.pages().iter().map(text).collect()
    }

    fn pages(&self) -> MutexGuard<'_, BTreeMap<&'static str, Page>> {
        self.pages.lock().expect("nothing panics while it holds this lock")
    }

    fn begin(&self, lane: Lane, operation: &'static str, bytes: usize) {
        let mut pages = self.pages();
        let page = pages.entry(lane.name()).or_default();
        page.started += 1;
        let number = page.started;
        if page.last.len() == LAST {
            page.last.pop_front();
        }
        page.last.push_back(Collective { number, operation, bytes, start: Instant::now(), took: None });
    }

    /// Collectives of one channel never overlap: it is the last one that is done.
    fn end(&self, lane: Lane) {
        if let Some(page) = self.pages().get_mut(lane.name())
            && let Some(entry) = page.last.back_mut()
        {
            page.done += 1;
            entry.took = Some(entry.start.elapsed());
        }
    }
}

impl Collective {
    fn text(&self) -> String {
        let Collective { number, operation, bytes, .. } = self;
        let state = match self.took {
            Some(took) => format!("{:.1} ms", took.as_secs_f64() * 1e3),
            None => format!("not done for {:.1} s", self.start.elapsed().as_secs_f64()),
        };
        format!("{operation} {number} ({bytes} bytes) {state}")
    }
}

/// A communicator that is watched.
struct Channel {
    inner: Arc<dyn Comm>,
    lane: Lane,
    journal: Journal,
}

impl Channel {
    fn noted<T>(
        &self,
        operation: &'static str,
        bytes: usize,
        run: impl FnOnce(&dyn Comm) -> Result<T, CommError>,
    ) -> Result<T, CommError> {
        let _span = self.journal.trace.span(self.lane, operation).with("bytes", bytes as u64);
        self.journal.begin(self.lane, operation, bytes);
        let result = run(&*self.inner);
        match &result {
            Ok(_) => self.journal.end(self.lane),
            // Where the job goes on, there is nothing to explain.
            Err(CommError::Died { .. }) => {}
            Err(_) => self.journal.lines().iter().for_each(|line| log::error!("{line}")),
        }
        result
    }
}

impl Comm for Channel {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn all_reduce_f32(&self, values: &mut [f32]) -> Result<(), CommError> {
        self.noted("all_reduce", size_of_val(values), |comm| comm.all_reduce_f32(values))
    }
    fn all_reduce_f64(&self, values: &mut [f64]) -> Result<(), CommError> {
        self.noted("all_reduce", size_of_val(values), |comm| comm.all_reduce_f64(values))
    }
    fn all_reduce_i64(&self, values: &mut [i64]) -> Result<(), CommError> {
        self.noted("all_reduce", size_of_val(values), |comm| comm.all_reduce_i64(values))
    }
    fn all_reduce_device(&self, values: DeviceValues) -> Result<(), CommError> {
        self.noted("all_reduce", values.bytes(), |comm| comm.all_reduce_device(values))
    }
    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        self.noted("broadcast", bytes.len(), |comm| comm.broadcast(root, bytes))
    }
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError> {
        self.noted("all_gather", bytes.len(), |comm| comm.all_gather(bytes))
    }
    fn all_to_all(&self, bytes: &[u8]) -> Result<Vec<u8>, CommError> {
        self.noted("all_to_all", bytes.len(), |comm| comm.all_to_all(bytes))
    }
    fn barrier(&self) -> Result<(), CommError> {
        self.noted("barrier", 0, |comm| comm.barrier())
    }
    /// Not watched: a channel of its own needs a name of its own.
    fn duplicate(&self) -> Result<Arc<dyn Comm>, CommError> {
        self.inner.duplicate()
    }
    fn survive(&self) -> Result<(), String> {
        self.inner.survive()
    }
    /// Not watched: where nobody survives a death, it is no collective.
    fn vote(&self, yes: bool) -> Result<bool, CommError> {
        self.inner.vote(yes)
    }
    fn shrink(&self) -> Result<(), CommError> {
        self.inner.shrink()
    }
    fn abort(&self, code: i32) -> ! {
        self.inner.abort(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn the_last_collectives_are_told_by_channel_and_number() {
        let all = threads::run(2, |comm| {
            let journal = Journal::default();
            let [step, gradients] = [Lane::Step, Lane::Gradients].map(|lane| journal.channel(comm.clone(), lane));
            for _ in 0..20 {
                step.all_reduce_i64(&mut [1, 2, 3]).expect("no rank leaves");
            }
            gradients.all_reduce_f32(&mut [0.5]).expect("no rank leaves");
            journal.begin(Lane::Gradients, "all_reduce", 8);
            (journal.done(), journal.lines())
        });
        for (done, lines) in all {
            assert_eq!((done, lines.len()), (21, 2));
            assert!(lines[0].starts_with("last collectives of gradients: all_reduce 1 (4 bytes) "), "{lines:?}");
            assert!(lines[0].contains("all_reduce 2 (8 bytes) not done for 0."), "{lines:?}");
            assert!(lines[1].starts_with("last collectives of step: all_reduce 5 (24 bytes) "), "{lines:?}");
        }
    }
}
