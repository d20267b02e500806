//! A run's TensorBoard folder: what training shows there, and that its loss never ends a run.

use super::html::run;
use super::tensorboard::EventWriter;
use crate::run_dir::RunDir;
use std::io;
use std::path::{Path, PathBuf};

/// A larger picture does not go into the event file.
const MOST_BYTES: u64 = 4 << 20;

/// Rank 0's event file. Where it cannot be written, a warning says so once and training goes on.
pub struct Board {
    folder: PathBuf,
    writer: Option<EventWriter>,
}

impl Board {
    /// Starts an event file for a run that continues after `step` updates.
    pub fn open(dir: &RunDir, step: u64) -> Board {
        let mut board = Board { folder: dir.tensorboard(), writer: None };
        match EventWriter::create(&board.folder, step) {
            Ok(writer) => board.writer = Some(writer),
            Err(cause) => board.give_up(&cause),
        }
        board
    }

    /// Adds scalars of a step, by tag; values that are not finite are left out.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) {
        let finite: Vec<_> = scalars.iter().copied().filter(|(_, value)| value.is_finite()).collect();
        self.try_to(|writer| writer.scalars(step, &finite));
    }

    /// Adds the overlays that an evaluation left in `folder`.
    pub fn overlays(&mut self, step: u64, folder: &Path) {
        for (name, png) in run::pictures(folder, MOST_BYTES) {
            // A PNG's width and height stand at 16 and 20, after its signature and its first chunk's head.
            let number = |at: usize| png.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
            if let (Some(width), Some(height)) = (number(16), number(20)) {
                self.try_to(|writer| writer.image(step, &format!("overlay/{name}"), (width, height), &png));
            }
        }
    }

    fn try_to(&mut self, write: impl FnOnce(&mut EventWriter) -> io::Result<()>) {
        if let Some(Err(cause)) = self.writer.as_mut().map(write) {
            self.give_up(&cause);
        }
    }

    fn give_up(&mut self, cause: &io::Error) {
        self.writer = None;
        log::warn!("{}: no more events for TensorBoard: {cause}", self.folder.display());
    }
}
