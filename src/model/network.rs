//! An encoder and a decoder at work.

use super::layers::{self, BatchNorm2d, Context, Store};
use super::path::{Builder, Path, Values};
use super::shape::{encoder_options, fit, rows};
use super::statistics::{Estimate, RunningStatistics, Statistics};
use super::{BnRunning, Decoder, DecoderOptions, DecoderRow, Encoder, EncoderRow, ModelConfig, ModelError};
use super::{init, weights};
use std::cell::{Cell, RefCell};
use tch::{Device, Tensor};

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

/// What a network is built from.
#[derive(Clone)]
pub(super) struct Blueprint {
    encoder: EncoderRow,
    decoder: DecoderRow,
    config: ModelConfig,
    num_class: usize,
}

/// An encoder and a decoder with their parameters and buffers.
pub struct Network {
    /// Every parameter and buffer, in the order of the reference's state dict, `encoder.` first.
    pub store: Store,
    pub(super) encoder: Box<dyn Encoder>,
    /// How many of the encoder's first maps are finer than the decoder has a use for.
    pub(super) hidden: usize,
    pub(super) decoder: Box<dyn Decoder>,
    pub(super) norms: Vec<BatchNorm2d>,
    running: RunningStatistics,
    /// Weights of the convolutions before them, where there is one.
    pub(super) normed: Vec<Option<Tensor>>,
    /// What is left of the batch norms in a network that only evaluates; see [`Network::for_inference`].
    pub(super) shifts: Vec<Option<Tensor>>,
    pub(super) blueprint: Blueprint,
}

impl Network {
    /// Builds the network with the reference's initial values drawn from `seed`.
    pub fn build(config: &ModelConfig, num_class: usize, device: Device, seed: u64) -> Result<Network, ModelError> {
        let (encoder, decoder) = rows(config)?;
        Network::from_rows(&encoder, &decoder, config, num_class, device, seed)
    }

    /// The same from rows that the tables need not hold; `config` is asked for all but their names.
    pub fn from_rows(
        encoder: &EncoderRow,
        decoder: &DecoderRow,
        config: &ModelConfig,
        num_class: usize,
        device: Device,
        seed: u64,
    ) -> Result<Network, ModelError> {
        let _drawing = init::seed(seed);
        let blueprint = Blueprint { encoder: *encoder, decoder: *decoder, config: config.clone(), num_class };
        Network::assemble(blueprint, device, Values::Drawn)
    }

    /// As [`Network::build`], in less time, with weights of zero: for a caller who fills in every value.
    pub fn blank(config: &ModelConfig, num_class: usize, device: Device) -> Result<Network, ModelError> {
        let (encoder, decoder) = rows(config)?;
        Network::assemble(Blueprint { encoder, decoder, config: config.clone(), num_class }, device, Values::Zero)
    }

    /// Names and sizes of a network's tensors, without memory for its weights: something to compare files with.
    pub(super) fn outline(
        encoder: &EncoderRow,
        decoder: &DecoderRow,
        config: &ModelConfig,
        num_class: usize,
    ) -> Result<Store, ModelError> {
        let blueprint = Blueprint { encoder: *encoder, decoder: *decoder, config: config.clone(), num_class };
        Ok(Network::assemble(blueprint, Device::Cpu, Values::Absent)?.store)
    }

    pub(super) fn assemble(blueprint: Blueprint, device: Device, values: Values) -> Result<Network, ModelError> {
        let Blueprint { encoder, decoder, config, num_class } = &blueprint;
        let maps = fit(encoder, decoder, config)?;
        let (store, norms, normed, momentum) = (Store::default(), Vec::new(), Vec::new(), config.bn_momentum);
        let builder = RefCell::new(Builder { store, norms, normed, device, values, momentum });
        let path = Path::new(&builder, "encoder", encoder.plan.initial());
        let published = encoder.plan.decoder_dim(decoder.name);
        let encoder_options = encoder_options(decoder, config);
        let hidden = encoder.plan.maps(&encoder_options).len() - maps.len();
        let encoder = encoder.plan.build(&path, &encoder_options);
        let path = Path::new(&builder, "decoder", decoder.plan.initial());
        let width = Some(config.decoder_dim as i64).filter(|width| *width > 0).or(published);
        let options = DecoderOptions { classes: *num_class as i64, width };
        let decoder = decoder.plan.build(&path, &maps, &options);
        let Builder { store, norms, normed, .. } = builder.into_inner();
        let running = RunningStatistics::new(&norms, device);
        Ok(Network { store, encoder, hidden, decoder, norms, running, normed, shifts: Vec::new(), blueprint })
    }

    /// Scores of `images`, f32 (n, 3, h, w), normalised; n may be 0.
    pub fn forward(&self, images: &Tensor, pass: &Pass) -> Logits {
        self.run(images, pass, None)
    }

    /// The same, counting multiply-adds.
    pub(super) fn run(&self, images: &Tensor, pass: &Pass, multiply_adds: Option<&Cell<u64>>) -> Logits {
        let context = self.context(images, pass, multiply_adds);
        self.decoder.forward(&self.maps(images, &context), &context)
    }

    /// The feature maps of `images` that the decoder takes, finest first.
    pub fn feature_maps(&self, images: &Tensor, pass: &Pass) -> Vec<Tensor> {
        self.maps(images, &self.context(images, pass, None))
    }

    fn maps(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        let mut maps = self.encoder.forward(images, context);
        maps.drain(..self.hidden);
        maps
    }

    pub(super) fn context<'a>(
        &'a self,
        images: &Tensor,
        pass: &'a Pass,
        multiply_adds: Option<&'a Cell<u64>>,
    ) -> Context<'a> {
        let size = images.size();
        Context { pass, size: (size[2], size[3]), norms: &self.norms, shifts: &self.shifts, multiply_adds }
    }

    /// Moves what the passes since the last call have observed into the running statistics, in order.
    pub fn commit_statistics(&self, rule: BnRunning) {
        tch::no_grad(|| self.running.commit(&self.norms, rule));
    }

    /// Steps that the running statistics remember, 95 % of them: 3 ÷ the smallest momentum. None without batch norms.
    pub fn statistics_memory(&self) -> Option<f64> {
        self.running.slowest().map(|momentum| 3.0 / momentum)
    }

    /// Statistics of the present weights, nothing seen yet.
    pub fn estimate_statistics(&self) -> Estimate {
        self.running.estimate()
    }

    /// Adds what the passes since the last call have observed; nothing of it moves into the running statistics.
    pub fn add_statistics(&self, estimate: &Estimate) {
        tch::no_grad(|| self.running.add(&self.norms, estimate));
    }

    /// Evaluates with `estimate` from here on, until what is returned is given to [`Network::restore_statistics`].
    pub fn replace_statistics(&self, estimate: &Estimate) -> Statistics {
        tch::no_grad(|| self.running.replace_by(estimate))
    }

    /// Evaluates with these statistics from here on.
    pub fn restore_statistics(&self, statistics: &Statistics) {
        tch::no_grad(|| self.running.restore(statistics));
    }

    /// Copies of what evaluation normalises with, by name.
    pub fn named_statistics(&self) -> Vec<(String, Tensor)> {
        let all = self.store.variables.iter();
        let evaluated = all.filter(|one| weights::EVALUATED.iter().any(|buffer| one.name.ends_with(buffer)));
        evaluated.map(|one| (one.name.clone(), tch::no_grad(|| one.tensor.copy()))).collect()
    }

    /// The running statistics of all layers, each kind in one tensor whose memory the layers' own share.
    pub fn statistics(&self) -> [Tensor; 5] {
        self.running.tensors()
    }

    /// Forgets what was observed since the last commit.
    pub fn discard_statistics(&self) {
        self.norms.iter().for_each(|layer| layer.observed.borrow_mut().clear());
    }

    /// Mends batch norm layers whose debiasing sums do not stand for their running statistics, as after loading a file
    /// that lacks the sums: the running statistics count. Returns how many there were.
    pub fn reset_debias(&self) -> usize {
        let inconsistent = self.norms.iter().filter(|layer| !layer.is_debias_consistent());
        tch::no_grad(|| inconsistent.map(BatchNorm2d::reset_debias).count())
    }
}
