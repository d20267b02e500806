//! All-or-nothing checkpoints: saved beside a running job, checked before they are believed.
//!
//! A checkpoint is a folder `DIR/checkpoints/step-00005000` of three files: `model.safetensors` (parameters and
//! buffers), `optimizer.safetensors`, and `state.json`, which holds all else that the future depends on and the hashes
//! of the others. The step is the number of finished updates. Where batch norm statistics were taken anew for an
//! evaluation (MODEL.bn_recalibrate), a fourth, `statistics.safetensors`, has them under the names of the running ones,
//! which training goes on with: whoever evaluates puts them in their place. With TRAIN.ema there is
//! `average.safetensors` as well, a model's file like the first, which is evaluated instead.
//!
//! - **A name that exists is complete.** A checkpoint is written under a name that starts with a dot, synced, and
//!   renamed; what is removed is first renamed to such a name. A crash leaves at most a dotted folder, which nobody reads.
//! - **Nothing is believed unchecked.** Every byte of the files is under a hash, state.json's own included.
//! - **A failed write costs nothing but itself.** The checkpoint before it stays, and training decides what to do.
//!
//! [`Saver`] writes, [`newest`], [`best`] and [`load`] read, [`Lock`] keeps a second job away, [`disagreements`] says
//! whether a configuration continues a run.
//!
//! # What may change where a run goes on
//!
//! | keys | rule |
//! |---|---|
//! | VAL, TEST, DIST, CHECKPOINT, DIR | free, as is the number of ranks: where, how fast and how observably a run goes |
//! | TRAIN.workers, TRAIN.disp_iter, TRAIN.max_minutes | free |
//! | TRAIN.on_nonfinite, TRAIN.max_skips, TRAIN.loss_scale | free |
//! | DATASET.root_dataset, DATASET.list_train, DATASET.list_val, DATASET.label_map | free: places; data are compared by content |
//! | DATASET.io, DATASET.stage, DATASET.stage_keep | free |
//! | MODEL.weights_encoder, MODEL.weights_decoder, MODEL.pretrained_dir, MODEL.init | free: of use at the first start alone |
//! | MODEL.bn_recalibrate | free: of use in evaluations alone |
//! | MODEL.recompute | free: the same values in less memory |
//! | TRAIN.global_batch | kept where it is 0, else the same |
//! | TRAIN.num_epoch, TRAIN.epoch_iters, TRAIN.epochs_of_data | extended by `--extend`, else the same |
//! | all others | the same; `--init-from` begins a new run, with other values, from the weights |

mod disk;
mod load;
mod lock;
mod prune;
mod resume;
mod save;
mod state;
mod tensors;

pub use load::{Found, Loaded, best, check, exists, load, newest};
pub use lock::{Lock, LockError};
pub use prune::{keep, set_aside_after};
pub use resume::{Disagreement, Rules, configuration, disagreements};
pub use save::{Copying, SaveReport, Saver, Tensors};
pub use state::{FileSeal, Score, State};

use crate::fault::{Failure, Kind, require};
use crate::model::weights::{AVERAGE_FILE, STATISTICS_FILE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// When checkpoints are written and which are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CheckpointConfig {
    /// Epochs between checkpoints; 0: none for this reason.
    pub every_epochs: u64,
    /// Steps between checkpoints; 0: none for this reason.
    pub every_steps: u64,
    /// Minutes between checkpoints; 0: none for this reason.
    pub every_minutes: f64,
    /// How many of the newest are kept.
    pub keep_last: usize,
    /// How many of the best by mean IoU are kept besides.
    pub keep_best: usize,
    /// Failed writes in a row after which the run stops with code 1.
    pub max_failures: u64,
    /// Minutes that a run's last checkpoint is tried again for where it cannot be written, before the run fails.
    pub retry_minutes: f64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig {
            every_epochs: 1,
            every_steps: 0,
            every_minutes: 0.0,
            keep_last: 3,
            keep_best: 1,
            max_failures: 3,
            retry_minutes: 5.0,
        }
    }
}

impl CheckpointConfig {
    /// The first value that cannot be meant, in one line that names the key.
    pub fn validate(&self) -> Result<(), String> {
        require(self.keep_last > 0, || "CHECKPOINT.keep_last is 0: keep at least one".into())?;
        for (key, minutes) in [("every_minutes", self.every_minutes), ("retry_minutes", self.retry_minutes)] {
            require(minutes >= 0.0, || format!("CHECKPOINT.{key} is {minutes}: set it to 0 or more"))?;
        }
        Ok(())
    }
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{}: {cause}", path.display())]
    Io {
        /// What was written or read.
        path: PathBuf,
        /// The refusal.
        cause: io::Error,
    },
    /// The file is not what was once written.
    #[error("{} is damaged: {cause}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How one sees it.
        cause: String,
    },
    /// The format is one of the future.
    #[error("{} has format {format}, newer than {}: use the segdist that wrote it", path.display(), state::FORMAT)]
    Newer {
        /// The state file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// There are checkpoints and none of them can be used.
    #[error("{}: no checkpoint is undamaged ({causes}); --resume none moves this run aside and starts anew", dir.display())]
    NoneLeft {
        /// The folder of the checkpoints.
        dir: PathBuf,
        /// What is wrong with each.
        causes: String,
    },
    /// A tensor cannot be stored or rebuilt.
    #[error("tensor {name}: {cause}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What libtorch or the format says.
        cause: String,
    },
}

impl Failure for CheckpointError {
    fn kind(&self) -> Kind {
        match self {
            CheckpointError::Io { cause, .. } => Kind::of(cause),
            _ => Kind::Input,
        }
    }
}

impl CheckpointError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
        let path = path.to_path_buf();
        move |cause| CheckpointError::Io { path, cause }
    }

    fn damaged(path: &Path, cause: impl ToString) -> CheckpointError {
        CheckpointError::Damaged { path: path.to_path_buf(), cause: cause.to_string() }
    }
}

const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";

/// The name of a step's checkpoint.
fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step that a folder's name stands for, if it is exactly the name of a checkpoint.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

/// The steps that have a checkpoint in `checkpoints`, ascending; none where the folder does not exist.
fn steps_in(checkpoints: &Path) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(checkpoints) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut steps = Vec::new();
    for entry in entries {
        steps.extend(entry?.file_name().to_str().and_then(step_of));
    }
    steps.sort_unstable();
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_step_and_its_name_stand_for_each_other(step in any::<u64>()) {
            prop_assert_eq!(step_of(&step_name(step)), Some(step));
        }

        #[test]
        fn only_exact_names_are_checkpoints(name in "\\.?(step)?-?\\+?[0-9]{0,24}[a-z/]?") {
            if let Some(step) = step_of(&name) {
                prop_assert_eq!(step_name(step), name);
            }
        }
    }
}
