//! The section MODEL of the configuration.

use crate::fault::require;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which network, and where its first values come from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelConfig {
    /// Encoder, a name of the table in model/encoder: resnet50dilated, mit_b0, convnext_tiny, dinov2_vitb14, …
    pub arch_encoder: String,
    /// Decoder, a name of the table in model/decoder: ppm_deepsup, upernet, segformer, uperhead, unet, …
    pub arch_decoder: String,
    /// First layers of a ResNet: deep, three 3 × 3 convolutions (the reference), or plain, one 7 × 7 (torchvision, timm).
    pub stem: Stem,
    /// Channels inside a segformer or uperhead decoder; 0: as published with the encoder.
    pub decoder_dim: usize,
    /// Share of residual branches dropped in the last block of mit, convnext and dino encoders, less in those before.
    pub drop_path: f64,
    /// Compute the encoder's activations again in backward, stage by stage, instead of keeping them: less memory, a third more
    /// time, the same values.
    #[schemars(extend("resume" = "free"))]
    pub recompute: bool,
    /// Encoder weights to start from (.pth, .safetensors, or a folder of Hugging Face); empty: ImageNet's, or random values.
    #[schemars(extend("resume" = "free"))]
    pub weights_encoder: String,
    /// Decoder weights to start from (the same forms); empty: random values.
    #[schemars(extend("resume" = "free"))]
    pub weights_decoder: String,
    /// Channels between encoder and decoder; 0: the encoder's own width.
    pub fc_dim: usize,
    /// Folder with ImageNet weights under the reference's file names, for when weights_encoder is empty.
    #[schemars(extend("resume" = "free"))]
    pub pretrained_dir: String,
    /// pretrained: ImageNet weights are expected; random: none are wanted.
    #[schemars(extend("resume" = "free"))]
    pub init: Init,
    /// Running statistics: debiased (the reference's multi-GPU rule) or plain (an exponential average).
    pub bn_running: BnRunning,
    /// Momentum of the running statistics of every layer; absent: the network's own.
    pub bn_momentum: Option<f64>,
    /// Batches that batch statistics are taken anew over before an evaluation and at the end, kept beside the running ones;
    /// 0: never (the reference); absent: at most 50, in runs that are shorter than the running statistics' memory.
    #[schemars(extend("resume" = "free"))]
    pub bn_recalibrate: Option<u64>,
    /// Divisor of batch norm by batch statistics: offset (var + eps)^-½, or clamped max(var, eps)^-½.
    pub bn_variance: BnVariance,
    /// Leave tensors of another shape (a head with other classes) at their initial values, and list them.
    pub skip_mismatched: bool,
}

/// MODEL.stem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Stem {
    Deep,
    Plain,
}

/// MODEL.init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Init {
    Pretrained,
    Random,
}

/// MODEL.bn_running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum BnRunning {
    Debiased,
    Plain,
}

/// MODEL.bn_variance: how a batch's variance becomes a divisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BnVariance {
    /// (var + eps)^-½, as everyone does.
    Offset,
    /// max(var, eps)^-½, the reference's multi-GPU path (mit_semseg/lib/nn/modules/batchnorm.py).
    Clamped,
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            arch_encoder: "resnet50dilated".into(),
            arch_decoder: "ppm_deepsup".into(),
            stem: Stem::Deep,
            decoder_dim: 0,
            drop_path: 0.0,
            recompute: false,
            weights_encoder: String::new(),
            weights_decoder: String::new(),
            fc_dim: 0,
            pretrained_dir: String::new(),
            init: Init::Pretrained,
            bn_running: BnRunning::Debiased,
            bn_momentum: None,
            bn_recalibrate: None,
            bn_variance: BnVariance::Offset,
            skip_mismatched: false,
        }
    }
}

impl ModelConfig {
    /// The first value that cannot be meant, in one line that names the key.
    pub fn validate(&self) -> Result<(), String> {
        let momentum = self.bn_momentum.unwrap_or(0.1);
        require(momentum > 0.0 && momentum <= 1.0, || {
            format!("MODEL.bn_momentum is {momentum}: set it to more than 0, at most 1")
        })?;
        require(self.fc_dim <= 1 << 16, || format!("MODEL.fc_dim is {}: set it to at most 65536", self.fc_dim))
    }
}
