//! Layers over named tensors: convolution, batch norm with recorded statistics, keyed dropout.

use std::cell::RefCell;
use tch::Tensor;

/// What a tensor is to the optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A convolution's or linear layer's weight: trained, decays.
    Weight,
    /// A bias, or batch norm's scale and shift: trained, does not decay.
    NoDecay,
    /// A running statistic: saved, never trained.
    Buffer,
}

/// One named tensor.
pub struct Entry {
    /// The reference's state-dict name with `encoder.` or `decoder.` in front.
    pub name: String,
    /// Shares its memory with the layer that uses it.
    pub tensor: Tensor,
    /// How it is trained.
    pub role: Role,
}

/// Named tensors in the order of creation, which is the reference's state-dict order.
#[derive(Default)]
pub struct Store {
    /// In state-dict order.
    pub entries: Vec<Entry>,
}

/// A batch norm layer's tensors, shapes (channels), and the statistics it has seen but not committed.
pub struct BatchNorm2d {
    pub weight: Tensor,
    pub bias: Tensor,
    pub running_mean: Tensor,
    pub running_var: Tensor,
    pub tmp_running_mean: Tensor,
    pub tmp_running_var: Tensor,
    /// Shape (1).
    pub running_iter: Tensor,
    pub momentum: f64,
    pub eps: f64,
    /// (mean, unbiased variance) of every training pass since the last commit.
    pub recorded: RefCell<Vec<(Tensor, Tensor)>>,
}

/// Normalisation by batch statistics: on this rank alone ([`Local`]) or over all ranks (`sync::SyncBatchNorm`).
pub trait Normalize {
    /// Normalises `input` (n, channels, h, w), scales and shifts it, and records mean and unbiased variance.
    fn batch_norm(&self, layer: &BatchNorm2d, input: &Tensor) -> Tensor;
}

/// Batch norm over this rank's batch.
pub struct Local;

impl Normalize for Local {
    fn batch_norm(&self, layer: &BatchNorm2d, input: &Tensor) -> Tensor {
        todo!()
    }
}

/// What a dropout mask is a function of, besides the layer and the channel: the seed, the step, and the index of
/// the batch's first image in the global batch.
#[derive(Clone, Copy, Debug)]
pub struct DropoutKey {
    pub seed: u64,
    pub step: u64,
    pub first: u64,
}
