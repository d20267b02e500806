//! Image and label files that a list names, or that lie in two folders; each is read when it is asked for.

use super::super::DatasetConfig;
use super::super::label_rule::{self, LabelRule};
use super::super::list::{self, List, Pair};
use super::super::walk::read_file;
use super::{BYTES, DataError, Form, Opened, Source};
use crate::fault::Kind;
use crate::stages::{self, Stage};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A list as the reference's, with paths under DATASET.root_dataset.
pub const LIST: Form = Form { name: "an odgt list (.odgt, .odgt.gz)", open: open_list };

/// The key that moves all files of a list.
const ROOT: &str = "DATASET.root_dataset";

/// Two folders under DATASET.root_dataset.
pub const FOLDERS: Form = Form { name: "IMAGES:LABELS", open: open_folders };

fn open_list(config: &DatasetConfig, list: &str) -> Opened {
    if !list.ends_with(".odgt") && !list.ends_with(".odgt.gz") {
        return Ok(None);
    }
    let root = Path::new(&config.root_dataset);
    let pairs = list::odgt(Path::new(list), root).map_err(|error| error.below(ROOT, root, Path::new(list)))?;
    Ok(Some(Box::new(Files::new(config, pairs, root)?)))
}

fn open_folders(config: &DatasetConfig, list: &str) -> Opened {
    let Some((images, labels)) = list.split_once(':') else { return Ok(None) };
    let root = Path::new(&config.root_dataset);
    let pairs = list::folders(&root.join(images), &root.join(labels), None);
    let list = pairs.map_err(|error| error.below(ROOT, root, Path::new(list)))?;
    Ok(Some(Box::new(Files::new(config, list, root)?)))
}

struct Files {
    pairs: Vec<Pair>,
    sizes: Vec<(u32, u32)>,
    id: String,
    rule: LabelRule,
    /// Of the label map file; empty where it has none.
    names: Vec<String>,
    palette: Vec<[u8; 3]>,
    root: PathBuf,
    /// The file system that `root` was on when it was opened, if it was there.
    device: Option<u64>,
}

impl Files {
    fn new(config: &DatasetConfig, list: List, root: &Path) -> Result<Files, DataError> {
        let (rule, file) = label_rule::of_config(config)?;
        let (sizes, mut id) = (list.pairs.iter().map(|pair| pair.size).collect(), list.id);
        if rule.translates() {
            // What the labels become is part of what the samples are.
            id = blake3::hash(format!("{id}\n{file:?}").as_bytes()).to_hex().to_string();
        }
        let file = file.unwrap_or_default();
        let (names, palette) = (file.names, file.colors);
        Ok(Files { pairs: list.pairs, sizes, id, rule, names, palette, root: root.into(), device: device(root) })
    }

    /// Reads a file into this thread's buffer for `decode`.
    fn with(&self, path: &Path, decode: impl FnOnce(&[u8]) -> Result<(), DataError>) -> Result<(), DataError> {
        BYTES.with_borrow_mut(|bytes| {
            let read = stages::time(Stage::Read, || read_file(path, bytes));
            read.map_err(|error| match Kind::of(&error) {
                Kind::Input if self.device.is_some() && device(&self.root) != self.device => {
                    DataError::Vanished(path.into(), self.root.clone())
                }
                _ => DataError::Read(path.into(), error).below(ROOT, &self.root, Path::new("")),
            })?;
            decode(bytes)
        })
    }
}

/// The file system that a folder is on.
fn device(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|about| about.dev())
}

impl Source for Files {
    fn sizes(&self) -> &[(u32, u32)] {
        &self.sizes
    }

    fn name(&self, index: usize) -> &str {
        &self.pairs[index].name
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn image(&self, index: usize, rgb: &mut Vec<u8>) -> Result<(), DataError> {
        let pair = &self.pairs[index];
        self.with(&pair.image, |bytes| stages::time(Stage::Decode, || pair.decode_image(bytes, rgb)).map(|_| ()))
    }

    fn label(&self, index: usize, values: &mut Vec<u8>) -> Result<(), DataError> {
        let pair = &self.pairs[index];
        self.with(&pair.label, |bytes| stages::time(Stage::Label, || pair.decode_label(&self.rule, bytes, values)))
    }

    fn label_place(&self, index: usize) -> String {
        self.pairs[index].label.display().to_string()
    }

    fn translates(&self) -> bool {
        self.rule.translates()
    }

    fn class_names(&self) -> Option<&[String]> {
        (!self.names.is_empty()).then_some(&self.names)
    }

    fn palette(&self) -> Option<&[[u8; 3]]> {
        (!self.palette.is_empty()).then_some(&self.palette)
    }
}
