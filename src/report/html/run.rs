//! What a run's folder tells, read leniently: a run that is under way, or was killed, has files missing.

use crate::fault::{self, Kind};
use crate::report::event::Line;
use crate::report::picture::PagePicture;
use crate::run_dir::RunDir;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How many pictures a report holds of each run.
const PICTURES: usize = 6;
/// A larger picture is left out.
const MOST_BYTES: u64 = 64 << 20;

/// One run.
pub struct Run {
    /// The folder's name.
    pub name: String,
    /// metrics.jsonl.
    pub events: Vec<Line>,
    /// The last evaluation; null where there was none.
    pub evaluation: Value,
    /// Its confusion matrix.
    pub confusion: Option<PagePicture>,
    /// Some overlays by name, small enough for a page that opens on a phone.
    pub pictures: Vec<(String, PagePicture)>,
    /// Resolved configuration, YAML.
    pub config: String,
    /// Its values by dotted key.
    pub keys: BTreeMap<String, String>,
    /// The table that training printed first.
    pub about: String,
}

impl Run {
    /// Reads `dir`.
    ///
    /// # Errors
    /// No metrics.jsonl that can be read.
    pub fn read(dir: &Path) -> anyhow::Result<Run> {
        let files = RunDir::new(dir);
        let path = files.history();
        let unreadable = |cause: io::Error| {
            let message = format!("{}: cannot be read: {cause}; name a run's DIR", path.display());
            fault::error(Kind::of(&cause), message)
        };
        let text = fs::read(&path).map_err(unreadable)?;
        let events = Line::parse_all(&text);
        let name = dir.canonicalize().unwrap_or_else(|_| dir.into());
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let config = text(files.config());
        Ok(Run {
            keys: keys(&config),
            name: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            events,
            evaluation: serde_json::from_str(&text(files.evaluation())).unwrap_or_default(),
            confusion: fs::read(files.confusion_picture()).ok().map(PagePicture::png),
            pictures: pictures(&files.overlays(), MOST_BYTES)
                .into_iter()
                .map(|(name, png)| (name, PagePicture::small(png)))
                .collect(),
            config,
            about: text(files.about()),
        })
    }
}

/// The values of a configuration by dotted key.
fn keys(config: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let Ok(serde_yaml::Value::Mapping(sections)) = serde_yaml::from_str(config) else { return keys };
    let text = |value: &serde_yaml::Value| serde_json::to_string(value).unwrap_or_default();
    for (section, value) in &sections {
        let section = section.as_str().unwrap_or("?");
        match value {
            serde_yaml::Value::Mapping(values) => keys.extend(
                values.iter().map(|(key, value)| (format!("{section}.{}", key.as_str().unwrap_or("?")), text(value))),
            ),
            value => _ = keys.insert(section.to_owned(), text(value)),
        }
    }
    keys
}

/// The first pictures of a folder, by name, of at most so many bytes each: (stem, PNG).
pub fn pictures(folder: &Path, most_bytes: u64) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        let small = || path.metadata().is_ok_and(|about| about.is_file() && about.len() <= most_bytes);
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
