//! Moving a run's files out of the way, without losing any.

use super::{CheckpointError, checkpoints_dir, step_name, steps_in};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a run leaves in its folder. Checkpoints are first: without them the rest is never continued.
const RUN_FILES: [&str; 6] = ["checkpoints", "metrics.jsonl", "config.yaml", "tensorboard", "plots", "overlays"];

/// Moves the files of the run in `run` to a new folder `run/previous-001`, `-002`, …, and says which; none where there
/// is no run.
pub fn set_aside(run: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let paths: Vec<PathBuf> = RUN_FILES.iter().map(|name| run.join(name)).filter(|path| path.exists()).collect();
    move_into(run, Path::new(""), &paths)
}

/// Moves the checkpoints past `step`, which a run continued from there will not use, to a new `run/previous-001/…`.
pub fn set_aside_after(run: &Path, step: u64) -> Result<Option<PathBuf>, CheckpointError> {
    let dir = checkpoints_dir(run);
    let steps = steps_in(&dir).map_err(CheckpointError::io(&dir))?;
    let paths: Vec<PathBuf> =
        steps.into_iter().filter(|&other| other > step).map(|other| dir.join(step_name(other))).collect();
    move_into(run, Path::new("checkpoints"), &paths)
}

fn move_into(run: &Path, below: &Path, paths: &[PathBuf]) -> Result<Option<PathBuf>, CheckpointError> {
    if paths.is_empty() {
        return Ok(None);
    }
    let aside = new_folder(run).map_err(CheckpointError::io(run))?;
    let target = aside.join(below);
    fs::create_dir_all(&target).map_err(CheckpointError::io(&target))?;
    for path in paths {
        let name = path.file_name().expect("every path was joined from a name");
        fs::rename(path, target.join(name)).map_err(CheckpointError::io(path))?;
    }
    Ok(Some(aside))
}

fn new_folder(run: &Path) -> io::Result<PathBuf> {
    for number in 1u32.. {
        let path = run.join(format!("previous-{number:03}"));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            result => return result.map(|()| path),
        }
    }
    Err(io::Error::other("no number is left for a folder previous-…"))
}
