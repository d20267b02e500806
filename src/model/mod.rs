//! Encoder-decoder networks as the reference defines them (mit_semseg/models), under its tensor names.

pub mod dropout;
pub mod layers;
pub mod summary;
pub mod weights;

mod decoder;
mod encoder;
mod inference;
mod init;
mod path;

pub use inference::EVALUATE;

use decoder::Decoder;
use encoder::Encoder;
use layers::{BatchNorm2d, Context, Store};
use path::{Builder, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
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
    /// Divisor of batch norm by batch statistics: offset (var + eps)^-½, or clamped max(var, eps)^-½.
    pub bn_variance: BnVariance,
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
            weights_encoder: String::new(),
            weights_decoder: String::new(),
            fc_dim: 0,
            pretrained_dir: String::new(),
            init: Init::Pretrained,
            bn_running: BnRunning::Debiased,
            bn_momentum: None,
            bn_variance: BnVariance::Offset,
            skip_mismatched: false,
        }
    }
}

/// Why a network cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A name that does not exist.
    #[error("{key}: there is no \"{name}\"; did you mean \"{nearest}\"? (known: {known})")]
    #[allow(missing_docs)]
    UnknownName { key: &'static str, name: String, nearest: &'static str, known: String },
    /// An encoder and a decoder that do not fit.
    #[error(
        "MODEL.arch_decoder: {decoder} needs {needs} feature maps, and the encoder {encoder} gives {has}; use {instead}"
    )]
    #[allow(missing_docs)]
    Combination { encoder: String, decoder: String, needs: usize, has: usize, instead: &'static str },
    /// MODEL.fc_dim is not the encoder's width.
    #[error("MODEL.fc_dim: {fc_dim} is not the width of {encoder}, which is {width}; set it to that, or to 0")]
    #[allow(missing_docs)]
    Width { encoder: String, fc_dim: usize, width: i64 },
}

impl ModelError {
    fn unknown(key: &'static str, name: &str, known: &[&'static str]) -> Self {
        let distance = |candidate: &&&str| strsim::damerau_levenshtein(&name.to_lowercase(), candidate);
        let nearest = known.iter().min_by_key(distance).copied().unwrap_or_default();
        ModelError::UnknownName { key, name: name.to_string(), nearest, known: known.join(", ") }
    }
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
    let (encoder, decoder) = architectures(config)?;
    Ok(Shape {
        widths: encoder.widths(),
        output_stride: decoder.output_stride(&encoder.strides()),
        deep_supervision: decoder.deep_supervision(),
    })
}

/// The parts that a configuration names, if they exist and fit.
fn architectures(config: &ModelConfig) -> Result<(encoder::Architecture, decoder::Architecture), ModelError> {
    let encoder = encoder::Architecture::parse(&config.arch_encoder)?;
    let decoder = decoder::Architecture::parse(&config.arch_decoder)?;
    let widths = encoder.widths();
    let width = *widths.last().expect("every encoder has a feature map");
    if config.fc_dim != 0 && config.fc_dim as i64 != width {
        return Err(ModelError::Width { encoder: config.arch_encoder.clone(), fc_dim: config.fc_dim, width });
    }
    if widths.len() < decoder.maps() {
        return Err(ModelError::Combination {
            encoder: config.arch_encoder.clone(),
            decoder: config.arch_decoder.clone(),
            needs: decoder.maps(),
            has: widths.len(),
            instead: "c1 or ppm",
        });
    }
    Ok((encoder, decoder))
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
    pub store: Store,
    encoder: Encoder,
    decoder: Decoder,
    norms: Vec<BatchNorm2d>,
    /// Weights of the convolutions before them.
    normed: Vec<Tensor>,
    /// What is left of the batch norms in a network that only evaluates; see [`Network::for_inference`].
    shifts: Vec<Tensor>,
    /// What it was built from.
    config: ModelConfig,
    num_class: usize,
}

impl Network {
    /// Builds the network with the reference's initial values drawn from `seed`.
    pub fn build(config: &ModelConfig, num_class: usize, device: Device, seed: u64) -> Result<Network, ModelError> {
        let _drawing = init::seed(seed);
        Network::assemble(config, num_class, device, true)
    }

    /// The same, in less time, with convolution weights of zero: for a caller who fills in every value.
    pub fn blank(config: &ModelConfig, num_class: usize, device: Device) -> Result<Network, ModelError> {
        Network::assemble(config, num_class, device, false)
    }

    fn assemble(config: &ModelConfig, num_class: usize, device: Device, draw: bool) -> Result<Network, ModelError> {
        let (encoder, decoder) = architectures(config)?;
        let (store, norms, normed, momentum) = (Store::default(), Vec::new(), Vec::new(), config.bn_momentum);
        let builder = RefCell::new(Builder { store, norms, normed, device, draw, momentum });
        let path = Path::new(&builder, "encoder", encoder.initial());
        let widths = encoder.widths();
        let encoder = Encoder::new(&path, &encoder);
        let path = Path::new(&builder, "decoder", init::Initial::Kaiming);
        let decoder = Decoder::new(&path, &decoder, &widths, num_class as i64);
        let Builder { store, norms, normed, .. } = builder.into_inner();
        let (shifts, config) = (Vec::new(), config.clone());
        Ok(Network { store, encoder, decoder, norms, normed, shifts, config, num_class })
    }

    /// Scores of `images`, f32 (n, 3, h, w), normalised; n may be 0.
    pub fn forward(&self, images: &Tensor, pass: &Pass) -> Logits {
        self.run(images, &self.plain_context(pass))
    }

    fn plain_context<'a>(&'a self, pass: &'a Pass) -> Context<'a> {
        Context { pass, norms: &self.norms, shifts: &self.shifts, multiply_adds: None }
    }

    fn run(&self, images: &Tensor, context: &Context) -> Logits {
        self.decoder.forward(&self.encoder.forward(images, context), context)
    }

    /// The encoder's feature maps of `images`, finest first.
    pub fn feature_maps(&self, images: &Tensor, pass: &Pass) -> Vec<Tensor> {
        self.encoder.forward(images, &self.plain_context(pass))
    }

    /// Moves the statistics recorded by the passes since the last call into the running statistics, in order.
    pub fn commit_statistics(&self, rule: BnRunning) {
        tch::no_grad(|| self.norms.iter().for_each(|layer| layer.commit(rule)));
    }

    /// Forgets the statistics recorded since the last commit.
    pub fn discard_statistics(&self) {
        self.norms.iter().for_each(|layer| layer.recorded.borrow_mut().clear());
    }

    /// Mends batch norm layers whose debiasing sums do not stand for their running statistics, as after loading a file
    /// that lacks the sums: the running statistics count. Returns how many there were.
    pub fn reset_debias(&self) -> usize {
        let inconsistent = self.norms.iter().filter(|layer| !layer.is_debias_consistent());
        tch::no_grad(|| inconsistent.map(BatchNorm2d::reset_debias).count())
    }
}
