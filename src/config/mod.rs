//! The whole configuration: every section composed, merged, validated, dumped.
//!
//! 1. Defaults come from the sections' `Default`, which reproduce the reference (mit_semseg/config/defaults.py).
//! 2. A YAML file replaces what it names; yacs' habits are understood (`(300, 375)`, `True`, `1e-4`).
//! 3. `KEY VALUE` and `KEY=VALUE` on the command line replace what they name, the last one winning.
//!
//! The section structs are the only list of keys: unknown ones are refused, and help and dump are made from them. A key
//! that may differ where a run is resumed says so where it is declared: `#[schemars(extend("resume" = "free"))]`; a whole
//! section says it in [`Config`]. Each section checks its own values, [`validate`] those that must go together.

mod keys;
mod literal;
mod merge;
mod nearest;
mod nesting;
mod validate;

pub use keys::describe;

use crate::checkpoint::{CheckpointConfig, Rules};
use crate::data::DatasetConfig;
use crate::eval::ValConfig;
use crate::fault::{Failure, Kind};
use crate::model::ModelConfig;
use crate::predict::TestConfig;
use crate::sync::DistConfig;
use crate::train::TrainConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Everything a run is a function of, besides the files it names.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[allow(non_snake_case)]
pub struct Config {
    /// Samples and their order.
    pub DATASET: DatasetConfig,
    /// Network and its first values.
    pub MODEL: ModelConfig,
    /// Recipe.
    pub TRAIN: TrainConfig,
    /// Evaluation.
    #[schemars(extend("resume" = "free"))]
    pub VAL: ValConfig,
    /// Prediction.
    #[schemars(extend("resume" = "free"))]
    pub TEST: TestConfig,
    /// Ranks.
    #[schemars(extend("resume" = "free"))]
    pub DIST: DistConfig,
    /// Checkpoints.
    #[schemars(extend("resume" = "free"))]
    pub CHECKPOINT: CheckpointConfig,
    /// Folder of the run: config.yaml, metrics.jsonl, checkpoints.
    #[schemars(extend("resume" = "free"))]
    pub DIR: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            DATASET: Default::default(),
            MODEL: Default::default(),
            TRAIN: Default::default(),
            VAL: Default::default(),
            TEST: Default::default(),
            DIST: Default::default(),
            CHECKPOINT: Default::default(),
            DIR: "ckpt/ade20k-resnet50dilated-ppm_deepsup".into(),
        }
    }
}

/// Why a configuration is refused. Each is one line that names the file or key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{0}: cannot be read: {1}; name a configuration by --cfg, such as one of configs/")]
    Unreadable(PathBuf, std::io::Error),
    /// The file is not YAML, or not a mapping of sections.
    #[error("{0}: not a configuration: {1}")]
    Malformed(PathBuf, String),
    /// No such key.
    #[error("unknown key {key}{place}; the nearest known key is {nearest}")]
    UnknownKey {
        /// As given.
        key: String,
        /// ` in FILE`, or nothing for the command line.
        place: String,
        /// What was probably meant.
        nearest: String,
    },
    /// A key whose value has another type.
    #[error("{key}{place}: {cause}")]
    BadValue {
        /// The key.
        key: String,
        /// ` in FILE`, or nothing for the command line.
        place: String,
        /// What is wrong with the value.
        cause: String,
    },
    /// An override that is neither KEY VALUE nor KEY=VALUE.
    #[error("{0}: overrides are KEY VALUE or KEY=VALUE, such as TRAIN.num_epoch 10")]
    BadOverride(String),
    /// Values that do not go together.
    #[error("{0}")]
    Inconsistent(String),
}

impl Failure for ConfigError {
    fn kind(&self) -> Kind {
        match self {
            ConfigError::Unreadable(_, cause) => Kind::of(cause),
            _ => Kind::Input,
        }
    }
}

impl Config {
    /// Defaults < `file` < `overrides`, not yet validated.
    pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Config, ConfigError> {
        let mut tree = merge::Tree::defaults();
        if let Some(path) = file {
            let bytes = std::fs::read(path).map_err(|cause| ConfigError::Unreadable(path.into(), cause))?;
            let no_text = |_| ConfigError::Malformed(path.into(), "it is no text; name a YAML file".into());
            let text = String::from_utf8(bytes).map_err(no_text)?;
            tree.merge_file(path, &text)?;
        }
        tree.merge_overrides(overrides)?;
        tree.into_config()
    }

    /// What may differ where a run is resumed, as the keys say.
    pub fn resume_rules() -> Rules {
        keys::resume_rules()
    }

    /// Reads back what [`Config::dump`] wrote.
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let mut tree = merge::Tree::defaults();
        tree.merge_file(Path::new("config.yaml"), text)?;
        tree.into_config()
    }

    /// Every dotted key.
    pub fn keys() -> Vec<String> {
        merge::Tree::defaults().keys()
    }

    /// The configuration with every key written out, as YAML.
    pub fn dump(&self) -> String {
        serde_yaml::to_string(self).expect("plain structs of numbers and strings are YAML")
    }

    /// Checks values against each other; the message names the keys and what to set.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate::validate(self).map_err(ConfigError::Inconsistent)
    }
}
