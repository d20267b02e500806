//! A set of labelled samples, whatever it is stored in: shards, a list, or a pair of folders.

use super::decode::{self, DecodeError};
use super::label_map::{LabelMap, LabelMapError};
use super::list::{self, List, Pair};
use super::{DatasetConfig, OnCorrupt};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Why samples cannot be listed or read. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system would not read it.
    #[error("{file}: cannot be read: {1}", file = .0.display())]
    Read(PathBuf, io::Error),
    /// A line of a list that is not a sample.
    #[error("{file} line {1}: not a sample (fpath_img, fpath_segm, width, height): {2}", file = .0.display())]
    ListLine(PathBuf, usize, String),
    /// No samples at all.
    #[error("{file}: holds no samples", file = .0.display())]
    Empty(PathBuf),
    /// A name that cannot be stored.
    #[error("{file}: the file name is not UTF-8; rename it", file = .0.display())]
    FileName(PathBuf),
    /// An image alone.
    #[error("{}: has no label map; expected it at {}", .image.display(), .label.display())]
    NoLabel {
        /// The image.
        image: PathBuf,
        /// Where its label map should be.
        label: PathBuf,
    },
    /// Not an image, or not a label map, or damaged.
    #[error("{file}: {1}", file = .0.display())]
    Decode(PathBuf, DecodeError),
    /// Two sources disagree on a size.
    #[error("{}: is {found_width} x {found_height} pixels, but {told_by} says {width} x {height}", .file.display())]
    #[allow(missing_docs)]
    Size { file: PathBuf, found_width: u32, found_height: u32, told_by: String, width: u32, height: u32 },
    /// A label that is no class.
    #[error("{file}: has the label value {value}, which {rule}")]
    #[allow(missing_docs)]
    LabelValue { file: String, value: u8, rule: String },
    /// The label map file is wrong.
    #[error("{file}: {1}", file = .0.display())]
    LabelMap(PathBuf, LabelMapError),
    /// A form of list that does not exist.
    #[error(
        "{0}: is neither an odgt list (.odgt, .odgt.gz), nor a folder of shards (with index.json), nor IMAGES:LABELS"
    )]
    Form(String),
}

/// One sample, decoded: the bytes of both vectors are reused from sample to sample.
#[derive(Default)]
pub struct Sample {
    /// Of image and label alike.
    pub width: u32,
    /// Of image and label alike.
    pub height: u32,
    /// RGB, row by row, 3 · width · height bytes.
    pub image: Vec<u8>,
    /// Raw label values, row by row, width · height bytes; each has a class in [`Source::label_map`].
    pub label: Vec<u8>,
}

/// Labelled samples, opened and checked; shared by all loader threads.
pub struct Source {
    pairs: Vec<Pair>,
    sizes: Vec<(u32, u32)>,
    id: String,
    label_map: LabelMap,
    /// What to tell of a value that `label_map` lacks.
    rule: String,
}

thread_local! {
    /// The bytes of the file that this thread reads, kept to save an allocation a sample.
    static FILE_BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Source {
    /// Opens DATASET.list_train or list_val, in any of its forms, without reading images.
    pub fn open(config: &DatasetConfig, list: &str) -> Result<Source, DataError> {
        let root = Path::new(&config.root_dataset);
        let path = Path::new(list);
        let List { pairs, id } = if list.ends_with(".odgt") || list.ends_with(".odgt.gz") {
            list::odgt(path, root)?
        } else if let Some((images, labels)) = list.split_once(':') {
            list::folders(&root.join(images), &root.join(labels))?
        } else {
            return Err(DataError::Form(list.into()));
        };
        let (label_map, rule) = label_map(config)?;
        let sizes = pairs.iter().map(|pair| pair.size).collect();
        Ok(Source { pairs, sizes, id, label_map, rule })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Never, once opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// (width, height) of every sample, without reading images.
    pub fn sizes(&self) -> &[(u32, u32)] {
        &self.sizes
    }

    /// The sample's name, as messages give it.
    pub fn name(&self, index: usize) -> &str {
        &self.pairs[index].name
    }

    /// Identifies the set: equal sets have equal ids. Shards: the id of index.json; lists: a hash of the list.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// From the values in [`Sample::label`] to classes.
    pub fn label_map(&self) -> &LabelMap {
        &self.label_map
    }

    /// Class names, where the set knows them.
    pub fn class_names(&self) -> Option<&[String]> {
        None
    }

    /// Colours of the classes, where the set knows them.
    pub fn palette(&self) -> Option<&[[u8; 3]]> {
        None
    }

    /// Reads and decodes a sample into reused memory.
    pub fn read(&self, index: usize, sample: &mut Sample) -> Result<(), DataError> {
        self.read_image(index, sample)?;
        let pair = &self.pairs[index];
        let size = with_bytes(&pair.label, |bytes| decode::label(bytes, &mut sample.label))?;
        check_size(&pair.label, size, "its image", (sample.width, sample.height))?;
        self.check_values(&pair.label.display(), &sample.label)
    }

    /// Reads the image alone (label untouched).
    pub fn read_image(&self, index: usize, sample: &mut Sample) -> Result<(), DataError> {
        let pair = &self.pairs[index];
        let size = with_bytes(&pair.image, |bytes| decode::image(bytes, &mut sample.image))?;
        check_size(&pair.image, size, "the list", pair.size)?;
        (sample.width, sample.height) = size;
        Ok(())
    }

    fn check_values(&self, file: &dyn std::fmt::Display, label: &[u8]) -> Result<(), DataError> {
        match self.label_map.first_unmapped(label) {
            None => Ok(()),
            Some(value) => Err(DataError::LabelValue { file: file.to_string(), value, rule: self.rule.clone() }),
        }
    }
}

/// The map that applies, and what to say of values that it lacks.
fn label_map(config: &DatasetConfig) -> Result<(LabelMap, String), DataError> {
    if config.label_map.is_empty() {
        let rule = format!("is above the number of classes, {} (DATASET.num_class)", config.num_class);
        return Ok((LabelMap::reference(config.num_class), rule));
    }
    let file = PathBuf::from(&config.label_map);
    let text = std::fs::read_to_string(&file).map_err(|error| DataError::Read(file.clone(), error))?;
    let wrong = |error| DataError::LabelMap(file.clone(), error);
    let map = LabelMap::parse(&text).map_err(wrong)?;
    map.check(config.num_class).map_err(wrong)?;
    Ok((map, format!("has no entry in {}", file.display())))
}

/// Reads a file and decodes its bytes.
fn with_bytes<T>(path: &Path, decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>) -> Result<T, DataError> {
    FILE_BYTES.with_borrow_mut(|bytes| {
        bytes.clear();
        let read = File::open(path).and_then(|mut file| file.read_to_end(bytes));
        read.map_err(|error| DataError::Read(path.into(), error))?;
        decode(bytes).map_err(|error| DataError::Decode(path.into(), error))
    })
}

fn check_size(file: &Path, found: (u32, u32), told_by: &str, told: (u32, u32)) -> Result<(), DataError> {
    if found == told {
        return Ok(());
    }
    let ((found_width, found_height), (width, height)) = (found, told);
    Err(DataError::Size { file: file.into(), found_width, found_height, told_by: told_by.into(), width, height })
}
