//! Layers over named tensors: convolution, batch norm with observed statistics; the layers of transformers.

mod context;
mod tokens;

pub use context::Context;
pub use tokens::{DropPath, LayerNorm, LayerScale, Linear, attention, from_tokens, to_tokens};

use super::path::Path;
pub use super::statistics::Observation;
use super::{Initial, Pass};
use crate::comm::CommError;
use std::cell::RefCell;
use tch::{Device, Kind, Tensor};

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
pub struct Variable {
    /// The reference's state-dict name with `encoder.` or `decoder.` in front.
    pub name: String,
    /// Shares its memory with the layer that uses it.
    pub tensor: Tensor,
    /// How it is trained.
    pub role: Role,
    /// Layers between it and the decoder, as layer-wise decay of learning rates counts them: 0 in most networks.
    pub above: u32,
}

/// Named tensors in the order of creation, which is the reference's state-dict order.
#[derive(Default)]
pub struct Store {
    /// In state-dict order.
    pub variables: Vec<Variable>,
}

impl Store {
    /// Every tensor by its name, sharing memory.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        self.variables.iter().map(|variable| (variable.name.clone(), variable.tensor.shallow_clone())).collect()
    }
}

/// What a dropout mask is a function of, besides the layer and the channel.
#[derive(Clone, Copy, Debug)]
pub struct DropoutKey {
    /// TRAIN.seed.
    pub seed: u64,
    /// The update that the pass belongs to.
    pub step: u64,
    /// Index of the batch's first image in the global batch.
    pub first: u64,
}

/// Bilinear, corners not aligned; `size`: height and width.
pub fn resize(x: &Tensor, size: &[i64]) -> Tensor {
    x.upsample_bilinear2d(size, false, None, None)
}

/// What a convolution is made of; its padding keeps the size at stride 1 for odd kernels.
#[derive(Clone, Copy)]
pub struct ConvShape {
    inputs: i64,
    outputs: i64,
    kernel: i64,
    stride: i64,
    dilation: i64,
    groups: i64,
    padded: bool,
}

impl ConvShape {
    /// `kernel`: side of the square.
    pub fn new(inputs: i64, outputs: i64, kernel: i64) -> Self {
        ConvShape { inputs, outputs, kernel, stride: 1, dilation: 1, groups: 1, padded: true }
    }

    /// The same that gives every `stride`th row and column.
    pub fn stride(self, stride: i64) -> Self {
        ConvShape { stride, ..self }
    }

    /// The same with its inputs `dilation` pixels apart.
    pub fn dilation(self, dilation: i64) -> Self {
        ConvShape { dilation, ..self }
    }

    /// The same in `groups` parts that do not see each other.
    pub fn groups(self, groups: i64) -> Self {
        ConvShape { groups, ..self }
    }

    /// Of squares of `inputs` channels side by side; what does not fill a square at the right and bottom is left out.
    pub fn patches(inputs: i64, outputs: i64, side: i64) -> Self {
        ConvShape { stride: side, padded: false, ..ConvShape::new(inputs, outputs, side) }
    }

    fn padding(self) -> i64 {
        if self.padded { self.dilation * (self.kernel - 1) / 2 } else { 0 }
    }
}

/// A convolution.
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    shape: ConvShape,
}

impl Conv2d {
    /// Without bias, as before a batch norm.
    pub fn new(path: &Path, shape: ConvShape) -> Self {
        let size = Self::weight_shape(shape);
        let weight = path.drawn("weight", &size, Role::Weight, |initial| initial.conv_weight(size, shape.groups));
        Conv2d { weight, bias: None, shape }
    }

    /// With bias, as the last layer of a head.
    pub fn with_bias(path: &Path, shape: ConvShape) -> Self {
        let conv = Conv2d::new(path, shape);
        let draw = |initial: Initial| initial.conv_bias(Self::weight_shape(shape));
        let bias = path.drawn("bias", &[shape.outputs], Role::NoDecay, draw);
        Conv2d { bias: Some(bias), ..conv }
    }

    fn weight_shape(shape: ConvShape) -> [i64; 4] {
        [shape.outputs, shape.inputs / shape.groups, shape.kernel, shape.kernel]
    }

    /// (n, inputs, h, w) to (n, outputs, h ÷ stride, w ÷ stride), rounded up for odd kernels.
    pub fn forward(&self, x: &Tensor, context: &Context) -> Tensor {
        self.forward_shifted(x, self.bias.as_ref(), context)
    }

    /// The same with another bias.
    fn forward_shifted(&self, x: &Tensor, bias: Option<&Tensor>, context: &Context) -> Tensor {
        let ConvShape { stride, dilation, groups, .. } = self.shape;
        let padding = self.shape.padding();
        let y = x.conv2d(&self.weight, bias, [stride, stride], [padding, padding], [dilation, dilation], groups);
        self.count(&y, context);
        y
    }

    /// Counts the multiply-adds that one image of the output `y` (n, outputs, h, w) takes; n may be 0.
    fn count(&self, y: &Tensor, context: &Context) {
        let size = y.size();
        context.count(self.weight.numel() as i64 * size[2] * size[3]);
    }
}

/// A batch norm layer's tensors, shapes (channels), and what it has seen since the running statistics moved.
pub struct BatchNorm2d {
    /// Scale.
    pub weight: Tensor,
    /// Shift.
    pub bias: Tensor,
    /// What evaluation normalises with.
    pub running_mean: Tensor,
    /// What evaluation normalises with.
    pub running_var: Tensor,
    /// Decaying sum of means; divided by `running_iter` it is `running_mean`.
    pub tmp_running_mean: Tensor,
    /// Decaying sum of unbiased variances; divided by `running_iter` it is `running_var`.
    pub tmp_running_var: Tensor,
    /// Decaying count of observations, shape (1).
    pub running_iter: Tensor,
    /// Weight of a new observation.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
    /// What every training pass since the last commit has seen.
    pub observed: RefCell<Vec<Observation>>,
}

impl BatchNorm2d {
    fn new(path: &Path, channels: i64, momentum: f64) -> Self {
        let zeros = || Tensor::zeros([channels], (Kind::Float, Device::Cpu));
        let ones = || Tensor::ones([channels], (Kind::Float, Device::Cpu));
        let weight = path.parameter("weight", ones(), Role::NoDecay);
        let bias = path.parameter("bias", path.initial.norm_bias(channels), Role::NoDecay);
        let running_mean = path.buffer("running_mean", zeros());
        let running_var = path.buffer("running_var", ones());
        // Never counted by the reference's layer, but part of its files.
        let _ = path.buffer("num_batches_tracked", Tensor::from(0i64));
        BatchNorm2d {
            weight,
            bias,
            running_mean,
            running_var,
            tmp_running_mean: path.buffer("_tmp_running_mean", zeros()),
            tmp_running_var: path.buffer("_tmp_running_var", ones()),
            running_iter: path.buffer("_running_iter", Tensor::from_slice(&[1f32])),
            momentum,
            eps: 1e-5,
            observed: RefCell::default(),
        }
    }

    fn forward(&self, x: &Tensor, pass: &Pass) -> Tensor {
        // A layer that is not trained (TRAIN.freeze) keeps its statistics.
        if pass.train && self.weight.requires_grad() {
            return pass.norm.batch_norm(self, x);
        }
        let (mean, var) = (Some(&self.running_mean), Some(&self.running_var));
        x.batch_norm(Some(&self.weight), Some(&self.bias), mean, var, false, self.momentum, self.eps, true)
    }

    /// Weight and bias of a convolution that does what one of `weight` and then this layer do in evaluation.
    pub(super) fn fold(&self, weight: &Tensor) -> (Tensor, Tensor) {
        let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        let scale = double(&self.weight) / (double(&self.running_var) + self.eps).sqrt();
        let shift = double(&self.bias) - double(&self.running_mean) * &scale;
        let weight = double(weight) * scale.view([-1, 1, 1, 1]);
        (weight.to_kind(Kind::Float), shift.to_kind(Kind::Float))
    }

    /// Keeps what a training pass has seen, for the next commit.
    pub fn observe(&self, observation: Observation) {
        self.observed.borrow_mut().push(observation);
    }

    /// Whether the decaying sums stand for the running statistics, to the accuracy of their quotient.
    pub(super) fn is_debias_consistent(&self) -> bool {
        let agree = |sum: &Tensor, running: &Tensor| sum.allclose(&(running * &self.running_iter), 1e-4, 1e-6, false);
        agree(&self.tmp_running_mean, &self.running_mean) && agree(&self.tmp_running_var, &self.running_var)
    }

    /// Makes the decaying sums stand for the running statistics.
    pub(super) fn reset_debias(&self) {
        assign(&self.tmp_running_mean, &(&self.running_mean * &self.running_iter));
        assign(&self.tmp_running_var, &(&self.running_var * &self.running_iter));
    }
}

fn assign(target: &Tensor, value: &Tensor) {
    target.shallow_clone().copy_(value);
}

/// Normalisation by batch statistics: on this rank alone ([`Local`]) or over all ranks (`sync::SyncBatchNorm`).
pub trait Normalize {
    /// Normalises `input` (n, channels, h, w), scales and shifts it, and has the layer observe its statistics.
    fn batch_norm(&self, layer: &BatchNorm2d, input: &Tensor) -> Tensor;

    /// Why the other ranks could not be reached since the last call, in forward or backward. From then on results are of
    /// the right shape and mean nothing.
    fn failure(&self) -> Option<CommError> {
        None
    }
}

/// Batch norm over this rank's batch.
pub struct Local;

impl Normalize for Local {
    fn batch_norm(&self, layer: &BatchNorm2d, input: &Tensor) -> Tensor {
        // With momentum 1, libtorch leaves the batch's own mean and unbiased variance in the running tensors.
        let both = Tensor::zeros([2, layer.weight.size()[0]], (layer.weight.kind(), input.device()));
        let (mean, var) = (both.get(0), both.get(1));
        let (weight, bias) = (Some(&layer.weight), Some(&layer.bias));
        let output = input.batch_norm(weight, bias, Some(&mean), Some(&var), true, 1.0, layer.eps, true);
        // One value has no variance (a pyramid's 1 × 1 cell of a batch of one): nothing to learn from it.
        let size = input.size();
        if size[0] * size[2] * size[3] > 1 {
            layer.observe(Observation { mean, variance: var, count: None });
        }
        output
    }
}

/// A batch norm by itself, by its index in [`Context`].
pub struct Norm(usize);

impl Norm {
    /// Over (n, channels, h, w).
    pub fn new(path: &Path, channels: i64) -> Self {
        Norm::after(path, channels, None)
    }

    /// After the convolution of `weight`.
    fn after(path: &Path, channels: i64, weight: Option<&Tensor>) -> Self {
        let momentum = path.builder.borrow().momentum.unwrap_or(path.initial.norm_momentum());
        let layer = BatchNorm2d::new(path, channels, momentum);
        let builder = &mut *path.builder.borrow_mut();
        builder.norms.push(layer);
        builder.normed.push(weight.map(Tensor::shallow_clone));
        Norm(builder.norms.len() - 1)
    }

    /// Of the same shape.
    pub fn forward(&self, x: &Tensor, context: &Context) -> Tensor {
        context.norms[self.0].forward(x, context.pass)
    }
}

/// A convolution and the batch norm after it.
pub struct ConvNorm {
    conv: Conv2d,
    /// Its batch norm's index in [`Context::norms`].
    norm: usize,
}

impl ConvNorm {
    /// Under two names of their own.
    pub fn new(conv: &Path, norm: &Path, shape: ConvShape) -> Self {
        let conv = Conv2d::new(conv, shape);
        let norm = Norm::after(norm, shape.outputs, Some(&conv.weight)).0;
        ConvNorm { conv, norm }
    }

    /// Names them `0` and `1`, as the reference's `nn.Sequential` does.
    pub fn sequential(path: &Path, shape: ConvShape) -> Self {
        ConvNorm::new(&(path / 0), &(path / 1), shape)
    }

    /// Both.
    pub fn forward(&self, x: &Tensor, context: &Context) -> Tensor {
        match context.shift(self.norm) {
            Some(shift) => self.conv.forward_shifted(x, Some(shift), context),
            None => self.normalise(&self.conv.forward(x, context), context),
        }
    }

    /// The same with another way to compute the convolution from its weight.
    pub fn forward_by(&self, convolve: impl FnOnce(&Tensor) -> Tensor, context: &Context) -> Tensor {
        let y = convolve(&self.conv.weight);
        self.conv.count(&y, context);
        self.normalise(&y, context)
    }

    fn normalise(&self, y: &Tensor, context: &Context) -> Tensor {
        match context.shift(self.norm) {
            Some(shift) => y + shift.view([1, -1, 1, 1]),
            None => context.norms[self.norm].forward(y, context.pass),
        }
    }

    /// Both, and ReLU.
    pub fn forward_relu(&self, x: &Tensor, context: &Context) -> Tensor {
        self.forward(x, context).relu_()
    }

    /// Of a 1 × 1 convolution, what [`ConvNorm::forward_relu`] of `x` resized to `size` is: the convolution and the
    /// resizing are linear in different dimensions, so the cheaper order, convolution first, gives the same.
    pub fn forward_resized_relu(&self, x: &Tensor, size: &[i64], context: &Context) -> Tensor {
        let y = resize(&self.conv.forward(x, context), size);
        self.normalise(&y, context).relu_()
    }
}
