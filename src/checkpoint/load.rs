//! Reading checkpoints: the newest or best whose every byte is as it was written.

use super::state::FileSeal;
use super::{AVERAGE_FILE, CheckpointError, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, STATISTICS_FILE, Score, State};
use super::{step_name, steps_in, tensors};
use crate::fault::{Failure, Kind};
use crate::run_dir::RunDir;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// No state file is this long; a longer one is not read into memory.
const STATE_LIMIT: u64 = 256 << 20;

/// A checkpoint that is complete and undamaged.
#[derive(Debug)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
    /// A line for each newer (or better) one that is damaged and was passed over.
    pub warnings: Vec<String>,
}

/// What a checkpoint holds; tensors on the CPU, in the order of their file.
pub struct Loaded {
    /// All besides tensors.
    pub state: State,
    /// Parameters and buffers.
    pub model: Vec<(String, Tensor)>,
    /// The optimizer's state.
    pub optimizer: Vec<(String, Tensor)>,
    /// Batch norm statistics that were taken anew, under the names of the running ones; empty where none were.
    pub statistics: Vec<(String, Tensor)>,
    /// The average of parameters and buffers, by the model's names; empty where the run has none.
    pub average: Vec<(String, Tensor)>,
}

/// Whether the run in `run` has a checkpoint, whatever its condition.
pub fn exists(run: &Path) -> bool {
    steps_in(&RunDir::new(run).checkpoints()).is_ok_and(|steps| !steps.is_empty())
}

/// The newest complete and undamaged checkpoint of the run in `run`; none where nothing has been written yet.
///
/// # Errors
/// When there are checkpoints but all are damaged, and when one comes from a newer version of this program: to start
/// anew, or to fall back, would lose work that is still there. The same holds where one cannot be read just now.
pub fn newest(run: &Path) -> Result<Option<Found>, CheckpointError> {
    let dir = RunDir::new(run).checkpoints();
    let steps = steps_in(&dir).map_err(CheckpointError::io(&dir))?;
    first_good(&dir, steps.into_iter().rev())
}

/// The best checkpoint of the run in `run` by mean IoU, as far as it is still there; none where none was evaluated.
pub fn best(run: &Path) -> Result<Option<Found>, CheckpointError> {
    let Some(newest) = newest(run)? else { return Ok(None) };
    let dir = RunDir::new(run).checkpoints();
    let mut scores: Vec<Score> = newest.state.scores;
    scores.retain(|score| dir.join(step_name(score.step)).exists());
    scores.sort_by(|a, b| b.mean_iou.total_cmp(&a.mean_iou).then(b.step.cmp(&a.step)));
    first_good(&dir, scores.iter().map(|score| score.step))
}

fn first_good(dir: &Path, steps: impl Iterator<Item = u64>) -> Result<Option<Found>, CheckpointError> {
    let mut warnings = Vec::new();
    for step in steps {
        let path = dir.join(step_name(step));
        match check(&path) {
            Ok(state) => return Ok(Some(Found { path, state, warnings })),
            Err(error @ CheckpointError::Newer { .. }) => return Err(error),
            // What may be readable later is no reason to fall back.
            Err(error) if error.kind() == Kind::Passing => return Err(error),
            Err(error) => warnings.push(error.to_string()),
        }
    }
    match warnings.is_empty() {
        true => Ok(None),
        false => Err(CheckpointError::NoneLeft { dir: dir.to_path_buf(), causes: warnings.join("; ") }),
    }
}

/// Reads every byte of the checkpoint at `path` and says whether they are those that were written.
pub fn check(path: &Path) -> Result<State, CheckpointError> {
    let state = read_state(path)?;
    let always = [(MODEL_FILE, &state.model), (OPTIMIZER_FILE, &state.optimizer)];
    let statistics = state.statistics.as_ref().map(|seal| (STATISTICS_FILE, seal));
    let average = state.average.as_ref().map(|seal| (AVERAGE_FILE, seal));
    for (name, seal) in always.into_iter().chain(statistics).chain(average) {
        let path = path.join(name);
        let mut file = open_sealed(&path, seal)?;
        let mut hash = blake3::Hasher::new();
        io::copy(&mut file, &mut hash).map_err(CheckpointError::io(&path))?;
        compare(&path, hash.finalize(), seal)?;
    }
    Ok(state)
}

/// Reads the checkpoint at `path`, a folder `step-…` of any run, checking every byte.
pub fn load(path: &Path) -> Result<Loaded, CheckpointError> {
    let state = read_state(path)?;
    let model = load_tensors(&path.join(MODEL_FILE), &state.model)?;
    let optimizer = load_tensors(&path.join(OPTIMIZER_FILE), &state.optimizer)?;
    let optional = |name: &str, seal: &Option<FileSeal>| {
        let tensors = seal.as_ref().map(|seal| load_tensors(&path.join(name), seal)).transpose();
        tensors.map(Option::unwrap_or_default)
    };
    let statistics = optional(STATISTICS_FILE, &state.statistics)?;
    let average = optional(AVERAGE_FILE, &state.average)?;
    Ok(Loaded { state, model, optimizer, statistics, average })
}

fn read_state(checkpoint: &Path) -> Result<State, CheckpointError> {
    let path = checkpoint.join(STATE_FILE);
    let file = File::open(&path).map_err(CheckpointError::io(&path))?;
    let mut text = Vec::new();
    file.take(STATE_LIMIT).read_to_end(&mut text).map_err(CheckpointError::io(&path))?;
    State::open(&path, &text)
}

fn load_tensors(path: &Path, seal: &FileSeal) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    let mut bytes = Vec::new();
    open_sealed(path, seal)?.read_to_end(&mut bytes).map_err(CheckpointError::io(path))?;
    compare(path, blake3::hash(&bytes), seal)?;
    tensors::parse(path, &bytes)
}

/// Opens a file that must have the length of `seal`, so that nothing of another size is read.
fn open_sealed(path: &Path, seal: &FileSeal) -> Result<io::Take<File>, CheckpointError> {
    let length = fs::metadata(path).map_err(CheckpointError::io(path))?.len();
    if length != seal.bytes {
        return Err(CheckpointError::damaged(path, format!("it has {length} bytes instead of {}", seal.bytes)));
    }
    let file = File::open(path).map_err(CheckpointError::io(path))?;
    Ok(file.take(seal.bytes))
}

fn compare(path: &Path, hash: blake3::Hash, seal: &FileSeal) -> Result<(), CheckpointError> {
    if *hash.to_hex() != *seal.blake3 {
        return Err(CheckpointError::damaged(path, "its content does not have the hash that state.json names"));
    }
    Ok(())
}
