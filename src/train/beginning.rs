//! Where a run begins: anew, or at the checkpoint that `--resume` means.

use super::{Job, Resume, TrainConfig, continuation, replica};
use crate::checkpoint::{self, Lock, Score, State};
use crate::comm::{Comm, agree};
use crate::data::order::ORDER_VERSION;
use crate::durable;
use crate::fault::{self, Failure, Kind};
use crate::model::weights;
use crate::run_dir::RunDir;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where a run begins; chosen by rank 0, the same on all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Beginning {
    /// Finished updates.
    pub step: u64,
    /// Images in an update.
    pub global_batch: usize,
    /// Updates that the optimizer has made.
    pub updates: u64,
    /// The loss scale and its good steps, of a checkpoint.
    pub loss_scale: Option<(f64, u64)>,
    /// Evaluations made so far.
    pub scores: Vec<Score>,
    /// The samples that the checkpoint was trained on, and what their labels meant.
    pub data: Option<(String, String)>,
    /// The checkpoint to continue from, on rank 0's file system.
    pub checkpoint: Option<PathBuf>,
    /// The recipe's numbers before, where the schedule may be longer from here on.
    pub before: Option<TrainConfig>,
}

impl Beginning {
    /// At the first step, on so many ranks.
    pub fn fresh(train: &TrainConfig, ranks: usize) -> Beginning {
        let step = train.start_epoch * train.epoch_iters;
        Beginning {
            step,
            global_batch: train.global_batch_on(ranks),
            updates: step,
            loss_scale: None,
            scores: Vec::new(),
            data: None,
            checkpoint: None,
            before: None,
        }
    }

    /// Rank 0's choice, made under the lock on DIR. A collective.
    pub(super) fn choose(job: &Job, comm: &dyn Comm, lock: &mut Option<Lock>) -> anyhow::Result<Beginning> {
        let bytes = agree::from_root(comm, || {
            let anew = match job.resume {
                Resume::None => true,
                Resume::Auto => !checkpoint::exists(job.dir),
                Resume::From(_) => false,
            };
            if anew {
                // Before anything is written: a run without initial values is not wanted.
                weights::named(&replica::initial(job)).map_err(|error| match job.recipe.train.start_epoch {
                    0 => fault::classified(error),
                    epoch => fault::error(error.kind(), format!("TRAIN.start_epoch {epoch}: {error}")),
                })?;
            }
            *lock = Some(Lock::take(job.dir).map_err(fault::classified)?);
            let beginning = match find(job)? {
                Some((path, state)) => resume(job, path, state)?,
                None => Beginning::fresh(job.recipe.train, comm.size()),
            };
            Ok(serde_json::to_vec(&beginning)?)
        })?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// The checkpoint that `--resume` means, checked byte by byte.
fn find(job: &Job) -> anyhow::Result<Option<(PathBuf, State)>> {
    match &job.resume {
        Resume::None => {
            let moved = |cause| {
                fault::error(Kind::of(&cause), format!("{}: the old run cannot be moved: {cause}", job.dir.display()))
            };
            if let Some(place) = RunDir::new(job.dir).set_aside().map_err(moved)? {
                log::info!("the run that was in {} is now in {}", job.dir.display(), place.display());
            }
            Ok(None)
        }
        Resume::From(path) if path.join("state.json").exists() => {
            Ok(Some((path.clone(), checkpoint::check(path).map_err(fault::classified)?)))
        }
        Resume::From(path) => match path.is_dir().then(|| newest(path)).transpose()?.flatten() {
            None => crate::bad_input!(
                "--resume {}: neither a checkpoint nor a run's folder; a new run begins from a file's weights by --init-from",
                path.display()
            ),
            Some(found) => Ok(Some(found)),
        },
        Resume::Auto => newest(job.dir),
    }
}

/// The newest checkpoint of a run that is undamaged.
fn newest(run: &Path) -> anyhow::Result<Option<(PathBuf, State)>> {
    let Some(found) = checkpoint::newest(run).map_err(fault::classified)? else { return Ok(None) };
    for warning in &found.warnings {
        log::warn!("{warning}; using {}", found.path.display());
    }
    Ok(Some((found.path, found.state)))
}

/// The configuration must agree with the checkpoint's in all that the future depends on.
fn resume(job: &Job, path: PathBuf, state: State) -> anyhow::Result<Beginning> {
    let before = continuation::check(job, &path, &state)?;
    if state.order_version != ORDER_VERSION {
        crate::bad_input!(
            "{}: it was trained in order {}, this segdist has order {ORDER_VERSION}: continue with the version that wrote it",
            path.display(),
            state.order_version
        );
    }
    // Later checkpoints, damaged or not, are of a future that will be made again.
    checkpoint::set_aside_after(&RunDir::new(job.dir), state.step).map_err(fault::classified)?;
    let loss_scale = Some((state.loss_scale, state.loss_scale_steps));
    let State { step, global_batch, updates, scores, dataset_id, labels_id, .. } = state;
    Ok(Beginning {
        step,
        global_batch,
        updates,
        loss_scale,
        scores,
        data: Some((dataset_id, labels_id)),
        checkpoint: Some(path),
        before,
    })
}

/// DIR/config.yaml, complete or not there; written by rank 0. A collective.
pub(super) fn write_config(job: &Job, global_batch: usize, comm: &dyn Comm) -> anyhow::Result<()> {
    let write = || {
        let path = RunDir::new(job.dir).config();
        let text = format!("# segdist {}, {global_batch} images a step\n{}", env!("CARGO_PKG_VERSION"), job.config);
        durable::write(&path, text.as_bytes()).map_err(|cause| fault::unwritable(&path, cause))?;
        Ok(Vec::new())
    };
    agree::from_root(comm, write).map(drop)
}
