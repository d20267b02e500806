//! Encoder-decoder networks as the reference defines them (mit_semseg/models), under its tensor names.

pub mod layers;
pub mod encoder;
pub mod decoder;
pub mod weights;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Which network, and where its first values come from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ModelConfig {
    /// Encoder: mobilenetv2dilated, resnet18|34|50|101, each also dilated, resnext101 or hrnetv2.
    pub arch_encoder: String,
    /// Decoder: c1, c1_deepsup, ppm, ppm_deepsup, upernet or upernet_lite.
    pub arch_decoder: String,
    /// Encoder weights to start from (.pth or .safetensors); empty: ImageNet's, or random values.
    pub weights_encoder: String,
    /// Decoder weights to start from (.pth or .safetensors); empty: random values.
    pub weights_decoder: String,
    /// Channels between encoder and decoder; 0: the encoder's own width.
    pub fc_dim: usize,
    /// Folder with ImageNet weights under the reference's file names, for when weights_encoder is empty.
    pub pretrained_dir: String,
    /// pretrained: ImageNet weights are expected; random: none are wanted.
    pub init: Init,
    /// Running statistics: debiased (the reference's multi-GPU rule) or plain (an exponential average).
    pub bn_running: BnRunning,
    /// Momentum of the running statistics of every layer; absent: the network's own.
    pub bn_momentum: Option<f64>,
    /// Leave tensors of another shape (a head with other classes) at their initial values, and list them.
    pub skip_mismatched: bool,
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

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            arch_encoder: "resnet50dilated".into(),
            arch_decoder: "ppm_deepsup".into(),
            weights_encoder: String::new(),
            weights_decoder: String::new(),
            fc_dim: 0,
            pretrained_dir: String::new(),
            init: Init::Pretrained,
            bn_running: BnRunning::Debiased,
            bn_momentum: None,
            skip_mismatched: false,
        }
    }
}

/// Why a network cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A name or a combination that does not exist.
    #[error("{0}")]
    Unknown(String),
}

/// What the rest of the program needs to know of a network before it is built.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Channels of the encoder's feature maps, first to last.
    pub widths: Vec<i64>,
    /// Input pixels per output pixel, one direction.
    pub output_stride: u32,
    /// Whether the decoder has a second head for deep supervision.
    pub deep_supervision: bool,
}

/// Checks names and combination, without building anything.
pub fn shape(config: &ModelConfig) -> Result<Shape, ModelError> {
    todo!()
}

/// How one forward pass is to be made.
pub struct Pass<'a> {
    /// Batch statistics and dropout (true), or running statistics and none (false: evaluation, TRAIN.fix_bn).
    pub train: bool,
    /// Batch norm over the batch, on one rank or on all; unused when `train` is false.
    pub norm: &'a dyn layers::Normalize,
    /// What dropout's masks are drawn from; None: no dropout.
    pub dropout: Option<layers::DropoutKey>,
    /// Whether the deep supervision head is to be run, where there is one.
    pub deep_supervision: bool,
}

/// The scores of a batch, before softmax, at the network's output stride.
pub struct Logits {
    /// f32 (n, classes, h, w).
    pub main: Tensor,
    /// The deep supervision head's, of the same shape.
    pub deepsup: Option<Tensor>,
}

/// An encoder and a decoder with their parameters and buffers.
pub struct Network {
    /// Every parameter and buffer, in the order of the reference's state dict, `encoder.` first.
    pub store: layers::Store,
}

impl Network {
    /// Builds the network with the reference's initial values drawn from `seed`.
    pub fn build(config: &ModelConfig, num_class: usize, device: Device, seed: u64) -> Result<Network, ModelError> {
        todo!()
    }

    /// Scores of `images`, f32 (n, 3, h, w), normalised.
    pub fn forward(&self, images: &Tensor, pass: &Pass) -> Logits {
        todo!()
    }

    /// Moves the statistics recorded by the passes since the last call into the running statistics, in order.
    pub fn commit_statistics(&self, rule: BnRunning) {
        todo!()
    }

    /// Forgets the statistics recorded since the last commit.
    pub fn discard_statistics(&self) {
        todo!()
    }
}
