//! How label files are read: into which bytes, and which classes these stand for.

use super::DatasetConfig;
use super::decode;
use super::label_file::{LabelFile, LabelMapError};
use super::label_map::LabelMap;
use super::source::DataError;
use crate::retry;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// A label map file is some lines; more is none.
const MAX_MAP_BYTES: u64 = 16 << 20;

/// How label files become bytes, and bytes classes.
pub struct LabelRule {
    /// Translates raw values to bytes where they are no bytes already.
    file: Option<LabelFile>,
    /// From bytes to classes.
    pub map: LabelMap,
    /// What to tell of a byte that `map` lacks.
    pub lacking: String,
}

impl LabelRule {
    /// The reference's: 0 is ignored, k is class k - 1, and there is no larger k.
    pub fn reference(num_class: usize, lacking: impl Into<String>) -> LabelRule {
        LabelRule { file: None, map: LabelMap::reference(num_class), lacking: lacking.into() }
    }

    /// Bytes with a map of their own; `origin` is the map's name in messages.
    pub fn bytes(map: LabelMap, origin: &Path) -> LabelRule {
        LabelRule { file: None, map, lacking: format!("has no entry in the label map of {}", origin.display()) }
    }

    /// What a label map file says. Bytes stay what they are where that is enough, so that they can be mapped anew.
    pub fn of_file(path: &Path, file: LabelFile) -> LabelRule {
        match file.byte_map() {
            Some(map) => LabelRule::bytes(map, path),
            None => {
                let lacking = format!("is no class of the label map of {}", path.display());
                LabelRule { map: LabelMap::reference(file.num_class()), lacking, file: Some(file) }
            }
        }
    }

    /// Whether bytes are class + 1, 0 for ignored, rather than what the label file holds.
    pub fn translates(&self) -> bool {
        self.file.is_some()
    }

    /// Decodes a label file, whose name is `path`, to bytes that all have a class. Returns (width, height).
    pub fn read(&self, path: &Path, bytes: &[u8], values: &mut Vec<u8>) -> Result<(u32, u32), DataError> {
        let named = |error| DataError::Decode(path.display().to_string(), error);
        let Some(file) = &self.file else {
            let size = decode::label(bytes, values).map_err(named)?;
            self.check(|| path.display().to_string(), values)?;
            return Ok(size);
        };
        let raw = decode::raw_label(bytes).map_err(named)?;
        let size = raw.size;
        file.translate(raw, values).map_err(|cause| DataError::Label(path.into(), cause))?;
        Ok(size)
    }

    /// An error that names the label's `place` where a byte has no class.
    pub fn check(&self, place: impl FnOnce() -> String, values: &[u8]) -> Result<(), DataError> {
        match self.map.first_unmapped(values) {
            None => Ok(()),
            Some(value) => Err(DataError::LabelValue { file: place(), value, rule: self.lacking.clone() }),
        }
    }
}

/// How label files are read under DATASET, with the label map file where there is one.
pub fn of_config(config: &DatasetConfig) -> Result<(LabelRule, Option<LabelFile>), DataError> {
    if config.label_map.is_empty() {
        let lacking = format!(
            "is above DATASET.num_class, {}: set that, or say what values mean in DATASET.label_map",
            config.num_class
        );
        return Ok((LabelRule::reference(config.num_class, lacking), None));
    }
    let path = Path::new(&config.label_map);
    let file = load(path, Some(config.num_class))?;
    Ok((LabelRule::of_file(path, file.clone()), Some(file)))
}

/// Reads a label map file and checks that its classes are below `num_class`, where that is known.
pub fn load(path: &Path, num_class: Option<usize>) -> Result<LabelFile, DataError> {
    let read = |path: &Path| -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(path)?.take(MAX_MAP_BYTES).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = retry::read(path, || read(path)).map_err(|error| DataError::Read(path.into(), error))?;
    let named = |error| DataError::LabelMap(path.into(), error);
    let file = LabelFile::parse(&text).map_err(named)?;
    file.check(num_class.unwrap_or(255)).map_err(named)?;
    Ok(file)
}

/// An error if a map of bytes has a class that is not below `num_class`.
pub fn check(map: &LabelMap, num_class: usize) -> Result<(), LabelMapError> {
    let above =
        |(raw, class): (u8, Option<u8>)| class.filter(|&class| usize::from(class) >= num_class).map(|c| (raw, c));
    match map.entries().into_iter().find_map(above) {
        None => Ok(()),
        Some((raw, class)) => Err(LabelMapError::AboveNumClass(raw.to_string(), class, num_class)),
    }
}
