//! One sample on its way into a shard: read, decoded, checked, its label compressed.

use super::rules::{Labels, Rules};
use super::{Pair, Record};
use crate::data::decode::{self, Format};
use crate::data::source::DataError;
use crate::data::walk::read_file;
use crate::retry;
use crate::shard::{Codec, compress_label};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A sample as a shard takes it.
pub struct Packed {
    /// What is written.
    pub record: Record,
    /// Pixels of each stored label value.
    pub pixels: [u64; 256],
    /// What EXIF asked for and was done about it.
    pub turn: Turn,
    /// See [`stamp`].
    pub stamp: String,
}

/// An image whose EXIF block asks for a turn or a mirror.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It does not.
    None,
    /// Done, for the label is upright.
    Done,
    /// Not done, for the label is as the image is stored.
    NotDone,
}

impl Packed {
    /// Reads a pair and checks all that can be wrong with it.
    pub fn read(pair: &Pair, rules: &Rules) -> Result<Packed, DataError> {
        let stamp = stamp(pair)?;
        let image = read(&pair.image)?;
        let mut rgb = Vec::new();
        let turned = pair.decode_image(&image, &mut rgb)?;
        let turn = match decode::upright_size(std::io::Cursor::new(&image)) {
            None => Turn::None,
            Some(_) if turned => Turn::Done,
            Some(_) => Turn::NotDone,
        };
        let mut values = Vec::new();
        match &rules.labels {
            Labels::Files(rule) => pair.decode_label(rule, &read(&pair.label)?, &mut values)?,
            Labels::Drawn(instances, _) => {
                let drawn = instances.draw(&pair.name, &mut values);
                let named = |cause| DataError::Instances(pair.label.clone(), format!("{}: {cause}", pair.name));
                drawn.map(|_| ()).map_err(named)?;
            }
        }
        let mut pixels = [0; 256];
        values.iter().for_each(|&value| pixels[usize::from(value)] += 1);
        let label = compress_label(&values).map_err(|error| DataError::Read(pair.label.clone(), error))?;
        let (width, height) = pair.size;
        let (codec, image) = match Format::of(&image) {
            Some(Format::Jpeg) if turned => (Codec::UprightJpeg, image),
            Some(Format::Jpeg) => (Codec::Jpeg, image),
            Some(Format::Png) => (Codec::Png, image),
            // Other containers are slow to decode, or need a decoder of their own.
            _ => (Codec::Png, decode::to_png(pair.size, &rgb)),
        };
        let record = Record { name: pair.name.clone(), width, height, codec, image, label };
        Ok(Packed { record, pixels, turn, stamp })
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
    let mut bytes = Vec::new();
    read_file(path, &mut bytes).map_err(|error| DataError::Read(path.into(), error))?;
    Ok(bytes)
}
