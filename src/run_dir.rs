//! DIR: what a run keeps in its folder, each name once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A run's folder. It need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir(PathBuf);

macro_rules! written {
    ($($(#[$doc:meta])* $method:ident: $name:literal,)*) => {
        impl RunDir {
            /// Every name that a run writes in its folder. Checkpoints are first: without them the rest is never continued.
            pub const WRITTEN: &[&str] = &[$($name),*];

            $(
                $(#[$doc])*
                pub fn $method(&self) -> PathBuf {
                    self.0.join($name)
                }
            )*
        }
    };
}

written! {
    /// Folder of the checkpoints.
    checkpoints: "checkpoints",
    /// What happened, one JSON object a line.
    history: "metrics.jsonl",
    /// The resolved configuration.
    config: "config.yaml",
    /// What the run resolved to: network, data, machine.
    about: "about.txt",
    /// Folder of TensorBoard's event files.
    tensorboard: "tensorboard",
    /// Loss and scores over steps, a picture.
    curve: "curve.png",
    /// Folder of pictures of image, truth and prediction.
    overlays: "overlays",
    /// What the last evaluation found, one JSON object.
    evaluation: "evaluation.json",
    /// The same, a table of classes.
    evaluation_table: "evaluation.csv",
    /// Its confusion matrix, rows are the truth.
    confusion: "evaluation.confusion.csv",
    /// The confusion matrix as a picture.
    confusion_picture: "evaluation.confusion.png",
}

impl RunDir {
    /// The run in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> RunDir {
        RunDir(folder.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Who works on the run; no part of it.
    pub fn lock(&self) -> PathBuf {
        self.0.join(".lock")
    }

    /// Moves everything that a run has written here to a new folder `previous-001`, `-002`, …, and says which; none where
    /// there is nothing. Whatever else is in the folder stays.
    pub fn set_aside(&self) -> io::Result<Option<PathBuf>> {
        let paths: Vec<PathBuf> =
            Self::WRITTEN.iter().map(|name| self.0.join(name)).filter(|path| path.symlink_metadata().is_ok()).collect();
        self.move_aside(Path::new(""), &paths)
    }

    /// Moves `paths` to the folder `below` in a new `previous-001`, ….
    pub fn move_aside(&self, below: &Path, paths: &[PathBuf]) -> io::Result<Option<PathBuf>> {
        if paths.is_empty() {
            return Ok(None);
        }
        let aside = self.new_previous()?;
        let target = aside.join(below);
        fs::create_dir_all(&target)?;
        for path in paths {
            fs::rename(path, target.join(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?))?;
        }
        Ok(Some(aside))
    }

    fn new_previous(&self) -> io::Result<PathBuf> {
        for number in 1u32.. {
            let path = self.0.join(format!("previous-{number:03}"));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                result => return result.map(|()| path),
            }
        }
        Err(io::Error::other("no number is left for a folder previous-…"))
    }
}

#[cfg(test)]
mod tests {
    use super::RunDir;

    #[test]
    fn the_guide_lists_all_that_a_run_writes() {
        let guide = include_str!("guide/runs.md");
        for name in RunDir::WRITTEN {
            let listed = if name.starts_with("evaluation.") { "evaluation.*" } else { name };
            assert!(guide.lines().any(|line| line.starts_with(listed)), "{name}");
        }
    }
}
