//! Where samples come from: shards, lists of files, pairs of folders, each behind [`Source`].
//!
//! # How to add a data source
//!
//! One file in this folder, with a type that implements [`Source`] and a [`Form`] that opens it, and one row in [`FORMS`].
//! A source only lists and decodes; that labels are classes, and which, [`Dataset`](super::dataset::Dataset) sees to.
//!
//! ```ignore
//! pub const FORM: Form = Form { name: "a video (.mp4)", open };
//!
//! fn open(_: &DatasetConfig, list: &str) -> Opened {
//!     if !list.ends_with(".mp4") {
//!         return Ok(None); // another form
//!     }
//!     Ok(Some(Box::new(Video::open(list)?)))
//! }
//! ```
//!
//! `sizes` and `id` must be known once it is open, as the order of samples and a resumed run rest on them. Reads go
//! through [`crate::retry`], so that what may pass is tried again; a [`DataError`]'s variant decides the exit code.

mod error;
mod files;
mod shards;

pub use error::DataError;

use super::DatasetConfig;
use super::label_map::LabelMap;
use std::cell::RefCell;
use std::path::PathBuf;

/// The forms of DATASET.list_train and list_val; the first that takes a list opens it.
pub const FORMS: [Form; 3] = [files::LIST, shards::FORM, files::FOLDERS];

/// One form of DATASET.list_train and list_val.
pub struct Form {
    /// In words, for the message about a list that has no form.
    pub name: &'static str,
    /// Opens a list of this form without reading images.
    pub open: fn(&DatasetConfig, &str) -> Opened,
}

/// A source, or None where the list has another form.
pub type Opened = Result<Option<Box<dyn Source>>, DataError>;

/// Samples with labels of raw values, shared by all loader threads.
pub trait Source: Send + Sync {
    /// (width, height) of every sample, without reading images.
    fn sizes(&self) -> &[(u32, u32)];

    /// A sample's name; of an image file, its path as the list gives it.
    fn name(&self, index: usize) -> &str;

    /// Identifies the samples: equal for equal contents, wherever they are.
    fn id(&self) -> &str;

    /// Reads and decodes an image to RGB, 3 · width · height bytes.
    fn image(&self, index: usize, rgb: &mut Vec<u8>) -> Result<(), DataError>;

    /// Reads and decodes a label to raw values, width · height bytes.
    fn label(&self, index: usize, values: &mut Vec<u8>) -> Result<(), DataError>;

    /// Where a sample's label is, for messages.
    fn label_place(&self, index: usize) -> String;

    /// The label map that the source brings, and the file it is in.
    fn label_map(&self) -> Option<(PathBuf, LabelMap)> {
        None
    }

    /// Whether labels are class + 1, 0 for ignored, whatever was drawn: then no label map applies.
    fn translates(&self) -> bool {
        false
    }

    /// The classes that each sample shows, where the source knows them without reading labels; see `class_pixels`.
    fn seen(&self) -> Option<Vec<Vec<u8>>> {
        None
    }

    /// Class names, where the source knows them.
    fn class_names(&self) -> Option<&[String]> {
        None
    }

    /// Pixels of each class by the source's own label map (the reference's rule where it has none), where it knows them.
    fn class_pixels(&self) -> Option<&[u64]> {
        None
    }

    /// Colours of the classes, where the source knows them.
    fn palette(&self) -> Option<&[[u8; 3]]> {
        None
    }
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
    /// Raw label values, row by row, width · height bytes; each has a class in the data set's label map.
    pub label: Vec<u8>,
}

/// Opens a list in whichever form it has, without reading images.
pub fn open(config: &DatasetConfig, list: &str) -> Result<Box<dyn Source>, DataError> {
    let key = match list {
        _ if list == config.list_train => "DATASET.list_train",
        _ if list == config.list_val => "DATASET.list_val",
        _ => return open_any(config, list),
    };
    open_any(config, list).map_err(|error| error.of(key, list))
}

fn open_any(config: &DatasetConfig, list: &str) -> Result<Box<dyn Source>, DataError> {
    for form in &FORMS {
        if let Some(source) = (form.open)(config, list)? {
            return Ok(source);
        }
    }
    Err(DataError::Form(list.into(), FORMS.map(|form| form.name).join(", nor ")))
}

thread_local! {
    /// The bytes of the file or record that this thread reads, kept to save an allocation a sample.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}
