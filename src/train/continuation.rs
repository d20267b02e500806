//! Whether a configuration continues the run of a checkpoint, and what to say where it does not.

use super::{Job, TrainConfig};
use crate::checkpoint::{self, CheckpointError, Disagreement, State};
use crate::fault;
use std::path::Path;

/// A refusal names so many of the keys that differ.
const NAMED: usize = 3;

/// The recipe's numbers before, where `--extend` lets the length of the schedule differ.
///
/// # Errors
/// Anything else that differs and may not, with the command that does what was probably meant.
pub fn check(job: &Job, path: &Path, state: &State) -> anyhow::Result<Option<TrainConfig>> {
    let now = serde_yaml::from_str(&job.config)?;
    let saved = checkpoint::configuration(path, state).map_err(fault::classified)?;
    let damaged = |error: serde_yaml::Error| CheckpointError::Damaged { path: path.into(), cause: error.to_string() };
    let before: TrainConfig =
        serde_yaml::from_value(saved["TRAIN"].clone()).map_err(|error| fault::classified(damaged(error)))?;
    let train = job.recipe.train;
    // What a pass over the data sets follows from the data, which are compared by their content.
    let counted = |key: &str| train.epochs_of_data > 0 && ["TRAIN.num_epoch", "TRAIN.epoch_iters"].contains(&key);
    let mut differing = checkpoint::disagreements(&saved, &now, &job.rules);
    differing.retain(|one| !counted(&one.key));
    let of_length = |one: &Disagreement| job.rules.extended.contains(&one.key);
    if job.extend {
        differing.retain(|one| !of_length(one));
    }
    if differing.is_empty() {
        return Ok(job.extend.then_some(before));
    }
    let named: Vec<String> = differing.iter().take(NAMED).map(ToString::to_string).collect();
    let more = differing.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let longer = train.epochs_of_data > 0 || train.total_steps() > before.total_steps();
    let advice = if differing.iter().all(of_length) && longer {
        "--extend continues with the longer schedule".to_owned()
    } else {
        format!("give the same, or begin a new run from its weights: --init-from {} DIR NEW", path.display())
    };
    crate::bad_input!("{}: {}{more}; {advice}; --resume none starts anew", path.display(), named.join(", "))
}

/// How the learning rates go on where a schedule is extended after `step` updates; None where it is as long as before.
///
/// # Errors
/// A schedule that is shorter than before.
pub fn extension(before: &TrainConfig, now: &TrainConfig, step: u64) -> anyhow::Result<Option<String>> {
    let (old, new) = (before.total_steps(), now.total_steps());
    if new < old {
        crate::bad_input!(
            "--extend: TRAIN.num_epoch and TRAIN.epoch_iters make {new} steps, fewer than the {old} before; give more, or \
             --init-from with another DIR for a new run"
        );
    }
    let rates = |train: &TrainConfig| {
        let factor = train.schedule().factor(step);
        format!("encoder {:.6}, decoder {:.6}", train.lr_encoder * factor, train.lr_decoder * factor)
    };
    let text = || {
        format!(
            "extended from {old} to {new} steps: the learning rates go on as in a run of {new} steps from its start, at \
             step {}: {} (in {old} steps: {})",
            step + 1,
            rates(now),
            rates(before)
        )
    };
    Ok((new > old).then(text))
}
