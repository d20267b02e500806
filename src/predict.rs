//! Label maps and overlays for images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The reference's keys for its test script; `--checkpoint` and `--out` of predict come before them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TestConfig {
    /// Images at once.
    pub batch_size: usize,
    /// Suffix of the reference's weight files in DIR.
    pub checkpoint: String,
    /// Folder for results.
    pub result: String,
}

impl Default for TestConfig {
    fn default() -> Self {
        TestConfig { batch_size: 1, checkpoint: "epoch_20.pth".into(), result: "./".into() }
    }
}
