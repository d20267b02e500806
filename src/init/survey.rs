//! One look at every image and label.

use super::gather::{Gathered, Known, Part, Sample};
use crate::bad_input;
use crate::data::decode::{self, RawLabel, Values};
use crate::data::label_file::Raw;
use crate::data::walk::read_file;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// More different values than this in one label are no classes; what is beyond is not counted.
const MAX_VALUES: usize = 1 << 17;

/// A sample that can be trained on.
pub struct Sound {
    pub sample: Sample,
    /// (width, height) of image and label.
    pub size: (u32, u32),
    /// Pixels of each raw value, in the order in which they appear.
    pub values: Vec<(Raw, u64)>,
}

/// What a set is.
pub struct Survey {
    pub sound: Vec<Sound>,
    pub known: Known,
    pub beside: Vec<PathBuf>,
    pub images_alone: Vec<String>,
    pub labels_alone: Vec<String>,
    pub notes: Vec<String>,
    /// Samples that are left out, and why.
    pub problems: Vec<String>,
    /// Colours of palette indices, where all labels agree.
    pub palette: Vec<[u8; 3]>,
    /// Labels in a format that loses something.
    pub lossy: usize,
    /// Images that are the same byte for byte as one before.
    duplicates: Vec<(String, String)>,
    turned: usize,
    formats: BTreeMap<String, usize>,
}

/// What one sample turned out to be.
struct Look {
    size: (u32, u32),
    label: RawLabel,
    hash: blake3::Hash,
    turned: bool,
}

/// Reads everything.
pub fn look(gathered: Gathered) -> anyhow::Result<Survey> {
    let Gathered { samples, known, beside, images_alone, labels_alone, notes } = gathered;
    let bar = ProgressBar::new(samples.len() as u64);
    let mut survey = Survey {
        sound: Vec::new(),
        known,
        beside,
        images_alone,
        labels_alone,
        notes,
        problems: Vec::new(),
        palette: Vec::new(),
        lossy: 0,
        duplicates: Vec::new(),
        turned: 0,
        formats: BTreeMap::new(),
    };
    let mut palettes = BTreeMap::new();
    let mut hashes: HashMap<blake3::Hash, String> = HashMap::new();
    let mut samples = samples.into_iter();
    loop {
        // Decoded labels are kept for one chunk only.
        let chunk: Vec<Sample> = samples.by_ref().take(8 * rayon::current_num_threads()).collect();
        if chunk.is_empty() {
            break;
        }
        let looks: Vec<_> = chunk.par_iter().map(|sample| Look::at(sample).inspect(|_| bar.inc(1))).collect();
        for (sample, look) in chunk.into_iter().zip(looks) {
            match look {
                Err(problem) => survey.problems.push(problem),
                Ok(look) => survey.add(sample, look, &mut palettes, &mut hashes),
            }
        }
    }
    bar.finish_and_clear();
    if survey.sound.is_empty() {
        let first = survey.problems.first().or(survey.images_alone.first()).cloned().unwrap_or_default();
        bad_input!("no image has a sound label of its size; the first: {first}");
    }
    survey.unify(palettes);
    Ok(survey)
}

impl Look {
    fn at(sample: &Sample) -> Result<Look, String> {
        let named = |path: &Path, cause: &dyn std::fmt::Display| format!("{}: {cause}", path.display());
        let mut bytes = Vec::new();
        read_file(&sample.label, &mut bytes).map_err(|error| named(&sample.label, &error))?;
        let label = decode::raw_label(&bytes).map_err(|error| named(&sample.label, &error))?;
        read_file(&sample.image, &mut bytes).map_err(|error| named(&sample.image, &error))?;
        let mut rgb = Vec::new();
        let decoded = decode::image_of_size(&bytes, &mut rgb, label.size);
        let (size, turned) = decoded.map_err(|error| named(&sample.image, &error))?;
        if size != label.size {
            let ((w, h), (label_w, label_h)) = (size, label.size);
            return Err(named(&sample.image, &format!("is {w} x {h} pixels, but its label {label_w} x {label_h}")));
        }
        Ok(Look { size, label, hash: blake3::hash(&bytes), turned })
    }
}

impl Survey {
    fn add(
        &mut self,
        sample: Sample,
        look: Look,
        palettes: &mut BTreeMap<u16, Option<[u8; 3]>>,
        hashes: &mut HashMap<blake3::Hash, String>,
    ) {
        let Look { size, label, hash, turned } = look;
        match hashes.get(&hash) {
            Some(other) => self.duplicates.push((sample.name.clone(), other.clone())),
            None => _ = hashes.insert(hash, sample.name.clone()),
        }
        self.turned += usize::from(turned);
        self.lossy += usize::from(label.lossy);
        let kind = match (&label.values, label.palette.is_empty()) {
            (Values::Byte(_), true) => "values of up to 8 bits",
            (Values::Byte(_), false) => "palette indices",
            (Values::Word(_), _) => "values of more than 8 bits",
            (Values::Color(_), _) => "colours",
        };
        *self.formats.entry(kind.into()).or_insert(0) += 1;
        let palette = label.palette;
        let values = match label.values {
            Values::Byte(values) => counted(values.into_iter().map(|value| Raw::Value(value.into()))),
            Values::Word(values) => counted(values.into_iter().map(Raw::Value)),
            Values::Color(colors) => counted(colors.into_iter().map(Raw::Color)),
        };
        for (raw, _) in &values {
            let Raw::Value(index) = *raw else { continue };
            let color = palette.get(usize::from(index)).copied();
            let known = palettes.entry(index).or_insert(color);
            if *known != color {
                *known = None;
            }
        }
        self.sound.push(Sound { sample, size, values });
    }

    /// Three equal channels everywhere are values; a palette in which all agree gives colours.
    fn unify(&mut self, palettes: BTreeMap<u16, Option<[u8; 3]>>) {
        let all = || self.sound.iter().flat_map(|sound| &sound.values);
        let grey = all().all(|(raw, _)| is_grey(*raw));
        if grey {
            for sound in &mut self.sound {
                for (raw, _) in &mut sound.values {
                    if let Raw::Color([value, ..]) = *raw {
                        *raw = Raw::Value(value.into());
                    }
                }
            }
        }
        if let Some((&last, _)) = palettes.last_key_value()
            && palettes.values().all(Option::is_some)
            && last < 256
        {
            self.palette =
                (0..=last).map(|index| palettes.get(&index).copied().flatten().unwrap_or_default()).collect();
        }
    }

    /// Pixels of all labels.
    pub fn pixels(&self) -> u64 {
        self.sound.iter().flat_map(|sound| &sound.values).map(|(_, count)| count).sum()
    }

    /// Pixels of each raw value, in the order in which they appear.
    pub fn values(&self) -> Vec<(Raw, u64)> {
        let mut places: HashMap<Raw, usize> = HashMap::new();
        let mut values: Vec<(Raw, u64)> = Vec::new();
        for &(raw, count) in self.sound.iter().flat_map(|sound| &sound.values) {
            let place = *places.entry(raw).or_insert_with(|| {
                values.push((raw, 0));
                values.len() - 1
            });
            values[place].1 += count;
        }
        values
    }

    /// Edges of all images: smallest, median and largest, short and long.
    pub fn sizes(&self) -> serde_json::Value {
        let (short, long) = (self.edges(|(w, h)| w.min(h)), self.edges(|(w, h)| w.max(h)));
        json!({ "short": short, "long": long })
    }

    /// Smallest, median and largest of an edge.
    pub fn edges(&self, edge: impl Fn((u32, u32)) -> u32) -> [u32; 3] {
        let mut edges: Vec<u32> = self.sound.iter().map(|sound| edge(sound.size)).collect();
        edges.sort_unstable();
        [edges[0], edges[edges.len() / 2], edges[edges.len() - 1]]
    }

    /// What labels hold, in words.
    pub fn kind(&self) -> String {
        let kinds: Vec<String> = self.formats.iter().map(|(kind, count)| format!("{kind} in {count}")).collect();
        kinds.join(", ")
    }

    /// What is doubtful about files and pairs.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = self.notes.clone();
        let mut tell = |names: Vec<&str>, what: &str| {
            if let Some(first) = names.first() {
                doubts.push(format!("{} {what} (first: {first})", names.len()));
            }
        };
        fn texts(texts: &[String]) -> Vec<&str> {
            texts.iter().map(String::as_str).collect()
        }
        tell(texts(&self.images_alone), "images have no label and are left out");
        tell(texts(&self.labels_alone), "labels have no image");
        tell(texts(&self.problems), "samples are left out");
        let twice: Vec<String> = self.duplicates.iter().map(|(name, other)| format!("{name} is {other}")).collect();
        tell(texts(&twice), "images are copies of others, byte for byte");
        let one: Vec<&str> = self.sound.iter().filter(|sound| sound.values.len() == 1).map(Sound::name).collect();
        tell(one, "labels hold one value only");
        if self.turned > 0 {
            doubts.push(format!("{} images are turned upright as EXIF asks, like their labels", self.turned));
        }
        if self.lossy > 0 {
            doubts.push(format!("{} labels are in a format that changes values near edges (JPEG)", self.lossy));
        }
        doubts
    }
}

impl Sound {
    fn name(&self) -> &str {
        &self.sample.name
    }

    /// The part that the data set itself gives the sample to.
    pub fn part(&self) -> Option<Part> {
        self.sample.part
    }
}

fn is_grey(raw: Raw) -> bool {
    match raw {
        Raw::Value(_) => true,
        Raw::Color([r, g, b]) => r == g && g == b,
    }
}

/// Counts values run by run.
fn counted(raws: impl Iterator<Item = Raw>) -> Vec<(Raw, u64)> {
    let mut places: HashMap<Raw, usize> = HashMap::new();
    let mut values: Vec<(Raw, u64)> = Vec::new();
    let mut raws = raws.peekable();
    while let Some(raw) = raws.next() {
        let mut count = 1;
        while raws.next_if_eq(&raw).is_some() {
            count += 1;
        }
        match places.get(&raw) {
            Some(&place) => values[place].1 += count,
            None if values.len() < MAX_VALUES => {
                places.insert(raw, values.len());
                values.push((raw, count));
            }
            None => {}
        }
    }
    values
}
