//! TRAIN: the recipe's numbers.

use crate::fault::require;
use crate::loss::{LossConfig, LossNorm};
use crate::optim::{Amp, Factors, LossScale, Optim, Rule};
use crate::schedule::{self, Curve, Schedule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the network is trained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrainConfig {
    /// Images in one micro-batch, what one rank runs at once.
    pub batch_size_per_gpu: usize,
    /// Images in one update; 0: batch_size_per_gpu times the ranks of the first start. Kept when a run is resumed.
    #[schemars(extend("resume" = "kept"))]
    pub global_batch: usize,
    /// Epochs to train for.
    #[schemars(extend("resume" = "extended"))]
    pub num_epoch: u64,
    /// Epoch to start from, with the reference's encoder_epoch_N.pth and decoder_epoch_N.pth in DIR.
    pub start_epoch: u64,
    /// Updates in one epoch, whatever the length of the list.
    #[schemars(extend("resume" = "extended"))]
    pub epoch_iters: u64,
    /// Passes over the training data to train for, each of them an epoch: sets num_epoch and epoch_iters; 0: they count.
    #[schemars(extend("resume" = "extended"))]
    pub epochs_of_data: u64,
    /// The optimizer: SGD or AdamW.
    pub optim: Optim,
    /// Base learning rate of the encoder.
    pub lr_encoder: f64,
    /// Base learning rate of the decoder.
    pub lr_decoder: f64,
    /// How the learning rate falls from its base: poly (to 0, with the power lr_pow), cosine (to 0) or constant.
    pub schedule: Curve,
    /// Power of the poly schedule: lr = base · (1 − step ÷ steps)^lr_pow.
    pub lr_pow: f64,
    /// Steps of a linear warm-up around the schedule; 0: none.
    pub warmup_steps: u64,
    /// Part of the schedule's learning rate that the warm-up starts from.
    pub warmup_factor: f64,
    /// Momentum of SGD, beta1 of AdamW.
    pub beta1: f64,
    /// beta2 of AdamW.
    pub beta2: f64,
    /// What AdamW adds to its divisor.
    pub eps: f64,
    /// Factors on learning rates by tensors' names: {decoder: 10} or {"encoder.*.norm": 0.1}; `*` stands for anything, a
    /// name for all below it, and of the patterns that match the longest counts.
    pub lr_factors: BTreeMap<String, f64>,
    /// Factor on the learning rate for each layer between a parameter and the decoder, in transformers by blocks, in
    /// ConvNeXt by stages as in mmsegmentation; 1: none.
    pub layer_decay: f64,
    /// Tensors that are not trained, by patterns as in lr_factors: [encoder]. Batch norms among them keep their statistics.
    pub freeze: Vec<String>,
    /// Keep an exponential average of parameters and running statistics, of which each update leaves this part (0.999 …
    /// 0.9999; less in the first updates), evaluate it and save it beside them; 0: none.
    pub ema: f64,
    /// Weight decay of convolution and linear weights; biases, norms, tokens and position embeddings have none.
    pub weight_decay: f64,
    /// Weight of the deep supervision loss.
    pub deep_sup_scale: f64,
    /// Keep the network in evaluation mode: running statistics instead of the batch's, no dropout.
    pub fix_bn: bool,
    /// Threads that decode and resize images on each rank; at most the cores it may use.
    #[schemars(extend("resume" = "free"))]
    pub workers: usize,
    /// Steps between two display lines and two "train" lines of metrics.jsonl.
    #[schemars(extend("resume" = "free"))]
    pub disp_iter: u64,
    /// Seed of the order, the augmentation, dropout and random initial values.
    pub seed: u64,
    /// Label of padded pixels: -1 ignores them; 0 trains them as class 0, as the reference does by mistake.
    pub padding_label: i64,
    /// A loss (ce, ohem, focal, dice, lovasz) or a weighted sum, [ce 1.0, dice 3.0], with parameters as in
    /// {ce: {smoothing: 0.1, class_weights: balanced}, dice: {weight: 3.0, over: batch}}.
    #[schemars(with = "String")]
    pub loss: LossConfig,
    /// global: one loss over all ranks' labelled pixels; per_rank: the reference's mean of every micro-batch's loss.
    pub loss_norm: LossNorm,
    /// Mixed precision: off, bf16, or fp16 with a loss scale that follows overflows (for GPUs; few CPUs have it, the
    /// others convert).
    pub amp: Amp,
    /// The first loss scale with amp fp16, a power of two.
    #[schemars(extend("resume" = "free"))]
    pub loss_scale: f64,
    /// Keep images and weights in channels-last memory order.
    pub channels_last: bool,
    /// Largest global gradient norm; 0: no clipping.
    pub clip_norm: f64,
    /// On a non-finite loss or gradient: stop, or skip that update on all ranks.
    #[schemars(extend("resume" = "free"))]
    pub on_nonfinite: OnNonfinite,
    /// With on_nonfinite skip: updates skipped in a row after which the run stops.
    #[schemars(extend("resume" = "free"))]
    pub max_skips: u64,
    /// Checkpoint and end with code 75 after this many minutes; 0: no limit.
    #[schemars(extend("resume" = "free"))]
    pub max_minutes: f64,
}

/// TRAIN.on_nonfinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum OnNonfinite {
    Stop,
    Skip,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            batch_size_per_gpu: 2,
            global_batch: 0,
            num_epoch: 20,
            start_epoch: 0,
            epoch_iters: 5000,
            epochs_of_data: 0,
            optim: Optim::SGD,
            lr_encoder: 0.02,
            lr_decoder: 0.02,
            schedule: Curve::Poly,
            lr_pow: 0.9,
            warmup_steps: 0,
            warmup_factor: 0.001,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            lr_factors: BTreeMap::new(),
            layer_decay: 1.0,
            freeze: Vec::new(),
            ema: 0.0,
            weight_decay: 1e-4,
            deep_sup_scale: 0.4,
            fix_bn: false,
            workers: 16,
            disp_iter: 20,
            seed: 304,
            padding_label: -1,
            loss: LossConfig::default(),
            loss_norm: LossNorm::Global,
            amp: Amp::Off,
            loss_scale: 65536.0,
            channels_last: false,
            clip_norm: 0.0,
            on_nonfinite: OnNonfinite::Stop,
            max_skips: 10,
            max_minutes: 0.0,
        }
    }
}

impl TrainConfig {
    /// Images in an update of so many ranks that are not told otherwise by a checkpoint.
    pub fn global_batch_on(&self, ranks: usize) -> usize {
        match self.global_batch {
            0 => self.batch_size_per_gpu * ranks,
            images => images,
        }
    }

    /// The same with epochs_of_data counted out, where a pass over the data takes so many steps.
    pub fn counted(&self, steps_per_pass: u64) -> TrainConfig {
        match self.epochs_of_data {
            0 => self.clone(),
            passes => TrainConfig { num_epoch: passes, epoch_iters: steps_per_pass, ..self.clone() },
        }
    }

    /// Updates in the whole run.
    pub fn total_steps(&self) -> u64 {
        self.num_epoch * self.epoch_iters
    }

    /// What updates are made by.
    pub fn rule(&self) -> Rule {
        let TrainConfig { optim, beta1, beta2, eps, weight_decay, .. } = *self;
        Rule { optim, beta1, beta2, eps, weight_decay }
    }

    /// What single learning rates are multiplied by.
    pub fn factors(&self) -> Factors {
        Factors { patterns: self.lr_factors.clone(), layer_decay: self.layer_decay }
    }

    /// The factor of both learning rates, step by step.
    pub fn schedule(&self) -> Box<dyn Schedule> {
        let curve = schedule::of(self.schedule, self.total_steps(), self.lr_pow);
        schedule::warmed_up(curve, self.warmup_steps, self.warmup_factor)
    }

    /// The loss scale of the first step.
    pub fn first_loss_scale(&self) -> LossScale {
        LossScale::new(self.amp, self.loss_scale)
    }

    /// The first thing that is wrong, in one line that says which key to set to what.
    pub fn validate(&self) -> Result<(), String> {
        require((1..=65536).contains(&self.batch_size_per_gpu), || {
            format!("TRAIN.batch_size_per_gpu is {}: set it to 1 … 65536", self.batch_size_per_gpu)
        })?;
        require(self.global_batch <= 1 << 24, || {
            format!("TRAIN.global_batch is {}: set it to at most {}", self.global_batch, 1 << 24)
        })?;
        require(self.num_epoch > 0 && self.epoch_iters > 0, || {
            "TRAIN.num_epoch and TRAIN.epoch_iters must be at least 1".into()
        })?;
        require(self.num_epoch.checked_mul(self.epoch_iters).is_some(), || {
            "TRAIN.num_epoch times TRAIN.epoch_iters is more steps than can be counted".into()
        })?;
        require(self.epochs_of_data <= 1 << 24, || {
            format!("TRAIN.epochs_of_data is {}: set it to at most {}", self.epochs_of_data, 1 << 24)
        })?;
        require(self.epochs_of_data == 0 || self.start_epoch == 0, || {
            "TRAIN.start_epoch counts epochs of TRAIN.epoch_iters: set TRAIN.epochs_of_data to 0 beside it".into()
        })?;
        require(self.start_epoch <= self.num_epoch, || {
            format!("TRAIN.start_epoch is {}: set it to at most TRAIN.num_epoch ({})", self.start_epoch, self.num_epoch)
        })?;
        require(self.disp_iter > 0, || "TRAIN.disp_iter is 0: set it to at least 1".into())?;
        for (key, value) in [
            ("lr_encoder", self.lr_encoder),
            ("lr_decoder", self.lr_decoder),
            ("lr_pow", self.lr_pow),
            ("weight_decay", self.weight_decay),
            ("deep_sup_scale", self.deep_sup_scale),
            ("eps", self.eps),
            ("clip_norm", self.clip_norm),
            ("max_minutes", self.max_minutes),
        ] {
            require(value >= 0.0 && value.is_finite(), || format!("TRAIN.{key} is {value}: set it to 0 or more"))?;
        }
        self.loss.validate().map_err(|problem| format!("TRAIN.loss: {problem}"))?;
        let exact = self.loss_scale.to_bits() & ((1 << 52) - 1) == 0 && (1.0..=1e18).contains(&self.loss_scale);
        require(exact, || format!("TRAIN.loss_scale is {}: set it to a power of two, such as 65536", self.loss_scale))?;
        require((0.0..=1.0).contains(&self.warmup_factor), || {
            format!("TRAIN.warmup_factor is {}: set it to 0 … 1", self.warmup_factor)
        })?;
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2), ("ema", self.ema)] {
            require((0.0..1.0).contains(&beta), || format!("TRAIN.{key} is {beta}: set it to 0 … 1"))?;
        }
        for (pattern, factor) in &self.lr_factors {
            require(*factor >= 0.0 && factor.is_finite(), || {
                format!("TRAIN.lr_factors: {pattern} has the factor {factor}: set it to 0 or more")
            })?;
        }
        require(self.layer_decay > 0.0 && self.layer_decay <= 1.0, || {
            format!("TRAIN.layer_decay is {}: set it to more than 0, at most 1", self.layer_decay)
        })
    }
}
