//! A set of labelled samples, whatever it is stored in: shards, a list, or a pair of folders.

use super::decode::{self, DecodeError};
use super::label_map::{LabelMap, LabelMapError};
use super::list::{self, List, Pair};
use super::{DatasetConfig, Io};
use crate::comm::CommError;
use crate::fault::{Failure, Kind};
use crate::retry;
use crate::shard::{Access, Fault, INDEX_FILE, Set, Shard, ShardError};
use std::cell::RefCell;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why samples cannot be listed or read. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system would not read it.
    #[error("{file}: cannot be read: {1}", file = .0.display())]
    Read(PathBuf, io::Error),
    /// Not there, and with it the folder that all samples are in: a mount that is gone, and may come back.
    #[error("{file}: cannot be read: {folder}, which was there when the run began, is gone", file = .0.display(), folder = .1.display())]
    Vanished(PathBuf, PathBuf),
    /// The loader's threads cannot be started, or one has died.
    #[error("the loader: {0}")]
    Loader(String),
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
    #[error("{0}: {1}")]
    Decode(String, DecodeError),
    /// Two sources disagree on a size.
    #[error("{file}: is {found_width} x {found_height} pixels, but {told_by} says {width} x {height}")]
    #[allow(missing_docs)]
    Size { file: String, found_width: u32, found_height: u32, told_by: String, width: u32, height: u32 },
    /// A label that is no class.
    #[error("{file}: has the label value {value}, which {rule}")]
    #[allow(missing_docs)]
    LabelValue { file: String, value: u8, rule: String },
    /// The label map file is wrong.
    #[error("{file}: {1}", file = .0.display())]
    LabelMap(PathBuf, LabelMapError),
    /// A shard or index.json is wrong.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// No copy can be made on this node.
    #[error("{file}: cannot be staged: {1}; name a folder with room in DATASET.stage", file = .0.display())]
    Stage(PathBuf, io::Error),
    /// The ranks lost each other.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A layout that does not exist.
    #[error("there is no layout '{0}'; there are {1}")]
    Layout(String, String),
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

impl Failure for DataError {
    fn kind(&self) -> Kind {
        match self {
            DataError::Read(_, error) | DataError::Stage(_, error) => Kind::of(error),
            DataError::Vanished(..) | DataError::Loader(_) => Kind::Passing,
            DataError::Shard(error) => error.kind(),
            DataError::Comm(error) => error.kind(),
            DataError::ListLine(..)
            | DataError::Empty(_)
            | DataError::FileName(_)
            | DataError::NoLabel { .. }
            | DataError::Decode(..)
            | DataError::Size { .. }
            | DataError::LabelValue { .. }
            | DataError::LabelMap(..)
            | DataError::Layout(..)
            | DataError::Form(_) => Kind::Input,
        }
    }
}

impl DataError {
    /// The size found in `file` is not the one told.
    pub fn size(file: impl Display, found: (u32, u32), told_by: &str, told: (u32, u32)) -> DataError {
        let ((found_width, found_height), (width, height)) = (found, told);
        DataError::Size { file: file.to_string(), found_width, found_height, told_by: told_by.into(), width, height }
    }

    /// Whether another sample may be read in place of this one (DATASET.on_corrupt): its own bytes are damaged.
    pub fn is_corrupt(&self) -> bool {
        match self {
            DataError::Decode(..) => true,
            DataError::Shard(error) => {
                matches!(error.fault, Fault::RecordCrc { .. } | Fault::Truncated { .. } | Fault::LabelFrame { .. })
            }
            _ => false,
        }
    }
}

/// Labelled samples, opened and checked; shared by all loader threads.
pub struct Source {
    store: Store,
    sizes: Vec<(u32, u32)>,
    id: String,
    label_map: LabelMap,
    /// What to tell of a value that `label_map` lacks.
    rule: String,
}

enum Store {
    Files(Files),
    Shards(Box<Set>),
}

/// Image and label files, each read when it is asked for.
struct Files {
    pairs: Vec<Pair>,
    root: PathBuf,
    /// The file system that `root` was on, if it was there.
    device: Option<u64>,
}

impl Files {
    fn new(pairs: Vec<Pair>, root: &Path) -> Files {
        Files { pairs, root: root.into(), device: device(root) }
    }

    /// Reads a file into this thread's buffer for `decode`.
    fn with(&self, path: &Path, decode: impl FnOnce(&[u8]) -> Result<(), DataError>) -> Result<(), DataError> {
        BYTES.with_borrow_mut(|bytes| {
            let read = retry::read(path, || {
                bytes.clear();
                File::open(path).and_then(|mut file| file.read_to_end(bytes))
            });
            read.map_err(|error| match Kind::of(&error) {
                Kind::Input if self.device.is_some() && device(&self.root) != self.device => {
                    DataError::Vanished(path.into(), self.root.clone())
                }
                _ => DataError::Read(path.into(), error),
            })?;
            decode(bytes)
        })
    }
}

/// The file system that a folder is on.
fn device(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|about| about.dev())
}

thread_local! {
    /// The bytes of the file or record that this thread reads, kept to save an allocation a sample.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Source {
    /// Opens DATASET.list_train or list_val, in any of its forms, without reading images.
    pub fn open(config: &DatasetConfig, list: &str) -> Result<Source, DataError> {
        let root = Path::new(&config.root_dataset);
        let path = Path::new(list);
        if list.ends_with(".odgt") || list.ends_with(".odgt.gz") {
            Source::files(config, list::odgt(path, root)?)
        } else if is_folder(path)? {
            Source::shards(config, path)
        } else if let Some((images, labels)) = list.split_once(':') {
            Source::files(config, list::folders(&root.join(images), &root.join(labels))?)
        } else {
            Err(DataError::Form(list.into()))
        }
    }

    fn files(config: &DatasetConfig, list: List) -> Result<Source, DataError> {
        let (label_map, rule) = label_map(config, None)?;
        let sizes = list.pairs.iter().map(|pair| pair.size).collect();
        let files = Files::new(list.pairs, Path::new(&config.root_dataset));
        Ok(Source { store: Store::Files(files), sizes, id: list.id, label_map, rule })
    }

    fn shards(config: &DatasetConfig, dir: &Path) -> Result<Source, DataError> {
        let access = match config.io {
            Io::Auto => Access::Auto,
            Io::Mmap => Access::Mmap,
            Io::Pread => Access::Pread,
        };
        let set = Set::open(dir, access)?;
        let stored = set.index.label_map().map(|entries| (dir.join(INDEX_FILE), LabelMap::from_entries(&entries)));
        let (label_map, rule) = label_map(config, stored)?;
        let sizes = set.entries().map(|entry| (entry.width, entry.height)).collect();
        let id = set.index.dataset_id().to_string();
        Ok(Source { store: Store::Shards(Box::new(set)), sizes, id, label_map, rule })
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

    /// The sample's name: of an image file, its path as the list gives it.
    pub fn name(&self, index: usize) -> &str {
        match &self.store {
            Store::Files(files) => &files.pairs[index].name,
            Store::Shards(set) => {
                let (shard, record) = set.locate(index);
                &shard.entries()[record].name
            }
        }
    }

    /// Identifies the samples, wherever they are: equal sets have equal ids. Shards: the id of index.json; lists: a hash
    /// of the list.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Identifies what the samples' labels mean: equal for equal classes of all raw values, whatever file says so.
    pub fn labels_id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        self.label_map.table().iter().for_each(|class| _ = hasher.update(&class.to_le_bytes()));
        hasher.finalize().to_hex().to_string()
    }

    /// From the values in [`Sample::label`] to classes.
    pub fn label_map(&self) -> &LabelMap {
        &self.label_map
    }

    /// Class names, where the set knows them.
    pub fn class_names(&self) -> Option<&[String]> {
        match &self.store {
            Store::Files(_) => None,
            Store::Shards(set) => set.index.classes.as_deref(),
        }
    }

    /// Colours of the classes, where the set knows them.
    pub fn palette(&self) -> Option<&[[u8; 3]]> {
        match &self.store {
            Store::Files(_) => None,
            Store::Shards(set) => set.index.palette.as_deref(),
        }
    }

    /// Reads and decodes a sample into reused memory.
    pub fn read(&self, index: usize, sample: &mut Sample) -> Result<(), DataError> {
        self.read_image(index, sample)?;
        match &self.store {
            Store::Files(files) => {
                let pair = &files.pairs[index];
                files.with(&pair.label, |bytes| pair.decode_label(bytes, &mut sample.label))?;
            }
            Store::Shards(set) => {
                let (shard, record) = set.locate(index);
                BYTES.with_borrow_mut(|scratch| shard.label(record, scratch, &mut sample.label))?;
            }
        }
        let Some(value) = self.label_map.first_unmapped(&sample.label) else { return Ok(()) };
        let file = match &self.store {
            Store::Files(files) => files.pairs[index].label.display().to_string(),
            Store::Shards(set) => {
                let (shard, record) = set.locate(index);
                record_place(shard, record)
            }
        };
        Err(DataError::LabelValue { file, value, rule: self.rule.clone() })
    }

    /// Reads the image alone (label untouched).
    pub fn read_image(&self, index: usize, sample: &mut Sample) -> Result<(), DataError> {
        (sample.width, sample.height) = self.sizes[index];
        match &self.store {
            Store::Files(files) => {
                let pair = &files.pairs[index];
                files.with(&pair.image, |bytes| pair.decode_image(bytes, &mut sample.image))
            }
            Store::Shards(set) => {
                let (shard, record) = set.locate(index);
                BYTES.with_borrow_mut(|scratch| {
                    let size = decode::image(shard.image(record, scratch)?, &mut sample.image)
                        .map_err(|error| DataError::Decode(record_place(shard, record), error))?;
                    if size != self.sizes[index] {
                        return Err(DataError::size(record_place(shard, record), size, "its entry", self.sizes[index]));
                    }
                    Ok(())
                })
            }
        }
    }
}

fn record_place(shard: &Shard, record: usize) -> String {
    format!("{}: record {}", shard.path().display(), shard.entries()[record].name)
}

/// The map that applies, and what to say of values that it lacks: DATASET.label_map, else the one stored with the
/// shards, else the reference's rule.
fn label_map(config: &DatasetConfig, stored: Option<(PathBuf, LabelMap)>) -> Result<(LabelMap, String), DataError> {
    let named = if config.label_map.is_empty() { stored } else { Some(LabelMap::load(Path::new(&config.label_map))?) };
    let Some((file, map)) = named else {
        let rule = format!("is above the number of classes, {} (DATASET.num_class)", config.num_class);
        return Ok((LabelMap::reference(config.num_class), rule));
    };
    map.check(config.num_class).map_err(|error| DataError::LabelMap(file.clone(), error))?;
    Ok((map, format!("has no entry in the label map of {}", file.display())))
}

/// Whether there is a folder of this name; not so where the system cannot tell.
fn is_folder(path: &Path) -> Result<bool, DataError> {
    match retry::read(path, || fs::metadata(path)) {
        Ok(about) => Ok(about.is_dir()),
        Err(error) if Kind::of(&error) == Kind::Input => Ok(false),
        Err(error) => Err(DataError::Read(path.into(), error)),
    }
}
