//! The recipe's timetable: TRAIN's keys, and the learning rate as a pure function of the step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the network is trained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrainConfig {
    /// Images in one micro-batch, what one rank runs at once.
    pub batch_size_per_gpu: usize,
    /// Images in one update; 0: batch_size_per_gpu times the ranks of the first start. Kept when a run is resumed.
    pub global_batch: usize,
    /// Epochs to train for.
    pub num_epoch: u64,
    /// Epoch to start from, with the reference's encoder_epoch_N.pth and decoder_epoch_N.pth in DIR.
    pub start_epoch: u64,
    /// Updates in one epoch, whatever the length of the list.
    pub epoch_iters: u64,
    /// The optimizer: SGD or AdamW.
    pub optim: Optim,
    /// Base learning rate of the encoder.
    pub lr_encoder: f64,
    /// Base learning rate of the decoder.
    pub lr_decoder: f64,
    /// Power of the poly schedule: lr = base · (1 − step ÷ steps)^lr_pow.
    pub lr_pow: f64,
    /// Momentum of SGD, beta1 of AdamW.
    pub beta1: f64,
    /// Weight decay of convolution and linear weights; biases and batch norm have none.
    pub weight_decay: f64,
    /// Weight of the deep supervision loss.
    pub deep_sup_scale: f64,
    /// Keep the network in evaluation mode: running statistics instead of the batch's, no dropout.
    pub fix_bn: bool,
    /// Threads that decode and resize images on each rank; at most the cores it may use.
    pub workers: usize,
    /// Steps between two display lines and two "train" lines of metrics.jsonl.
    pub disp_iter: u64,
    /// Seed of the order, the augmentation, dropout and random initial values.
    pub seed: u64,
    /// Label of padded pixels: -1 ignores them; 0 trains them as class 0, as the reference does by mistake.
    pub padding_label: i64,
    /// global: one mean over all ranks' labelled pixels; per_rank: the reference's mean of every rank's mean.
    pub loss_norm: LossNorm,
    /// Mixed precision: off, bf16, or fp16 with a loss scale that follows overflows (for GPUs; few CPUs have it, the
    /// others convert).
    pub amp: Amp,
    /// The first loss scale with amp fp16, a power of two.
    pub loss_scale: f64,
    /// Keep images and weights in channels-last memory order.
    pub channels_last: bool,
    /// Largest global gradient norm; 0: no clipping.
    pub clip_norm: f64,
    /// On a non-finite loss or gradient: stop, or skip that update on all ranks.
    pub on_nonfinite: OnNonfinite,
    /// With on_nonfinite skip: updates skipped in a row after which the run stops.
    pub max_skips: u64,
    /// Checkpoint and end with code 75 after this many minutes; 0: no limit.
    pub max_minutes: f64,
}

/// TRAIN.optim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Optim {
    SGD,
    AdamW,
}

/// TRAIN.loss_norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LossNorm {
    Global,
    PerRank,
}

/// TRAIN.amp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Amp {
    Off,
    Bf16,
    Fp16,
}

impl Amp {
    /// The type that convolutions and matrix products compute in, where it is not f32.
    pub fn kind(self) -> Option<tch::Kind> {
        match self {
            Amp::Off => None,
            Amp::Bf16 => Some(tch::Kind::BFloat16),
            Amp::Fp16 => Some(tch::Kind::Half),
        }
    }
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
            optim: Optim::SGD,
            lr_encoder: 0.02,
            lr_decoder: 0.02,
            lr_pow: 0.9,
            beta1: 0.9,
            weight_decay: 1e-4,
            deep_sup_scale: 0.4,
            fix_bn: false,
            workers: 16,
            disp_iter: 20,
            seed: 304,
            padding_label: -1,
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
    /// Micro-batches in an update, once its global batch is resolved.
    pub fn micro_batches(&self) -> usize {
        self.global_batch.div_ceil(self.batch_size_per_gpu)
    }

    /// Updates in the whole run.
    pub fn total_steps(&self) -> u64 {
        self.num_epoch * self.epoch_iters
    }
}

/// The factor of the base learning rate after `step` finished updates of `total`: (1 − step ÷ total)^power.
///
/// train.py `adjust_learning_rate` of the reference; the poly policy of DeepLab (arXiv 1606.00915).
pub fn poly(step: u64, total: u64, power: f64) -> f64 {
    (1.0 - step as f64 / total.max(1) as f64).max(0.0).powf(power)
}

#[cfg(test)]
mod tests {
    use super::poly;

    #[test]
    fn the_learning_rate_falls_from_base_to_zero() {
        assert_eq!(poly(0, 100, 0.9), 1.0);
        assert_eq!(poly(100, 100, 0.9), 0.0);
        assert!((poly(50, 100, 0.9) - 0.5f64.powf(0.9)).abs() < 1e-15);
    }
}
