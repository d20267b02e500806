//! Writing checkpoints beside training: a quick copy in the training thread, the rest in one of its own.

use super::tensors::Snapshot;
use super::{CheckpointConfig, CheckpointError, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, State};
use super::{checkpoints_dir, disk, prune, step_name};
use serde::Serialize;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tch::Tensor;

/// What became of one checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its step.
    pub step: u64,
    /// Seconds that training stood still while the tensors were copied.
    pub stopped_s: f64,
    /// Seconds that it stood still before that, for the checkpoint before this one to be finished.
    pub waited_s: f64,
    /// Seconds from the copy to the finished checkpoint, beside training.
    pub write_s: f64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Why there is no such checkpoint, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Writes the checkpoints of one run, one at a time, in a thread of its own. Only rank 0 has one.
pub struct Saver {
    checkpoints: PathBuf,
    config: CheckpointConfig,
    /// Empty while `flight` uses them.
    buffers: Buffers,
    flight: Option<JoinHandle<(Buffers, Outcome)>>,
    done: VecDeque<Outcome>,
}

/// Model and optimizer, copied.
#[derive(Default)]
struct Buffers {
    model: Snapshot,
    optimizer: Snapshot,
}

impl Saver {
    /// Prepares to write below `run`, on which the caller holds the lock, and removes what a killed run left unfinished.
    pub fn new(run: &Path, config: &CheckpointConfig) -> Saver {
        let checkpoints = checkpoints_dir(run);
        if checkpoints.exists()
            && let Err(error) = prune::sweep(&checkpoints)
        {
            log::warn!("{}: unfinished checkpoints are not removed: {error}", checkpoints.display());
        }
        Saver { checkpoints, config: config.clone(), buffers: Buffers::default(), flight: None, done: VecDeque::new() }
    }

    /// Makes room for the copies of these tensors beforehand, so that the first checkpoint stops training no longer than
    /// the others.
    pub fn reserve(&mut self, model: &[(String, Tensor)], optimizer: &[(String, Tensor)]) {
        self.land();
        self.buffers.model.reserve(model);
        self.buffers.optimizer.reserve(optimizer);
    }

    /// Copies the tensors and starts writing; waits first where another checkpoint is still being written.
    ///
    /// `state` needs no seals of the files. What comes of it, [`Saver::poll`] and [`Saver::finish`] say.
    pub fn save(&mut self, state: State, model: &[(String, Tensor)], optimizer: &[(String, Tensor)]) {
        let due = Instant::now();
        self.land();
        let waited = due.elapsed();
        let mut outcome = Outcome {
            step: state.step,
            stopped_s: 0.0,
            waited_s: waited.as_secs_f64(),
            write_s: 0.0,
            bytes: 0,
            error: None,
        };
        let copied = self.buffers.model.take(model).and_then(|()| self.buffers.optimizer.take(optimizer));
        outcome.stopped_s = (due.elapsed() - waited).as_secs_f64();
        if let Err(error) = copied {
            outcome.error = Some(error.to_string());
            return self.done.push_back(outcome);
        }
        let buffers = std::mem::take(&mut self.buffers);
        let (checkpoints, config) = (self.checkpoints.clone(), self.config.clone());
        self.flight = Some(thread::spawn(move || write(&checkpoints, &config, state, buffers, outcome)));
    }

    /// The outcome of a checkpoint whose writing has ended since the last call; never waits.
    pub fn poll(&mut self) -> Option<Outcome> {
        if self.flight.as_ref().is_some_and(JoinHandle::is_finished) {
            self.land();
        }
        self.done.pop_front()
    }

    /// Waits for the checkpoint being written and returns all outcomes not seen yet.
    pub fn finish(&mut self) -> Vec<Outcome> {
        self.land();
        self.done.drain(..).collect()
    }

    /// Waits for the writing thread and takes the buffers back.
    fn land(&mut self) {
        if let Some(flight) = self.flight.take() {
            let (buffers, outcome) = flight.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.buffers = buffers;
            self.done.push_back(outcome);
        }
    }
}

fn write(
    checkpoints: &Path,
    config: &CheckpointConfig,
    mut state: State,
    buffers: Buffers,
    mut outcome: Outcome,
) -> (Buffers, Outcome) {
    let start = Instant::now();
    let temporary = checkpoints.join(format!(".new-{}", step_name(state.step)));
    match write_files(checkpoints, &temporary, &mut state, &buffers) {
        Ok(bytes) => outcome.bytes = bytes,
        Err(error) => {
            outcome.error = Some(error.to_string());
            // The disk may be full of it.
            let _ = disk::remove_dotted(&temporary);
        }
    }
    outcome.write_s = start.elapsed().as_secs_f64();
    if outcome.error.is_none()
        && let Err(error) = prune::prune(checkpoints, &state.scores, config)
    {
        log::warn!("an old checkpoint is not removed: {error}");
    }
    (buffers, outcome)
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
    let path = temporary.join(STATE_FILE);
    let text = state.seal().map_err(|error| CheckpointError::Io { path: path.clone(), cause: error.into() })?;
    let sealed = disk::write(&path, &[&text])?;
    disk::sync_dir(temporary)?;
    disk::publish(temporary, &checkpoints.join(step_name(state.step)))?;
    disk::sync_dir(checkpoints)?;
    disk::remove_dotted(temporary)?;
    Ok(state.model.bytes + state.optimizer.bytes + sealed.bytes)
}
