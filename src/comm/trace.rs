//! A timeline of a run's first steps, for chrome://tracing and ui.perfetto.dev.
//!
//! One file a rank, a JSON array of events: the rank is the process, a [`Lane`] is a thread, times are microseconds
//! since a moment that all ranks share. A file is complete after each step, whatever ends the run later: new events
//! take the place of the closing bracket. On a GPU a span is the time in which work is handed over, not done.

use super::{Comm, CommError, hostname};
use crate::fault::{Failure, Kind};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// Steps that are traced: some megabytes a rank, however long the run.
pub const STEPS: u64 = 100;

/// What closes the array.
const END: &str = "\n]\n";

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be made.
    #[error("DIST.trace: {0}: cannot be written: {1}; name a file in a folder that is there on every host")]
    Unwritable(PathBuf, std::io::Error),
    /// The ranks could not talk.
    #[error(transparent)]
    Comm(#[from] CommError),
}

impl Failure for TraceError {
    fn kind(&self) -> Kind {
        match self {
            TraceError::Unwritable(_, cause) => Kind::of(cause),
            TraceError::Comm(error) => error.kind(),
        }
    }
}

/// A row of the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The thread that trains.
    Step,
    /// Gradient buckets on their way.
    Gradients,
    /// Batch statistics and their gradients.
    BatchNorm,
}

impl Lane {
    const ALL: [Lane; 3] = [Lane::Step, Lane::Gradients, Lane::BatchNorm];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Step => "step",
            Lane::Gradients => "gradients",
            Lane::BatchNorm => "batch norm",
        }
    }
}

/// Where spans go: nowhere by default.
#[derive(Clone, Default)]
pub struct Trace(Option<Arc<Shared>>);

struct Shared {
    rank: usize,
    origin: Instant,
    on: AtomicBool,
    book: Mutex<Book>,
}

struct Book {
    path: PathBuf,
    file: File,
    /// Where the closing bracket stands.
    end: u64,
    steps: u64,
    pending: Vec<Value>,
}

impl Trace {
    /// A trace into `path`, the rank's number put before its extension; none where `path` is empty. A collective.
    ///
    /// # Errors
    /// When this rank's file cannot be made; the other ranks have theirs.
    pub fn open(path: &Path, comm: &dyn Comm) -> Result<Trace, TraceError> {
        if path.as_os_str().is_empty() {
            return Ok(Trace::default());
        }
        let path = of_rank(path, comm.rank());
        let file = File::create(&path);
        comm.barrier()?;
        let origin = Instant::now();
        let file = file.map_err(|cause| TraceError::Unwritable(path.clone(), cause))?;
        let rank = comm.rank();
        let name = |kind: &str, lane: usize, name: String| json!({ "ph": "M", "name": kind, "pid": rank, "tid": lane, "args": { "name": name } });
        let mut pending = vec![name("process_name", 0, format!("rank {rank} on {}", hostname()))];
        pending.extend(Lane::ALL.map(|lane| name("thread_name", lane as usize, lane.name().into())));
        let book = Mutex::new(Book { path, file, end: 0, steps: 0, pending });
        Ok(Trace(Some(Arc::new(Shared { rank, origin, on: AtomicBool::new(true), book }))))
    }

    /// From now until it is dropped.
    pub fn span(&self, lane: Lane, name: &'static str) -> Span {
        self.begin(lane, name, None)
    }

    /// The same for what may overlap others of its lane: `number` tells them apart.
    pub fn overlapping(&self, lane: Lane, name: &'static str, number: usize) -> Span {
        self.begin(lane, name, Some(number))
    }

    fn begin(&self, lane: Lane, name: &'static str, number: Option<usize>) -> Span {
        let shared = self.0.as_ref().filter(|shared| shared.on.load(Ordering::Relaxed));
        Span(shared.map(|shared| Open {
            shared: shared.clone(),
            lane,
            name,
            number,
            start: Instant::now(),
            facts: Vec::new(),
        }))
    }

    /// Writes what a step has left. A file that cannot be written ends the trace, not the run.
    pub fn end_step(&self) {
        let Some(shared) = self.0.as_ref().filter(|shared| shared.on.load(Ordering::Relaxed)) else { return };
        let mut book = lock(&shared.book);
        book.steps += 1;
        let written = book.write();
        if let Err(cause) = &written {
            log::warn!("DIST.trace: {}: cannot be written: {cause}; it ends here", book.path.display());
        }
        if written.is_err() || book.steps == STEPS {
            shared.on.store(false, Ordering::Relaxed);
        }
    }
}

impl Book {
    fn write(&mut self) -> std::io::Result<()> {
        let mut text = String::new();
        for event in self.pending.drain(..) {
            text += if self.end == 0 && text.is_empty() { "[\n" } else { ",\n" };
            text += &event.to_string();
        }
        let end = self.end + text.len() as u64;
        self.file.write_all_at((text + END).as_bytes(), self.end)?;
        self.end = end;
        Ok(())
    }
}

/// A stretch of time that is noted when this is dropped.
pub struct Span(Option<Open>);

struct Open {
    shared: Arc<Shared>,
    lane: Lane,
    name: &'static str,
    number: Option<usize>,
    start: Instant,
    facts: Vec<(&'static str, u64)>,
}

impl Span {
    /// Notes a number with it.
    pub fn with(mut self, name: &'static str, value: u64) -> Span {
        if let Some(open) = &mut self.0 {
            open.facts.push((name, value));
        }
        self
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(Open { shared, lane, name, number, start, facts }) = self.0.take() else { return };
        let micros = |moment: Instant| moment.duration_since(shared.origin).as_nanos() as f64 / 1e3;
        let (start, end) = (micros(start), micros(Instant::now()));
        let facts: serde_json::Map<String, Value> =
            facts.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let event = |phase: &str, at: f64| json!({ "ph": phase, "name": name, "cat": lane.name(), "pid": shared.rank, "tid": lane as usize, "ts": at });
        let mut first = event(if number.is_some() { "b" } else { "X" }, start);
        first["args"] = facts.into();
        let mut book = lock(&shared.book);
        match number {
            None => first["dur"] = (end - start).into(),
            Some(number) => {
                first["id"] = number.into();
                let mut last = event("e", end);
                last["id"] = number.into();
                book.pending.push(last);
            }
        }
        book.pending.push(first);
    }
}

/// `trace.json` of rank 3 is `trace-3.json`.
fn of_rank(path: &Path, rank: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |extension| format!(".{}", extension.to_string_lossy()));
    path.with_file_name(format!("{stem}-{rank}{extension}"))
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().expect("nothing panics while it holds this lock")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Solo;

    fn events(path: &Path) -> Vec<Value> {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn the_file_is_complete_after_every_step_and_stops_growing() {
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::open(&folder.path().join("trace.json"), &Solo).unwrap();
        for step in 0..STEPS + 3 {
            drop(trace.span(Lane::Step, "forward").with("step", step));
            trace.end_step();
            let spans = events(&folder.path().join("trace-0.json")).into_iter().filter(|event| event["ph"] == "X");
            assert_eq!(spans.count() as u64, STEPS.min(step + 1));
        }
    }

    #[test]
    fn what_overlaps_has_a_beginning_and_an_end_of_one_number() {
        let folder = tempfile::tempdir().unwrap();
        let trace = Trace::open(&folder.path().join("trace.json"), &Solo).unwrap();
        let spans = [4, 5].map(|number| trace.overlapping(Lane::Gradients, "queued", number));
        drop(spans);
        trace.end_step();
        let events = events(&folder.path().join("trace-0.json"));
        for number in [4, 5] {
            let at = |phase: &str| {
                let mut found = events.iter().filter(|event| event["ph"] == phase && event["id"] == number);
                found.next().unwrap()["ts"].as_f64().unwrap()
            };
            assert!(at("b") <= at("e"));
        }
    }
}
