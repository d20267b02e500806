//! index.json: which shards make the set, and what is known of its classes.

use super::{Fault, ShardError, entry};
use crate::durable;
use crate::retry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The name of the index in its folder.
pub const INDEX_FILE: &str = "index.json";

const CRC_KEY: &str = ",\n  \"crc32\": \"";
const END: &str = "\"\n}\n";

/// One shard, as index.json lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInfo {
    /// Name in the set's folder.
    pub file: String,
    /// Number of records.
    pub records: u32,
    /// Length.
    pub bytes: u64,
    /// CRC of the header, which through the CRCs in it stands for all of the shard but its padding.
    pub header_crc32: u32,
    /// BLAKE3 of the file, hexadecimal.
    pub blake3: String,
}

/// What a raw label value means: a class or `"ignore"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Meaning {
    Class(u8),
    Word(Ignore),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ignore {
    Ignore,
}

/// What a set knows of its classes.
#[derive(Default)]
pub struct Classes {
    /// By class index, where they are known.
    pub names: Option<Vec<String>>,
    /// Colours by class index, where they are known.
    pub palette: Option<Vec<[u8; 3]>>,
    /// Raw value → class, None for ignored; without it 0 is ignored and k is class k - 1.
    pub label_map: Option<BTreeMap<u8, Option<u8>>>,
    /// Labels were translated to classes when they were packed.
    pub translated: bool,
    /// Pixels of each class.
    pub pixels: Vec<u64>,
    /// Pixels of no class.
    pub ignored: u64,
    /// The classes that each record shows, record by record.
    pub seen: Vec<Vec<u8>>,
}

/// The contents of index.json.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    format: String,
    version: u32,
    records: u64,
    dataset_id: String,
    /// In the order of the samples.
    pub shards: Vec<ShardInfo>,
    /// Class names, by class index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Colours, by class index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub palette: Option<Vec<[u8; 3]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label_map: Option<BTreeMap<u8, Meaning>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    translated: bool,
    /// Pixels of each class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<Vec<u64>>,
    /// Pixels of no class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<u64>,
    /// The classes that each record shows: a hexadecimal digit for every four, class 0 the first digit's lowest bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Vec<String>>,
    #[serde(default, skip_serializing)]
    crc32: String,
}

impl Index {
    /// The index of these shards.
    pub fn new(shards: Vec<ShardInfo>, classes: Classes) -> Index {
        let meaning = |class: Option<u8>| class.map_or(Meaning::Word(Ignore::Ignore), Meaning::Class);
        let Classes { names, palette, label_map, translated, pixels, ignored, seen } = classes;
        let label_map = label_map.map(|map| map.into_iter().map(|(raw, class)| (raw, meaning(class))).collect());
        let records = shards.iter().map(|shard| u64::from(shard.records)).sum();
        let (format, version) = ("segdist".to_string(), entry::VERSION);
        let seen = (!seen.is_empty()).then(|| seen.iter().map(|classes| digits(classes)).collect());
        let (classes, pixels, ignored) = (names, Some(pixels), Some(ignored));
        let rest = Index::default();
        let mut index = Index {
            format,
            version,
            records,
            shards,
            classes,
            palette,
            label_map,
            translated,
            pixels,
            ignored,
            seen,
            ..rest
        };
        index.dataset_id = index.id();
        index
    }

    /// Identifies the set: equal samples with equal classes have equal ids.
    pub fn dataset_id(&self) -> &str {
        &self.dataset_id
    }

    /// Raw value → class, None for ignored; None where the set has no label map.
    pub fn label_map(&self) -> Option<BTreeMap<u8, Option<u8>>> {
        let class = |meaning: &Meaning| match meaning {
            Meaning::Class(class) => Some(*class),
            Meaning::Word(Ignore::Ignore) => None,
        };
        self.label_map.as_ref().map(|map| map.iter().map(|(&raw, meaning)| (raw, class(meaning))).collect())
    }

    /// Whether labels are stored as class + 1, 0 for ignored, because label files held something else than bytes.
    pub fn translated(&self) -> bool {
        self.translated
    }

    /// The classes that each record shows, record by record; None in sets that were packed before it was written down.
    pub fn seen(&self) -> Option<Vec<Vec<u8>>> {
        let seen = self.seen.as_ref().filter(|seen| seen.len() as u64 == self.records)?;
        seen.iter().map(|digits| classes_of(digits)).collect()
    }

    /// Writes index.json into `dir`, complete or not at all.
    pub fn write(&self, dir: &Path) -> Result<(), ShardError> {
        let file = dir.join(INDEX_FILE);
        let mut text = self.json();
        text.truncate(text.len() - "\n}".len());
        text += CRC_KEY;
        let crc = crc32fast::hash(text.as_bytes());
        text += &format!("{crc:08x}{END}");
        durable::write(&file, text.as_bytes()).map_err(|error| ShardError::new(&file, error.into()))
    }

    /// Reads and checks index.json in `dir`.
    pub fn read(dir: &Path) -> Result<Index, ShardError> {
        let file = dir.join(INDEX_FILE);
        let read = || match fs::read(&file) {
            Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(Fault::NoIndex),
            bytes => Index::parse(&bytes?),
        };
        retry::read(&file, read).map_err(|fault| ShardError::new(&file, fault))
    }

    fn parse(bytes: &[u8]) -> Result<Index, Fault> {
        let body = bytes.strip_suffix(END.as_bytes()).ok_or(Fault::IndexCrc)?;
        let (covered, digits) = body.split_at_checked(body.len().saturating_sub(8)).ok_or(Fault::IndexCrc)?;
        if !covered.ends_with(CRC_KEY.as_bytes()) || digits != format!("{:08x}", crc32fast::hash(covered)).as_bytes() {
            return Err(Fault::IndexCrc);
        }
        let form = |what: &str| Fault::IndexForm(what.into());
        // Before anything else: another version may have other fields.
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| form(&error.to_string()))?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        match version {
            Some(1) => {}
            Some(other) => return Err(Fault::Version(other.try_into().unwrap_or(u32::MAX))),
            None => return Err(form("it has no version")),
        }
        let mut index: Index = serde_json::from_value(value).map_err(|error| form(&error.to_string()))?;
        index.crc32.clear();
        index.check().map_err(form)?;
        Ok(index)
    }

    fn check(&self) -> Result<(), &'static str> {
        let records: u64 = self.shards.iter().map(|shard| u64::from(shard.records)).sum();
        if self.format != "segdist" {
            return Err("its format is not segdist");
        }
        if records == 0 || records != self.records || records > u32::MAX.into() {
            return Err("the number of records is not that of its shards");
        }
        if self.shards.iter().any(|shard| shard.file.contains('/') || shard.file.starts_with('.')) {
            return Err("a shard's name is not a plain file name");
        }
        if self.dataset_id != self.id() {
            return Err("dataset_id is not that of its contents");
        }
        Ok(())
    }

    /// The hash of all but the id itself and the counts.
    fn id(&self) -> String {
        // Counts follow from the rest, and sets that were packed before there were any keep their id.
        let anonymous = Index { dataset_id: String::new(), pixels: None, ignored: None, seen: None, ..self.clone() };
        blake3::hash(anonymous.json().as_bytes()).to_hex().to_string()
    }

    fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and integers always serialize")
    }
}

/// See [`Index::seen`].
fn digits(classes: &[u8]) -> String {
    let digit = |four: u8| (0..4).filter(|bit| classes.contains(&(4 * four + bit))).map(|bit| 1 << bit).sum::<u32>();
    let count = classes.iter().max().map_or(0, |last| last / 4 + 1);
    (0..count).filter_map(|four| char::from_digit(digit(four), 16)).collect()
}

fn classes_of(digits: &str) -> Option<Vec<u8>> {
    let mut classes = Vec::new();
    for (four, digit) in digits.chars().enumerate().take(64) {
        let bits = digit.to_digit(16)?;
        classes.extend((0..4).filter(|bit| bits >> bit & 1 == 1).map(|bit| 4 * four as u8 + bit));
    }
    Some(classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_classes_of_a_record_come_back(classes in prop::collection::btree_set(any::<u8>(), 0..40)) {
            let classes: Vec<u8> = classes.into_iter().collect();
            prop_assert_eq!(classes_of(&digits(&classes)), Some(classes));
        }
    }
}
