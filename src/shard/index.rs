//! index.json: which shards make the set, and what is known of its classes.

use super::{Fault, ShardError, entry};
use crate::durable;
use crate::retry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
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
    #[serde(default, skip_serializing)]
    crc32: String,
}

impl Index {
    /// The index of these shards; `label_map` is raw value → class, None for ignored.
    pub fn new(
        shards: Vec<ShardInfo>,
        classes: Option<Vec<String>>,
        palette: Option<Vec<[u8; 3]>>,
        label_map: Option<BTreeMap<u8, Option<u8>>>,
    ) -> Index {
        let meaning = |class: Option<u8>| class.map_or(Meaning::Word(Ignore::Ignore), Meaning::Class);
        let label_map = label_map.map(|map| map.into_iter().map(|(raw, class)| (raw, meaning(class))).collect());
        let records = shards.iter().map(|shard| u64::from(shard.records)).sum();
        let (format, version) = ("segdist".to_string(), entry::VERSION);
        let mut index = Index { format, version, records, shards, classes, palette, label_map, ..Index::default() };
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
        let read = || Index::parse(&fs::read(&file)?);
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

    /// The hash of all but the id itself.
    fn id(&self) -> String {
        let anonymous = Index { dataset_id: String::new(), ..self.clone() };
        blake3::hash(anonymous.json().as_bytes()).to_hex().to_string()
    }

    fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and integers always serialize")
    }
}
