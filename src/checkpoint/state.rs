//! `state.json`: everything besides tensors that a run's future depends on, under a hash of its own bytes.

use super::CheckpointError;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The version of the checkpoint's format that is written, and the newest that is read.
pub(super) const FORMAT: u32 = 1;

/// All that a run's future depends on besides its tensors and the data set itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the checkpoint's format.
    pub format: u32,
    /// Finished updates; the next one is step + 1.
    pub step: u64,
    /// TRAIN.seed.
    pub seed: u64,
    /// Version of the rule that orders samples.
    pub order_version: u32,
    /// The data set's identity, equal where the samples are.
    pub dataset_id: String,
    /// What its label values mean, equal where the classes are; empty in checkpoints of versions that did not say.
    #[serde(default)]
    pub labels_id: String,
    /// Images in one update.
    pub global_batch: usize,
    /// Ranks that wrote it; any other number may continue.
    pub ranks: usize,
    /// Updates that the optimizer has made: fewer than `step` where some were skipped.
    pub updates: u64,
    /// The loss scale of fp16 training, 1 without.
    pub loss_scale: f64,
    /// Good steps since it changed.
    #[serde(default)]
    pub loss_scale_steps: u64,
    /// Mean IoU of the evaluations made so far.
    pub scores: Vec<Score>,
    /// The resolved configuration, YAML.
    pub config: String,
    /// Names of the classes, by index; empty where unknown.
    pub class_names: Vec<String>,
    /// Colours (red, green, blue) of the classes, by index; empty where unknown.
    pub palette: Vec<[u8; 3]>,
    /// What model.safetensors must be; filled in when it is written.
    #[serde(default)]
    pub model: FileSeal,
    /// What optimizer.safetensors must be; filled in when it is written.
    #[serde(default)]
    pub optimizer: FileSeal,
    /// What statistics.safetensors must be, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<FileSeal>,
    /// What average.safetensors must be, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<FileSeal>,
}

/// The result of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Finished updates at that time.
    pub step: u64,
    /// Mean intersection over union, 0 to 1.
    pub mean_iou: f64,
}

/// Length and hash that a file must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSeal {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content, hexadecimal.
    pub blake3: String,
}

impl Default for State {
    fn default() -> Self {
        State {
            format: FORMAT,
            step: 0,
            seed: 0,
            order_version: 0,
            dataset_id: String::new(),
            labels_id: String::new(),
            global_batch: 0,
            ranks: 1,
            updates: 0,
            loss_scale: 1.0,
            loss_scale_steps: 0,
            scores: Vec::new(),
            config: String::new(),
            class_names: Vec::new(),
            palette: Vec::new(),
            model: FileSeal::default(),
            optimizer: FileSeal::default(),
            statistics: None,
            average: None,
        }
    }
}

impl State {
    /// The file's content: the JSON object, its last key the hash of every byte before that key.
    pub(super) fn seal(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.truncate(text.len() - "\n}".len());
        let seal = seal_of(&text);
        text.extend_from_slice(seal.as_bytes());
        Ok(text)
    }

    /// Reads what [`State::seal`] made; any changed, missing or added byte is an error.
    pub(super) fn open(path: &Path, text: &[u8]) -> Result<State, CheckpointError> {
        let damaged = |cause: &str| CheckpointError::damaged(path, cause);
        let body = text.len().checked_sub(seal_of(b"").len()).ok_or_else(|| damaged("it is cut short"))?;
        let (body, seal) = text.split_at(body);
        if seal != seal_of(body).as_bytes() {
            return Err(damaged("its content does not have the hash it names"));
        }
        let format =
            serde_json::from_slice::<Format>(text).map_err(|error| CheckpointError::damaged(path, error))?.format;
        if format > FORMAT {
            return Err(CheckpointError::Newer { path: path.to_path_buf(), format });
        }
        serde_json::from_slice(text).map_err(|error| CheckpointError::damaged(path, error))
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The end of a state file whose other bytes are `body`; its length does not depend on them.
fn seal_of(body: &[u8]) -> String {
    format!(",\n  \"blake3\": \"{}\"\n}}\n", blake3::hash(body).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(step: u64, config: String) -> State {
        State { step, config, scores: vec![Score { step: 3, mean_iou: 0.25 }], ..State::default() }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_to_the_same(step in any::<u64>(), config in ".{0,60}") {
            let state = state(step, config);
            prop_assert_eq!(State::open(Path::new("state.json"), &state.seal().unwrap()).unwrap(), state);
        }

        #[test]
        fn a_changed_byte_is_seen(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut text = state(7, "MODEL: {}".into()).seal().unwrap();
            let at = at.index(text.len());
            text[at] ^= flip;
            prop_assert!(State::open(Path::new("state.json"), &text).is_err());
        }

        #[test]
        fn any_other_bytes_are_an_error(text in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(State::open(Path::new("state.json"), &text).is_err());
        }
    }

    #[test]
    fn it_is_plain_json() {
        let json: serde_json::Value = serde_json::from_slice(&state(7, String::new()).seal().unwrap()).unwrap();
        assert_eq!(json["step"], 7);
        assert_eq!(json["blake3"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let text = State { format: FORMAT + 1, ..State::default() }.seal().unwrap();
        let error = State::open(Path::new("state.json"), &text).unwrap_err();
        assert!(matches!(error, CheckpointError::Newer { format, .. } if format == FORMAT + 1));
    }
}
