//! A set of labelled samples, whatever it is stored in: shards, a list, or a pair of folders.

use super::{DatasetConfig, OnCorrupt};
use std::path::Path;

/// Why samples cannot be listed or read. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The user has to mend this.
    #[error("{0}")]
    Bad(String),
}

/// One sample, decoded: the bytes of both vectors are reused from sample to sample.
#[derive(Default)]
pub struct Sample {
    pub width: u32,
    pub height: u32,
    /// RGB, row by row, 3 · width · height bytes.
    pub image: Vec<u8>,
    /// Raw label values, row by row, width · height bytes.
    pub label: Vec<u8>,
}

/// Labelled samples, opened and checked; shared by all loader threads.
pub struct Source {}

impl Source {
    /// Opens DATASET.list_train or list_val, in any of its forms.
    pub fn open(config: &DatasetConfig, list: &str) -> Result<Source, DataError> {
        todo!()
    }
    /// Number of samples.
    pub fn len(&self) -> usize {
        todo!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// (width, height) of every sample, without reading images.
    pub fn sizes(&self) -> &[(u32, u32)] {
        todo!()
    }
    /// The sample's name, as messages give it.
    pub fn name(&self, index: usize) -> &str {
        todo!()
    }
    /// Identifies the set: equal sets have equal ids. Shards: the id of index.json; lists: a hash of the list.
    pub fn id(&self) -> &str {
        todo!()
    }
    /// Class names, where the set knows them.
    pub fn class_names(&self) -> Option<&[String]> {
        todo!()
    }
    /// Colours of the classes, where the set knows them.
    pub fn palette(&self) -> Option<&[[u8; 3]]> {
        todo!()
    }
    /// Reads and decodes a sample into reused memory.
    pub fn read(&self, index: usize, sample: &mut Sample) -> Result<(), DataError> {
        todo!()
    }
    /// Reads the image alone (label untouched).
    pub fn read_image(&self, index: usize, sample: &mut Sample) -> Result<(), DataError> {
        todo!()
    }
}
