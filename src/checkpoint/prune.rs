//! Which checkpoints stay, and the removal of the others.

use super::{CheckpointConfig, CheckpointError, Score, disk, step_name, steps_in};
use crate::run_dir::RunDir;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The steps that stay of those in `steps`: the newest `keep_last` (at least one) and, of those with a score, the best
/// `keep_best`; of equal scores the newer.
pub fn keep(steps: &[u64], scores: &[Score], keep_last: usize, keep_best: usize) -> BTreeSet<u64> {
    let mut newest = steps.to_vec();
    newest.sort_unstable_by(|a, b| b.cmp(a));
    let mut ranked: Vec<&Score> = scores.iter().filter(|score| steps.contains(&score.step)).collect();
    ranked.sort_by(|a, b| b.mean_iou.total_cmp(&a.mean_iou).then(b.step.cmp(&a.step)));
    let best = ranked.iter().map(|score| score.step).take(keep_best);
    newest.iter().copied().take(keep_last.max(1)).chain(best).collect()
}

/// Removes the checkpoints that `config` does not keep.
pub(super) fn prune(checkpoints: &Path, scores: &[Score], config: &CheckpointConfig) -> Result<(), CheckpointError> {
    let steps = steps_in(checkpoints).map_err(CheckpointError::io(checkpoints))?;
    let kept = keep(&steps, scores, config.keep_last, config.keep_best);
    for step in steps.into_iter().filter(|step| !kept.contains(step)) {
        remove(checkpoints, step)?;
    }
    Ok(())
}

/// Removes one checkpoint, its name first.
fn remove(checkpoints: &Path, step: u64) -> Result<(), CheckpointError> {
    let dotted = checkpoints.join(format!(".old-{}", step_name(step)));
    disk::remove_dotted(&dotted)?;
    disk::rename(&checkpoints.join(step_name(step)), &dotted)?;
    disk::remove_dotted(&dotted)
}

/// Moves the checkpoints past `step`, which a run continued from there will not use, to a new `run/previous-001/…`.
pub fn set_aside_after(run: &RunDir, step: u64) -> Result<Option<PathBuf>, CheckpointError> {
    let dir = run.checkpoints();
    let steps = steps_in(&dir).map_err(CheckpointError::io(&dir))?;
    let paths: Vec<PathBuf> =
        steps.into_iter().filter(|&other| other > step).map(|other| dir.join(step_name(other))).collect();
    let below = dir.strip_prefix(run.path()).unwrap_or(&dir);
    run.move_aside(below, &paths).map_err(CheckpointError::io(run.path()))
}

/// Removes what writes and removals that were cut short have left behind.
pub(super) fn sweep(checkpoints: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(checkpoints)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if (name.starts_with(".new-step-") || name.starts_with(".old-step-")) && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(of: &[(u64, f64)]) -> Vec<Score> {
        of.iter().map(|&(step, mean_iou)| Score { step, mean_iou }).collect()
    }

    #[test]
    fn the_best_stays_beside_the_newest() {
        let scored = scores(&[(1, 0.9), (2, 0.5), (3, 0.9), (4, 0.1)]);
        assert_eq!(keep(&[1, 2, 3, 4, 5], &scored, 2, 1), BTreeSet::from([3, 4, 5]));
        assert_eq!(keep(&[1, 2, 4, 5], &scored, 1, 2), BTreeSet::from([1, 2, 5]));
    }

    proptest! {
        #[test]
        fn the_newest_stay_and_nothing_is_invented(
            steps in prop::collection::btree_set(0u64..50, 0..20),
            scored in prop::collection::vec((0u64..50, 0.0f64..1.0), 0..20),
            last in 0usize..6,
            best in 0usize..6,
        ) {
            let steps: Vec<u64> = steps.into_iter().collect();
            let kept = keep(&steps, &scores(&scored), last, best);
            prop_assert!(kept.iter().all(|step| steps.contains(step)));
            prop_assert!(kept.len() <= last.max(1) + best);
            prop_assert!(steps.iter().rev().take(last.max(1)).all(|step| kept.contains(step)));
        }

        #[test]
        fn no_removed_checkpoint_was_better_than_a_kept_one_that_is_not_among_the_newest(
            scored in prop::collection::btree_map(0u64..50, 0.0f64..1.0, 1..20),
            last in 1usize..6,
            best in 1usize..6,
        ) {
            let steps: Vec<u64> = scored.keys().copied().collect();
            let pairs: Vec<_> = scored.iter().map(|(&step, &iou)| (step, iou)).collect();
            let kept = keep(&steps, &scores(&pairs), last, best);
            let newest: Vec<u64> = steps.iter().rev().take(last).copied().collect();
            let worst = kept.iter().filter(|step| !newest.contains(step)).map(|step| scored[step]).fold(2.0, f64::min);
            prop_assert!(steps.iter().filter(|step| !kept.contains(step)).all(|step| scored[step] <= worst));
        }
    }
}
