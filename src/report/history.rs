//! `metrics.jsonl`: what happened, one JSON object a line, each step once.

use super::event::{Event, Line};
use crate::durable::Unfinished;
use crate::run_dir::RunDir;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// The history of one run, appended to. Only rank 0 has one.
pub struct History {
    file: File,
    /// Bytes of whole lines.
    length: u64,
    /// A line that could not be written whole could not be taken back either.
    torn: bool,
    last: Last,
}

/// The last step of the events that are logged once.
#[derive(Default)]
struct Last {
    train: u64,
    eval: Option<u64>,
}

impl Last {
    fn note(&mut self, line: &Line) {
        match line.event {
            Event::Train(_) => self.train = line.step,
            Event::Eval(_) => self.eval = Some(line.step),
            _ => {}
        }
    }
}

impl History {
    /// Opens `dir/metrics.jsonl` for a run that starts at `step` finished updates.
    ///
    /// Lines past that step belong to updates that will be made again, and a last line may be half-written: both go.
    /// At step 0 all do. Lines of events and fields that this version does not know stay as they are.
    pub fn open(dir: &Path, step: u64) -> io::Result<History> {
        let path = RunDir::new(dir).history();
        let mut unfinished = Unfinished::create(&path)?;
        let mut kept = BufWriter::new(unfinished.file());
        let last = match File::open(&path) {
            Ok(old) => copy_until(BufReader::new(old), step, &mut kept)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Last::default(),
            Err(error) => return Err(error),
        };
        kept.flush()?;
        drop(kept);
        unfinished.publish()?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok(History { length: file.metadata()?.len(), file, torn: false, last })
    }

    /// Whether the update of `step`, or a later one, has its line.
    pub fn has_train(&self, step: u64) -> bool {
        self.last.train >= step
    }

    /// Whether the evaluation at `step`, or a later one, has its line.
    pub fn has_eval(&self, step: u64) -> bool {
        self.last.eval.is_some_and(|last| last >= step)
    }

    /// Appends one line, in one write, so that a reader never sees half of it.
    ///
    /// # Errors
    /// The file system refuses; what it took of the line is taken back, so that the next one stands alone.
    pub fn log(&mut self, step: u64, event: Event) -> io::Result<()> {
        let line = Line { step, event };
        let torn = if self.torn { "\n" } else { "" };
        let text = format!("{torn}{}", line.text()?);
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            self.torn = self.file.set_len(self.length).is_err();
            return Err(error);
        }
        self.torn = false;
        self.length = self.file.metadata()?.len();
        self.last.note(&line);
        Ok(())
    }

    /// Waits until all lines are on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Copies the lines up to `step`; whatever is not a line of a history is left out.
fn copy_until(mut old: impl BufRead, step: u64, kept: &mut impl Write) -> io::Result<Last> {
    let (mut bytes, mut last) = (Vec::new(), Last::default());
    while old.read_until(b'\n', &mut bytes)? > 0 {
        let line = Line::parse(&bytes).filter(|line| bytes.ends_with(b"\n") && step > 0 && line.step <= step);
        if let Some(line) = line {
            kept.write_all(&bytes)?;
            last.note(&line);
        }
        bytes.clear();
    }
    Ok(last)
}
