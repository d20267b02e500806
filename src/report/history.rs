//! `metrics.jsonl`: what happened, one JSON object a line, each step once.

use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// The history's name in a run's folder.
pub const FILE: &str = "metrics.jsonl";

/// The history of one run, appended to. Only rank 0 has one.
pub struct History {
    file: File,
    /// The last step of each event.
    last: BTreeMap<String, u64>,
}

impl History {
    /// Opens `dir/metrics.jsonl` for a run that starts at `step` finished updates.
    ///
    /// Lines past that step belong to updates that will be made again, and a last line may be half-written: both go.
    /// At step 0 all do.
    pub fn open(dir: &Path, step: u64) -> io::Result<History> {
        let path = dir.join(FILE);
        let temporary = dir.join(format!(".{FILE}"));
        let mut kept = BufWriter::new(File::create(&temporary)?);
        let mut last = BTreeMap::new();
        match File::open(&path) {
            Ok(old) => copy_until(BufReader::new(old), step, &mut kept, &mut last)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        kept.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(History { file: OpenOptions::new().append(true).open(&path)?, last })
    }

    /// Whether there is a line of this event at `step` or later.
    pub fn has(&self, event: &str, step: u64) -> bool {
        self.last.get(event).is_some_and(|last| *last >= step)
    }

    /// Appends one line: `event`, `step`, then the fields of `more`, which must serialize to a JSON object.
    ///
    /// It is one write, so that a reader never sees half of it. Numbers that are not finite become null.
    pub fn log(&mut self, event: &str, step: u64, more: impl Serialize) -> io::Result<()> {
        let mut line = Map::new();
        line.insert("event".into(), json!(event));
        line.insert("step".into(), json!(step));
        match serde_json::to_value(more)? {
            Value::Object(more) => line.extend(more),
            other => return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not an object: {other}"))),
        }
        self.file.write_all(format!("{}\n", Value::Object(line)).as_bytes())?;
        self.last.insert(event.to_owned(), step);
        Ok(())
    }

    /// Waits until all lines are on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Copies the lines up to `step`, and notes the last step of each event; whatever is not a line of a history is left out.
fn copy_until(
    mut old: impl BufRead,
    step: u64,
    kept: &mut impl Write,
    last: &mut BTreeMap<String, u64>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    while old.read_until(b'\n', &mut bytes)? > 0 {
        let line = serde_json::from_slice::<Value>(&bytes).ok().filter(|_| bytes.ends_with(b"\n") && step > 0);
        let of =
            line.as_ref().and_then(|line| Some((line["event"].as_str().unwrap_or_default(), line["step"].as_u64()?)));
        if let Some((event, of)) = of.filter(|(_, of)| *of <= step) {
            kept.write_all(&bytes)?;
            last.insert(event.to_owned(), of);
        }
        bytes.clear();
    }
    Ok(())
}
