//! From the values that label maps store to the classes that a network learns.

use super::source::DataError;
use crate::retry;
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The class of pixels that neither the loss nor the metrics count.
pub const IGNORED: i64 = -1;

const UNMAPPED: i16 = -2;

/// Raw label value → class, [`IGNORED`] or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    table: [i16; 256],
    /// All values below this one are mapped: most label maps are checked against it alone.
    mapped_below: u16,
}

/// Why a text is not a label map. The caller adds the file's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelMapError {
    /// Not YAML, or not one mapping.
    #[error("is not a YAML mapping of label values to classes: {0}")]
    Yaml(String),
    /// A key that no label can have.
    #[error("maps '{0}', which is not a label value from 0 to 255")]
    Key(String),
    /// A value that is neither a class nor `ignore`.
    #[error("maps {0} to '{1}', which is neither a class index from 0 to 255 nor 'ignore'")]
    Class(u8, String),
    /// A class that the network does not have.
    #[error("maps {0} to class {1}, but there are only {2} classes (DATASET.num_class)")]
    AboveNumClass(u8, i16, usize),
}

impl LabelMap {
    /// The rule of the reference (`segm_transform` in mit_semseg/dataset.py): 0 is ignored, k is class k - 1.
    pub fn reference(num_class: usize) -> LabelMap {
        LabelMap::from_fn(|raw| match usize::from(raw) {
            0 => Some(None),
            k if k <= num_class => Some(Some(raw - 1)),
            _ => None,
        })
    }

    /// Reads `raw: class` and `raw: ignore` lines (YAML).
    pub fn parse(yaml: &str) -> Result<LabelMap, LabelMapError> {
        let entries: serde_yaml::Mapping =
            serde_yaml::from_str(yaml).map_err(|error| LabelMapError::Yaml(error.to_string()))?;
        let mut map = BTreeMap::new();
        for (key, value) in &entries {
            let raw = byte(key).ok_or_else(|| LabelMapError::Key(text(key)))?;
            let class = match value {
                Value::String(word) if word == "ignore" => None,
                other => Some(byte(other).ok_or_else(|| LabelMapError::Class(raw, text(other)))?),
            };
            map.insert(raw, class);
        }
        Ok(LabelMap::from_entries(&map))
    }

    /// Reads a label map file; returns its path with it, for messages.
    pub fn load(file: &Path) -> Result<(PathBuf, LabelMap), DataError> {
        let text =
            retry::read(file, || fs::read_to_string(file)).map_err(|error| DataError::Read(file.into(), error))?;
        let map = LabelMap::parse(&text).map_err(|error| DataError::LabelMap(file.into(), error))?;
        Ok((file.into(), map))
    }

    /// The map with these entries: raw value → class, None for ignored.
    pub fn from_entries(entries: &BTreeMap<u8, Option<u8>>) -> LabelMap {
        LabelMap::from_fn(|raw| entries.get(&raw).copied())
    }

    /// What [`LabelMap::from_entries`] takes.
    pub fn entries(&self) -> BTreeMap<u8, Option<u8>> {
        let entry = |raw: u8| Some((raw, u8::try_from(self.class(raw)?).ok()));
        (0..=255).filter_map(entry).collect()
    }

    /// The class of a raw value, [`IGNORED`], or None where the map has no entry.
    pub fn class(&self, raw: u8) -> Option<i64> {
        let class = self.table[usize::from(raw)];
        (class != UNMAPPED).then_some(class.into())
    }

    /// The classes of all 256 raw values: -1 ignored, -2 no entry. A label that [`LabelMap::first_unmapped`] passed
    /// never meets a -2.
    pub fn table(&self) -> &[i16; 256] {
        &self.table
    }

    /// The first value of a label that has no entry.
    pub fn first_unmapped(&self, label: &[u8]) -> Option<u8> {
        // The maximum is a vectorised loop, the search is not.
        let largest = label.iter().copied().max().unwrap_or(0);
        if u16::from(largest) < self.mapped_below {
            return None;
        }
        label.iter().copied().find(|&raw| self.table[usize::from(raw)] == UNMAPPED)
    }

    /// An error if the map has a class that is not below `num_class`.
    pub fn check(&self, num_class: usize) -> Result<(), LabelMapError> {
        let above = (0..=255u8)
            .map(|raw| (raw, self.table[usize::from(raw)]))
            .find(|&(_, c)| c >= 0 && c as usize >= num_class);
        above.map_or(Ok(()), |(raw, class)| Err(LabelMapError::AboveNumClass(raw, class, num_class)))
    }

    fn from_fn(entry: impl Fn(u8) -> Option<Option<u8>>) -> LabelMap {
        let table = std::array::from_fn(|raw| match entry(raw as u8) {
            None => UNMAPPED,
            Some(None) => IGNORED as i16,
            Some(Some(class)) => class.into(),
        });
        let mapped_below = table.iter().position(|&class| class == UNMAPPED).unwrap_or(256) as u16;
        LabelMap { table, mapped_below }
    }
}

fn byte(value: &Value) -> Option<u8> {
    value.as_u64().and_then(|number| u8::try_from(number).ok())
}

fn text(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default().trim().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_reference_ignores_0_and_shifts_the_rest_by_one() {
        let map = LabelMap::reference(150);
        assert_eq!(map.class(0), Some(IGNORED));
        assert_eq!(map.class(1), Some(0));
        assert_eq!(map.class(150), Some(149));
        assert_eq!(map.class(151), None);
        assert_eq!(map.first_unmapped(&[0, 150, 151, 200]), Some(151));
        assert_eq!(map.first_unmapped(&[0, 150]), None);
        assert_eq!(LabelMap::reference(255).class(255), Some(254));
    }

    #[test]
    fn yaml_gives_classes_and_ignored_values() {
        let map = LabelMap::parse("7: 0\n8: 1\n255: ignore\n").unwrap();
        assert_eq!((map.class(7), map.class(8), map.class(255), map.class(0)), (Some(0), Some(1), Some(IGNORED), None));
        assert_eq!(map.first_unmapped(&[7, 255, 9]), Some(9));
        assert_eq!(map.check(2), Ok(()));
        assert_eq!(map.check(1), Err(LabelMapError::AboveNumClass(8, 1, 1)));
    }

    #[test]
    fn what_is_wrong_in_a_map_is_named() {
        assert!(matches!(LabelMap::parse("- 1"), Err(LabelMapError::Yaml(_))));
        assert!(matches!(LabelMap::parse("1: 2\n1: 3"), Err(LabelMapError::Yaml(_))));
        assert_eq!(LabelMap::parse("256: 0"), Err(LabelMapError::Key("256".into())));
        assert_eq!(LabelMap::parse("3: void"), Err(LabelMapError::Class(3, "void".into())));
        assert_eq!(LabelMap::parse("3: -1"), Err(LabelMapError::Class(3, "-1".into())));
    }

    proptest! {
        #[test]
        fn entries_make_the_same_map_again(entries: BTreeMap<u8, Option<u8>>, label: Vec<u8>) {
            let map = LabelMap::from_entries(&entries);
            prop_assert_eq!(&map.entries(), &entries);
            let first = label.iter().copied().find(|raw| !entries.contains_key(raw));
            prop_assert_eq!(map.first_unmapped(&label), first);
        }
    }
}
