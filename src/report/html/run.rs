//! What a run's folder tells, read leniently: a run that is under way, or was killed, has files missing.

use crate::fault::{self, Kind};
use crate::report::history;
use serde_json::Value;
use std::fs;
use std::io;
use std::path::Path;

/// Files that training leaves for reports, in the run's folder.
pub const EVALUATION: &str = "evaluation.csv";
/// What the last evaluation found, one JSON object.
pub const SUMMARY: &str = "evaluation.json";
/// What the run resolved to: network, data, machine.
pub const ABOUT: &str = "about.txt";
/// Pictures of image, truth and prediction.
pub const OVERLAYS: &str = "overlays";

/// How many pictures a report holds of each run.
const PICTURES: usize = 6;
/// A larger picture is left out: the report should open on a phone.
const MOST_BYTES: u64 = 4 << 20;

/// One run.
pub struct Run {
    /// The folder's name.
    pub name: String,
    /// metrics.jsonl.
    pub events: Vec<Value>,
    /// The last evaluation; null where there was none.
    pub evaluation: Value,
    /// Its confusion matrix, PNG.
    pub confusion: Option<Vec<u8>>,
    /// Name and PNG of some overlays.
    pub pictures: Vec<(String, Vec<u8>)>,
    /// Resolved configuration, YAML.
    pub config: String,
    /// The table that training printed first.
    pub about: String,
}

impl Run {
    /// Reads `dir`.
    ///
    /// # Errors
    /// No metrics.jsonl that can be read.
    pub fn read(dir: &Path) -> anyhow::Result<Run> {
        let path = dir.join(history::FILE);
        let unreadable = |cause: io::Error| {
            let message = format!("{}: cannot be read: {cause}; name a run's DIR", path.display());
            fault::error(Kind::of(&cause), message)
        };
        let text = fs::read(&path).map_err(unreadable)?;
        let events =
            String::from_utf8_lossy(&text).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let name = dir.canonicalize().unwrap_or_else(|_| dir.into());
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        Ok(Run {
            name: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            events,
            evaluation: serde_json::from_str(&text(SUMMARY)).unwrap_or_default(),
            confusion: fs::read(dir.join(EVALUATION).with_extension("confusion.png")).ok(),
            pictures: pictures(&dir.join(OVERLAYS)),
            config: text("config.yaml"),
            about: text(ABOUT),
        })
    }

    /// (step, value) of a field of all events of one kind.
    pub fn points(&self, event: &str, field: &str) -> Vec<(f64, f64)> {
        let point = |line: &Value| Some((line["step"].as_f64()?, line[field].as_f64()?));
        self.events.iter().filter(|line| line["event"] == event).filter_map(point).collect()
    }
}

/// The first pictures of a folder, by name: (stem, PNG).
pub fn pictures(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        let small = || path.metadata().is_ok_and(|about| about.is_file() && about.len() <= MOST_BYTES);
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|end| end == "png") && small()
    });
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        fs::read(path).ok().map(|png| (name, png))
    };
    paths.iter().take(PICTURES).filter_map(read).collect()
}
