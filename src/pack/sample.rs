//! One sample on its way into a shard: read, decoded, checked, its label compressed.

use super::{Pair, Record};
use crate::data::decode;
use crate::data::label_map::LabelMap;
use crate::data::source::DataError;
use crate::retry;
use crate::shard::{Codec, compress_label};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What labels are checked against.
pub struct Rules {
    /// Raw value → class, where that is known.
    pub map: Option<LabelMap>,
    /// What to tell of a value that `map` lacks.
    pub lacking: String,
    /// `map` is stored with the set; else the set is read by the reference's rule or DATASET.label_map.
    pub stored: bool,
}

impl Rules {
    fn check(&self, label: &[u8], pair: &Pair) -> Result<(), DataError> {
        match self.map.as_ref().and_then(|map| map.first_unmapped(label)) {
            None => Ok(()),
            Some(value) => {
                let file = pair.label.display().to_string();
                Err(DataError::LabelValue { file, value, rule: self.lacking.clone() })
            }
        }
    }
}

/// A sample as a shard takes it.
pub struct Packed {
    /// What is written.
    pub record: Record,
    /// Pixels of each raw label value.
    pub pixels: [u64; 256],
    /// Its EXIF block asks for a rotation.
    pub rotated: bool,
    /// See [`stamp`].
    pub stamp: String,
}

impl Packed {
    /// Reads a pair and checks all that can be wrong with it.
    pub fn read(pair: &Pair, rules: &Rules) -> Result<Packed, DataError> {
        let stamp = stamp(pair)?;
        let image = read(&pair.image)?;
        let mut values = Vec::new();
        pair.decode_image(&image, &mut values)?;
        pair.decode_label(&read(&pair.label)?, &mut values)?;
        rules.check(&values, pair)?;
        let mut pixels = [0; 256];
        values.iter().for_each(|&value| pixels[usize::from(value)] += 1);
        let label = compress_label(&values).map_err(|error| DataError::Read(pair.label.clone(), error))?;
        let unknown = || DataError::Decode(pair.image.display().to_string(), decode::DecodeError::Format);
        let codec = Codec::of(&image).ok_or_else(unknown)?;
        let rotated = codec == Codec::Jpeg && decode::exif_orientation(&image).is_some();
        let (width, height) = pair.size;
        let record = Record { name: pair.name.clone(), width, height, codec, image, label };
        Ok(Packed { record, pixels, rotated, stamp })
    }
}

/// Tells an input that was changed since: names, lengths and times of both files, and the listed size.
pub fn stamp(pair: &Pair) -> Result<String, DataError> {
    let file = |path: &Path| {
        let meta = retry::read(path, || fs::metadata(path)).map_err(|error| DataError::Read(path.into(), error))?;
        Ok::<_, DataError>(format!("{} {} {}", meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    let (image, label) = (file(&pair.image)?, file(&pair.label)?);
    Ok(format!("{}\n{:?} {image} {label}\n", pair.name, pair.size))
}

fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    retry::read(path, || fs::read(path)).map_err(|error| DataError::Read(path.into(), error))
}
