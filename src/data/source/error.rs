//! Every way in which samples can be missing or wrong.

use super::super::decode::DecodeError;
use super::super::label_file::LabelMapError;
use crate::comm::CommError;
use crate::fault::{Failure, Kind};
use crate::shard::{Fault, ShardError};
use std::fmt::Display;
use std::io;
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
    /// A file below the folder that lists start from is not there: the key that moved it is named.
    #[error("{0}; relative paths start from {1}, {root}", root = .2.display())]
    Below(Box<DataError>, &'static str, PathBuf),
    /// A list that cannot be used, after the key that names it.
    #[error("{0}: {1}")]
    Of(&'static str, Box<DataError>),
    /// The loader's threads cannot be started, or one has died.
    #[error("the loader: {0}")]
    Loader(String),
    /// A line of a list that is not a sample.
    #[error("{file} line {1}: not a sample (fpath_img, fpath_segm, width, height): {2}", file = .0.display())]
    ListLine(PathBuf, usize, String),
    /// No samples at all.
    #[error("{file}: holds no samples", file = .0.display())]
    Empty(PathBuf),
    /// No images in a folder; what is there, and what would be one.
    #[error("{file}: holds no images: {1}", file = .0.display())]
    NoImages(PathBuf, String),
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
    /// A size that no image has.
    #[error("{0}: cannot have {1} x {2} pixels")]
    Extent(String, u32, u32),
    /// A source that does not give as many bytes as its size says.
    #[error("{place}: has {found} bytes of pixels or labels instead of {expected}")]
    #[allow(missing_docs)]
    Pixels { place: String, found: usize, expected: usize },
    /// A label that is no class.
    #[error("{file}: has the label value {value}, which {rule}")]
    #[allow(missing_docs)]
    LabelValue { file: String, value: u8, rule: String },
    /// A label whose values the label map gives no class.
    #[error("{file}: {1}", file = .0.display())]
    Label(PathBuf, String),
    /// A file of outlines is wrong.
    #[error("{file}: {1}", file = .0.display())]
    Instances(PathBuf, String),
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
    /// Nobody has written down which sample shows which class.
    #[error(
        "DATASET.rare_class_sampling: nothing says which classes an image shows: `segdist pack` the training samples (sets \
         packed by an earlier version once more) with this label map"
    )]
    Unseen,
    /// A form of list that does not exist, and those that do.
    #[error("{list}: is neither {1}", list = if .0.is_empty() { "''" } else { .0 })]
    Form(String, String),
}

impl Failure for DataError {
    fn kind(&self) -> Kind {
        match self {
            DataError::Read(_, error) | DataError::Stage(_, error) => Kind::of(error),
            DataError::Vanished(..) | DataError::Loader(_) => Kind::Passing,
            DataError::Below(error, ..) | DataError::Of(_, error) => error.kind(),
            DataError::Shard(error) => error.kind(),
            DataError::Comm(error) => error.kind(),
            DataError::ListLine(..)
            | DataError::Extent(..)
            | DataError::Pixels { .. }
            | DataError::Empty(_)
            | DataError::NoImages(..)
            | DataError::Label(..)
            | DataError::Instances(..)
            | DataError::FileName(_)
            | DataError::NoLabel { .. }
            | DataError::Decode(..)
            | DataError::Size { .. }
            | DataError::LabelValue { .. }
            | DataError::LabelMap(..)
            | DataError::Layout(..)
            | DataError::Unseen
            | DataError::Form(..) => Kind::Input,
        }
    }
}

impl DataError {
    /// The size found in `file` is not the one told.
    pub fn size(file: impl Display, found: (u32, u32), told_by: &str, told: (u32, u32)) -> DataError {
        let ((found_width, found_height), (width, height)) = (found, told);
        DataError::Size { file: file.to_string(), found_width, found_height, told_by: told_by.into(), width, height }
    }

    /// With the key or flag that relative paths start from, where a file below it is what is missing, and not `list` itself.
    pub fn below(self, key: &'static str, root: &Path, list: &Path) -> DataError {
        let missing = match &self {
            DataError::Read(path, cause) if Kind::of(cause) == Kind::Input && path != list => path,
            DataError::NoImages(path, _) | DataError::NoLabel { image: path, .. } => path,
            _ => return self,
        };
        if missing.starts_with(root) { DataError::Below(Box::new(self), key, root.into()) } else { self }
    }

    /// With the key that names `list`, where there is no such list.
    pub fn of(self, key: &'static str, list: &str) -> DataError {
        let no_list = match &self {
            DataError::Read(path, _) => path == Path::new(list),
            DataError::Shard(error) => matches!(error.fault, Fault::NoIndex),
            DataError::Form(..) | DataError::Empty(_) => true,
            _ => false,
        };
        if no_list { DataError::Of(key, Box::new(self)) } else { self }
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
