//! Label map files: what raw label values and colours mean, with names and colours of the classes.
//!
//! ```yaml
//! "#404040": 0      # a colour, or
//! 300: 1            # a value from 0 to 65535: a class index, or
//! 65535: ignore     # no class
//! default: ignore   # all that is not named; without it they are refused
//! nearest: 12       # a value that is not named counts as the nearest one, up to this distance
//! names: [road, car]
//! colors: ["#404040", "#0000ff"]
//! ```

use super::decode::{self, RawLabel, Values};
use super::label_map::LabelMap;
use serde_yaml::Value;
use std::collections::{BTreeMap, HashMap};

/// Largest class index that a label of one byte holds beside "ignored".
const MAX_CLASS: u64 = 254;

/// What a label file stores for a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Raw {
    /// A grey value or a palette index.
    Value(u16),
    /// RGB.
    Color([u8; 3]),
}

/// A label map file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelFile {
    entries: BTreeMap<Raw, Option<u8>>,
    default: Option<Option<u8>>,
    nearest: u32,
    /// Class names, by class index; empty where the file has none.
    pub names: Vec<String>,
    /// Colours, by class index; empty where the file has none.
    pub colors: Vec<[u8; 3]>,
}

/// Why a text is not a label map. The caller adds the file's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelMapError {
    /// Not YAML, or not one mapping.
    #[error("is not a YAML mapping of label values to classes: {0}")]
    Yaml(String),
    /// A key that no label can have.
    #[error("maps '{0}', which is neither a label value from 0 to 65535 nor a colour such as \"#c80000\" (in quotes)")]
    Key(String),
    /// A value that is neither a class nor `ignore`.
    #[error("maps {0} to '{1}', which is neither a class index from 0 to 254 nor 'ignore'")]
    Class(String, String),
    /// A class that the network does not have.
    #[error("maps {0} to class {1}, but there are only {2} classes (DATASET.num_class)")]
    AboveNumClass(String, u8, usize),
    /// `default`, `nearest`, `names` or `colors` of another form.
    #[error("{0} {1}")]
    Extra(&'static str, &'static str),
}

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Raw::Value(value) => write!(f, "{value}"),
            Raw::Color(color) => f.write_str(&decode::hex(*color)),
        }
    }
}

impl LabelFile {
    /// Reads a label map (YAML).
    pub fn parse(yaml: &str) -> Result<LabelFile, LabelMapError> {
        let mapping: serde_yaml::Mapping = serde_yaml::from_str(yaml.trim_start_matches('\u{feff}'))
            .map_err(|error| LabelMapError::Yaml(error.to_string()))?;
        let mut file = LabelFile::default();
        for (key, value) in &mapping {
            match key.as_str() {
                Some("default") => file.default = Some(class("default", value)?),
                Some("nearest") => {
                    let distance = value.as_u64().and_then(|distance| u32::try_from(distance).ok());
                    file.nearest = distance.ok_or(LabelMapError::Extra("nearest", "is no whole number"))?;
                }
                Some("names") => file.names = names(value)?,
                Some("colors") => file.colors = colors(value)?,
                _ => {
                    let raw = raw(key).ok_or_else(|| LabelMapError::Key(text(key)))?;
                    file.entries.insert(raw, class(&raw.to_string(), value)?);
                }
            }
        }
        if !file.colors.is_empty() && !file.names.is_empty() && file.colors.len() != file.names.len() {
            return Err(LabelMapError::Extra("colors", "has not as many entries as names"));
        }
        Ok(file)
    }

    /// Takes values that the map does not name for the nearest one that it names, up to this distance.
    pub fn accept_nearest(&mut self, distance: u32) {
        self.nearest = distance;
    }

    /// The map of one-byte labels, where this file says nothing that needs more than that.
    pub fn byte_map(&self) -> Option<LabelMap> {
        let entry = |(raw, class): (&Raw, &Option<u8>)| match raw {
            Raw::Value(value) => Some((u8::try_from(*value).ok()?, *class)),
            Raw::Color(_) => None,
        };
        let plain = self.default.is_none() && self.nearest == 0;
        let entries: Option<BTreeMap<u8, Option<u8>>> = self.entries.iter().map(entry).collect();
        entries.filter(|_| plain).map(|entries| LabelMap::from_entries(&entries))
    }

    /// What the file says of labels that are bytes already.
    pub fn over_bytes(&self) -> LabelMap {
        LabelMap::from_fn(|byte| self.lookup(Raw::Value(byte.into())))
    }

    /// The number of classes: as many as names, else one more than the highest that the map leads to.
    pub fn num_class(&self) -> usize {
        let classes = self.entries.values().chain(&self.default).flatten();
        self.names.len().max(classes.map(|&class| usize::from(class) + 1).max().unwrap_or(0))
    }

    /// An error if the map has a class that is not below `num_class`.
    pub fn check(&self, num_class: usize) -> Result<(), LabelMapError> {
        let named = self.entries.iter().map(|(raw, class)| (raw.to_string(), class));
        let all = named.chain(self.default.iter().map(|class| ("default".to_string(), class)));
        for (raw, class) in all {
            if let Some(class) = class.filter(|&class| usize::from(class) >= num_class) {
                return Err(LabelMapError::AboveNumClass(raw, class, num_class));
            }
        }
        Ok(())
    }

    /// Turns raw values into bytes of the reference's rule, class + 1 and 0 for ignored, as [`LabelMap::reference`]
    /// reads them.
    ///
    /// # Errors
    /// What has no meaning, in words that follow the file's name and "has".
    pub fn translate(&self, label: RawLabel, bytes: &mut Vec<u8>) -> Result<(), String> {
        if label.lossy && self.nearest == 0 {
            return Err(decode::DecodeError::LossyLabel(label.format).to_string());
        }
        bytes.clear();
        let by_color = self.entries.keys().any(|raw| matches!(raw, Raw::Color(_)));
        let mut seen = Seen { file: self, known: HashMap::new(), unknown: BTreeMap::new() };
        match label.values {
            Values::Byte(values) => {
                let raw = |value: u8| match label.palette.get(usize::from(value)) {
                    Some(&color) if by_color => Raw::Color(color),
                    _ if by_color && label.palette.is_empty() => Raw::Color([value; 3]),
                    _ => Raw::Value(value.into()),
                };
                let mut counts = [0u64; 256];
                values.iter().for_each(|&value| counts[usize::from(value)] += 1);
                let mut table = [0; 256];
                for (value, &count) in (0..=255u8).zip(&counts).filter(|(_, count)| **count > 0) {
                    table[usize::from(value)] = seen.byte(raw(value), count);
                }
                bytes.extend(values.iter().map(|&value| table[usize::from(value)]));
            }
            Values::Word(values) => seen.runs(values.into_iter().map(Raw::Value), bytes),
            Values::Color(colors) => {
                let grey = !by_color && colors.iter().all(|[r, g, b]| r == g && g == b);
                let raw = |color: [u8; 3]| if grey { Raw::Value(color[0].into()) } else { Raw::Color(color) };
                seen.runs(colors.into_iter().map(raw), bytes);
            }
        }
        seen.end(label.lossy)
    }

    /// The class of a raw value; None where it has none.
    fn lookup(&self, raw: Raw) -> Option<Option<u8>> {
        if let Some(class) = self.entries.get(&raw) {
            return Some(*class);
        }
        let near = self.nearest(raw).filter(|(distance, _)| self.nearest > 0 && *distance <= self.nearest.into());
        near.map(|(_, known)| self.entries[&known]).or(self.default)
    }

    /// The nearest named value of the same kind, and how far it is: Euclid's distance in RGB.
    fn nearest(&self, raw: Raw) -> Option<(f64, Raw)> {
        let distance = |known: &Raw| match (raw, known) {
            (Raw::Value(a), Raw::Value(b)) => Some(f64::from(a.abs_diff(*b))),
            (Raw::Color(a), Raw::Color(b)) => {
                let square = |(a, b): (u8, u8)| f64::from(a.abs_diff(b)).powi(2);
                Some(a.into_iter().zip(*b).map(square).sum::<f64>().sqrt())
            }
            _ => None,
        };
        let all = self.entries.keys().filter_map(|known| Some((distance(known)?, *known)));
        all.min_by(|a, b| a.0.total_cmp(&b.0))
    }
}

/// What one label file holds, looked up once for each value.
struct Seen<'a> {
    file: &'a LabelFile,
    known: HashMap<Raw, u8>,
    unknown: BTreeMap<Raw, u64>,
}

impl Seen<'_> {
    /// The byte that `count` pixels of one value become.
    fn byte(&mut self, raw: Raw, count: u64) -> u8 {
        if let Some(&byte) = self.known.get(&raw) {
            return byte;
        }
        match self.file.lookup(raw) {
            Some(class) => {
                let byte = class.map_or(0, |class| class + 1);
                self.known.insert(raw, byte);
                byte
            }
            None => {
                *self.unknown.entry(raw).or_insert(0) += count;
                0
            }
        }
    }

    /// Neighbours are mostly equal, so values are looked up run by run.
    fn runs(&mut self, raws: impl Iterator<Item = Raw>, bytes: &mut Vec<u8>) {
        let mut raws = raws.peekable();
        while let Some(raw) = raws.next() {
            let mut count = 1;
            while raws.next_if_eq(&raw).is_some() {
                count += 1;
            }
            let byte = self.byte(raw, count);
            bytes.resize(bytes.len() + count as usize, byte);
        }
    }

    fn end(self, lossy: bool) -> Result<(), String> {
        if self.unknown.is_empty() {
            return Ok(());
        }
        const LISTED: usize = 6;
        let mut unknown: Vec<(Raw, u64)> = self.unknown.into_iter().collect();
        unknown.sort_by_key(|&(raw, count)| (std::cmp::Reverse(count), raw));
        let near = |raw: Raw| match self.file.nearest(raw) {
            Some((distance, known)) => format!(", nearest {known} at distance {distance:.0}"),
            None => String::new(),
        };
        let listed: Vec<String> =
            unknown.iter().take(LISTED).map(|&(raw, count)| format!("{raw} ({count} pixels{})", near(raw))).collect();
        let more = unknown.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        // What JPEG makes of flat colours: many values, most of them near one that is named.
        let close = unknown.iter().filter(|(raw, _)| self.file.nearest(*raw).is_some_and(|(d, _)| d <= 48.0)).count();
        let blurred = unknown.len() >= 8 && close * 2 > unknown.len();
        let hint = match blurred || lossy {
            true => {
                "; these look like the traces of JPEG compression or smoothing: save labels without loss, or pack \
                     with --nearest-color N, which takes the nearest value that is named, up to the distance N"
            }
            false => "; name them in the label map, or add default: ignore",
        };
        Err(format!("has values without a class: {}{more}{hint}", listed.join(", ")))
    }
}

fn raw(key: &Value) -> Option<Raw> {
    match key {
        Value::String(text) => color(text).map(Raw::Color),
        other => other.as_u64().and_then(|value| u16::try_from(value).ok()).map(Raw::Value),
    }
}

/// `#rrggbb`.
pub fn color(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.is_ascii())?;
    let [_, r, g, b] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
    Some([r, g, b])
}

fn class(key: &str, value: &Value) -> Result<Option<u8>, LabelMapError> {
    if value.as_str() == Some("ignore") {
        return Ok(None);
    }
    let class = value.as_u64().filter(|&class| class <= MAX_CLASS).map(|class| class as u8);
    class.map(Some).ok_or_else(|| LabelMapError::Class(key.into(), text(value)))
}

fn names(value: &Value) -> Result<Vec<String>, LabelMapError> {
    let form = LabelMapError::Extra("names", "is no list of class names");
    let entries = value.as_sequence().ok_or(form)?;
    Ok(entries.iter().map(|name| name.as_str().map_or_else(|| text(name), str::to_string)).collect())
}

fn colors(value: &Value) -> Result<Vec<[u8; 3]>, LabelMapError> {
    let form = || LabelMapError::Extra("colors", "is no list of colours such as \"#c80000\"");
    let entries = value.as_sequence().ok_or_else(form)?;
    entries.iter().map(|entry| entry.as_str().and_then(color).ok_or_else(form)).collect()
}

fn text(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default().trim().replace('\n', " ")
}

#[cfg(test)]
mod tests;
