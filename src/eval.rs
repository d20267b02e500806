//! Evaluation: one integer confusion matrix over all ranks.

pub use crate::metrics::Iou;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a network is evaluated.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ValConfig {
    /// Images of equal shape that are evaluated at once.
    pub batch_size: usize,
    /// Write an overlay of every image to DIR/overlays.
    pub visualize: bool,
    /// Suffix of the reference's weight files in DIR: encoder_<this> and decoder_<this>.
    pub checkpoint: String,
    /// Mean IoU over all classes as the reference counts it (absent classes are 0), or over the present ones.
    pub iou: Iou,
    /// Epochs between evaluations during training; 0: only at the end.
    pub every_epochs: u64,
    /// Side of a sliding window in pixels; 0: the whole image at once.
    pub window: u32,
    /// Step of the sliding window; 0: two thirds of it.
    pub stride: u32,
    /// Average with the mirrored image.
    pub flip: bool,
    /// Report boundary IoU too.
    pub boundary: bool,
}

impl Default for ValConfig {
    fn default() -> Self {
        ValConfig {
            batch_size: 1,
            visualize: false,
            checkpoint: "epoch_20.pth".into(),
            iou: Iou::Reference,
            every_epochs: 0,
            window: 0,
            stride: 0,
            flip: false,
            boundary: false,
        }
    }
}
