//! All-or-nothing checkpoints: saved beside a running job, checked before they are believed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When checkpoints are written and which are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CheckpointConfig {
    /// Epochs between checkpoints; 0: none for this reason.
    pub every_epochs: u64,
    /// Steps between checkpoints; 0: none for this reason.
    pub every_steps: u64,
    /// Minutes between checkpoints; 0: none for this reason.
    pub every_minutes: f64,
    /// How many of the newest are kept.
    pub keep_last: usize,
    /// How many of the best by mean IoU are kept besides.
    pub keep_best: usize,
    /// Failed writes in a row after which the run stops with code 1.
    pub max_failures: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { every_epochs: 1, every_steps: 0, every_minutes: 0.0, keep_last: 3, keep_best: 1, max_failures: 3 }
    }
}
