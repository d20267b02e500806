//! Writing checkpoints beside training: copy and writing both in a thread of their own.
//!
//! Between two updates nothing changes the tensors, so the copy runs beside the next step's forward and backward
//! passes, and training stands still only where it reaches the update before the copy is done: see [`Copying`].

use super::state::FileSeal;
use super::tensors::Snapshot;
use super::{
    AVERAGE_FILE, CheckpointConfig, CheckpointError, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, STATISTICS_FILE, State,
};
use super::{disk, prune, step_name};
use crate::run_dir::RunDir;
use serde::Serialize;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tch::Tensor;

/// What became of one checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct SaveReport {
    /// Its step.
    pub step: u64,
    /// Seconds that training stood still for the copy of the tensors.
    pub stopped_s: f64,
    /// Seconds that it stood still before that, for the checkpoint before this one to be finished.
    pub waited_s: f64,
    /// Seconds of copying and writing, beside training.
    pub write_s: f64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Why there is no such checkpoint, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Writes the checkpoints of one run, one at a time. Only rank 0 has one.
pub struct Saver {
    checkpoints: PathBuf,
    config: CheckpointConfig,
    /// Empty while `flight` uses them.
    buffers: Buffers,
    flight: Option<Flight>,
    done: VecDeque<SaveReport>,
}

/// The checkpoint being written.
struct Flight {
    thread: JoinHandle<(Buffers, SaveReport)>,
    stopped: Arc<Stopped>,
}

/// Model, optimizer, statistics and average, copied.
#[derive(Default)]
struct Buffers {
    model: Snapshot,
    optimizer: Snapshot,
    statistics: Snapshot,
    average: Snapshot,
}

impl Buffers {
    fn take(&mut self, tensors: &[Vec<(String, Tensor)>; 4]) -> Result<(), CheckpointError> {
        let own = [&mut self.model, &mut self.optimizer, &mut self.statistics, &mut self.average];
        own.into_iter().zip(tensors).try_for_each(|(own, tensors)| own.take(tensors))
    }
}

/// The tensors of a checkpoint, by name.
#[derive(Clone, Copy)]
pub struct Tensors<'a> {
    /// Parameters and buffers.
    pub model: &'a [(String, Tensor)],
    /// The optimizer's state.
    pub optimizer: &'a [(String, Tensor)],
    /// Batch norm statistics that were taken anew; empty: none were.
    pub statistics: &'a [(String, Tensor)],
    /// The average of parameters and buffers; empty: there is none.
    pub average: &'a [(String, Tensor)],
}

/// While it lives, the tensors being saved must not change. To drop it waits until they are copied.
pub struct Copying {
    copied: mpsc::Receiver<()>,
    stopped: Arc<Stopped>,
}

impl Copying {
    /// Waits until the tensors are copied.
    pub fn wait(self) {
        drop(self);
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        let start = Instant::now();
        // An error means that the copy ended without success, which is an end as well.
        let _ = self.copied.recv();
        self.stopped.add(start.elapsed());
    }
}

/// Time that training stood still.
#[derive(Default)]
struct Stopped(AtomicU64);

impl Stopped {
    fn add(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn seconds(&self) -> f64 {
        Duration::from_nanos(self.0.load(Ordering::Relaxed)).as_secs_f64()
    }
}

impl Saver {
    /// Prepares to write below `run`, on which the caller holds the lock, and removes what a killed run left unfinished.
    pub fn new(run: &Path, config: &CheckpointConfig) -> Saver {
        let checkpoints = RunDir::new(run).checkpoints();
        if checkpoints.exists()
            && let Err(error) = prune::sweep(&checkpoints)
        {
            log::warn!("{}: unfinished checkpoints are not removed: {error}", checkpoints.display());
        }
        Saver { checkpoints, config: config.clone(), buffers: Buffers::default(), flight: None, done: VecDeque::new() }
    }

    /// Starts a checkpoint; waits first where another is still being written.
    ///
    /// The tensors must not change before what it returns is dropped. `state` needs no seals of the files. What comes
    /// of it, [`Saver::poll`] and [`Saver::finish`] say.
    pub fn save(&mut self, state: State, tensors: Tensors) -> Copying {
        let due = Instant::now();
        self.land();
        let waited = due.elapsed();
        let stopped = Arc::new(Stopped::default());
        let (done, copied) = mpsc::channel();
        let work = Work {
            checkpoints: self.checkpoints.clone(),
            config: self.config.clone(),
            state,
            tensors: [tensors.model, tensors.optimizer, tensors.statistics, tensors.average].map(share),
            done,
        };
        let buffers = std::mem::take(&mut self.buffers);
        let thread = thread::spawn(move || work.run(buffers, waited.as_secs_f64()));
        self.flight = Some(Flight { thread, stopped: stopped.clone() });
        stopped.add(due.elapsed() - waited);
        Copying { copied, stopped }
    }

    /// The outcome of a checkpoint whose writing has ended since the last call; never waits.
    pub fn poll(&mut self) -> Option<SaveReport> {
        if self.flight.as_ref().is_some_and(|flight| flight.thread.is_finished()) {
            self.land();
        }
        self.done.pop_front()
    }

    /// Waits for the checkpoint being written and returns all outcomes not seen yet.
    pub fn finish(&mut self) -> Vec<SaveReport> {
        self.land();
        self.done.drain(..).collect()
    }

    /// Waits for the writing thread and takes the buffers back.
    fn land(&mut self) {
        if let Some(Flight { thread, stopped }) = self.flight.take() {
            let (buffers, outcome) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.buffers = buffers;
            self.done.push_back(SaveReport { stopped_s: stopped.seconds(), ..outcome });
        }
    }
}

fn share(tensors: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// One checkpoint to write.
struct Work {
    checkpoints: PathBuf,
    config: CheckpointConfig,
    state: State,
    /// Model, optimizer, statistics and average.
    tensors: [Vec<(String, Tensor)>; 4],
    /// Told when the tensors are copied.
    done: mpsc::Sender<()>,
}

impl Work {
    fn run(mut self, mut buffers: Buffers, waited_s: f64) -> (Buffers, SaveReport) {
        let start = Instant::now();
        let tensors = std::mem::take(&mut self.tensors);
        // A seal says that there is such a file.
        let sealed = |tensors: &[(String, Tensor)]| (!tensors.is_empty()).then(FileSeal::default);
        (self.state.statistics, self.state.average) = (sealed(&tensors[2]), sealed(&tensors[3]));
        let copied = buffers.take(&tensors);
        drop(tensors);
        // Nobody listens any more where training has failed meanwhile.
        let _ = self.done.send(());
        let temporary = self.checkpoints.join(format!(".new-{}", step_name(self.state.step)));
        let written = copied.and_then(|()| write_files(&self.checkpoints, &temporary, &mut self.state, &buffers));
        match &written {
            Ok(_) => self.prune(),
            // The disk may be full of it.
            Err(_) => _ = disk::remove_dotted(&temporary),
        }
        let (bytes, error) = match written {
            Ok(bytes) => (bytes, None),
            Err(error) => (0, Some(error.to_string())),
        };
        let write_s = start.elapsed().as_secs_f64();
        (buffers, SaveReport { step: self.state.step, stopped_s: 0.0, waited_s, write_s, bytes, error })
    }

    fn prune(&self) {
        if let Err(error) = prune::prune(&self.checkpoints, &self.state.scores, &self.config) {
            log::warn!("an old checkpoint is not removed: {error}");
        }
    }
}

/// Writes all files under the temporary name, then gives them the true one; returns their bytes.
fn write_files(
    checkpoints: &Path,
    temporary: &Path,
    state: &mut State,
    buffers: &Buffers,
) -> Result<u64, CheckpointError> {
    if !checkpoints.exists() {
        disk::create_dir(checkpoints)?;
        disk::sync_dir(checkpoints.parent().expect("it was joined to the run's folder"))?;
    }
    disk::remove_dotted(temporary)?;
    disk::create_dir(temporary)?;
    state.model = disk::write(&temporary.join(MODEL_FILE), &buffers.model.parts())?;
    state.optimizer = disk::write(&temporary.join(OPTIMIZER_FILE), &buffers.optimizer.parts())?;
    if let Some(seal) = &mut state.statistics {
        *seal = disk::write(&temporary.join(STATISTICS_FILE), &buffers.statistics.parts())?;
    }
    if let Some(seal) = &mut state.average {
        *seal = disk::write(&temporary.join(AVERAGE_FILE), &buffers.average.parts())?;
    }
    let path = temporary.join(STATE_FILE);
    let text = state.seal().map_err(|error| CheckpointError::Io { path: path.clone(), cause: error.into() })?;
    let sealed = disk::write(&path, &[&text])?;
    disk::sync_dir(temporary)?;
    disk::publish(temporary, &checkpoints.join(step_name(state.step)))?;
    disk::sync_dir(checkpoints)?;
    disk::remove_dotted(temporary)?;
    let optional = [&state.statistics, &state.average].map(|seal| seal.as_ref().map_or(0, |seal| seal.bytes));
    Ok(state.model.bytes + state.optimizer.bytes + optional.iter().sum::<u64>() + sealed.bytes)
}
