//! A set of labelled samples whatever its source: with the label map that applies, and checked against it at each read.

use super::DatasetConfig;
use super::label_map::LabelMap;
use super::label_rule::{self, LabelRule};
use super::rare_classes;
use super::source::{self, DataError, Sample, Source};
use crate::shard::MAX_PIXELS;
use std::path::Path;

/// A source and what its labels mean.
pub struct Dataset {
    source: Box<dyn Source>,
    /// Only its map is used: the source has read the files.
    labels: LabelRule,
}

impl Dataset {
    /// Opens DATASET.list_train or list_val, in any of its forms, without reading images.
    pub fn open(config: &DatasetConfig, list: &str) -> Result<Dataset, DataError> {
        Dataset::new(source::open(config, list)?, config)
    }

    /// Any source, with DATASET.label_map, else its own, else the reference's rule.
    pub fn new(source: Box<dyn Source>, config: &DatasetConfig) -> Result<Dataset, DataError> {
        let impossible = |&(width, height): &(u32, u32)| {
            let pixels = u64::from(width) * u64::from(height);
            pixels == 0 || pixels > MAX_PIXELS
        };
        if let Some(index) = source.sizes().iter().position(impossible) {
            let (width, height) = source.sizes()[index];
            return Err(DataError::Extent(source.name(index).into(), width, height));
        }
        let labels = label_map(config, &*source)?;
        Ok(Dataset { source, labels })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.sizes().len()
    }

    /// Never, of the sources of this program.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// (width, height) of every sample, without reading images.
    pub fn sizes(&self) -> &[(u32, u32)] {
        self.source.sizes()
    }

    /// The sample's name: of an image file, its path as the list gives it.
    pub fn name(&self, index: usize) -> &str {
        self.source.name(index)
    }

    /// Identifies the samples, wherever they are: equal sets have equal ids. Shards: the id of index.json; lists: a hash
    /// of the list.
    pub fn id(&self) -> &str {
        self.source.id()
    }

    /// Identifies what the samples' labels mean: equal for equal classes of all raw values, whatever file says so.
    pub fn labels_id(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        self.labels.map.table().iter().for_each(|class| _ = hasher.update(&class.to_le_bytes()));
        hasher.finalize().to_hex().to_string()
    }

    /// From the values in [`Sample::label`] to classes.
    pub fn label_map(&self) -> &LabelMap {
        &self.labels.map
    }

    /// How often each sample is to come, by DATASET.rare_class_sampling; None where all come alike.
    pub fn weights(&self, config: &DatasetConfig) -> Result<Option<Vec<f64>>, DataError> {
        let temperature = config.rare_class_sampling;
        if temperature == 0.0 {
            return Ok(None);
        }
        match (self.class_pixels(), self.source.seen()) {
            (Some(pixels), Some(seen)) => Ok(Some(rare_classes::weights(pixels, &seen, temperature))),
            _ => Err(DataError::Unseen),
        }
    }

    /// Class names, where the set knows them.
    pub fn class_names(&self) -> Option<&[String]> {
        self.source.class_names()
    }

    /// Pixels of each class, where the set knows them and has the label map that they were counted with.
    pub fn class_pixels(&self) -> Option<&[u64]> {
        let counted = self.source.label_map().map_or_else(|| LabelMap::reference(255), |(_, map)| map);
        let same = |raw: u8| self.label_map().class(raw).is_none_or(|class| counted.class(raw) == Some(class));
        self.source.class_pixels().filter(|_| (0..=255).all(same))
    }

    /// Colours of the classes, where the set knows them.
    pub fn palette(&self) -> Option<&[[u8; 3]]> {
        self.source.palette()
    }

    /// Reads and decodes a sample into reused memory.
    pub fn read(&self, index: usize, sample: &mut Sample) -> Result<(), DataError> {
        self.read_image(index, sample)?;
        self.read_label(index, &mut sample.label)
    }

    /// Reads the label alone, into bytes that all have a class.
    pub fn read_label(&self, index: usize, label: &mut Vec<u8>) -> Result<(), DataError> {
        self.source.label(index, label)?;
        self.check_length(index, label.len(), 1)?;
        self.labels.check(|| self.source.label_place(index), label)
    }

    /// Whether labels are read by the reference's rule because nothing says what they mean.
    pub fn guesses_labels(&self, config: &DatasetConfig) -> bool {
        config.label_map.is_empty() && self.source.label_map().is_none() && !self.source.translates()
    }

    /// Reads the image alone (label untouched).
    pub fn read_image(&self, index: usize, sample: &mut Sample) -> Result<(), DataError> {
        (sample.width, sample.height) = self.sizes()[index];
        self.source.image(index, &mut sample.image)?;
        self.check_length(index, sample.image.len(), 3)
    }

    /// Whatever comes after relies on it.
    fn check_length(&self, index: usize, found: usize, channels: usize) -> Result<(), DataError> {
        let (width, height) = self.sizes()[index];
        let expected = width as usize * height as usize * channels;
        if found == expected {
            return Ok(());
        }
        Err(DataError::Pixels { place: self.name(index).into(), found, expected })
    }
}

/// The map that applies, and what to say of values that it lacks.
fn label_map(config: &DatasetConfig, source: &dyn Source) -> Result<LabelRule, DataError> {
    let reference = || label_rule::of_config(&DatasetConfig { label_map: String::new(), ..config.clone() });
    if source.translates() {
        return Ok(reference()?.0);
    }
    if !config.label_map.is_empty() {
        let path = Path::new(&config.label_map);
        return Ok(LabelRule::bytes(label_rule::load(path, Some(config.num_class))?.over_bytes(), path));
    }
    let Some((origin, map)) = source.label_map() else { return Ok(reference()?.0) };
    label_rule::check(&map, config.num_class).map_err(|error| DataError::LabelMap(origin.clone(), error))?;
    Ok(LabelRule::bytes(map, &origin))
}
