//! First values, as the reference draws them: one rule per family of networks.
//!
//! They come from libtorch's CPU generator, seeded anew for every network, so they are a function of the seed and
//! the architecture alone, whatever was drawn before and on whichever device the network lives.

use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// The rule by which a part of a network gets its first values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// ResNet and MobileNet (resnet.py, mobilenet.py): normal with variance 2 ÷ (kernel area · outputs).
    FanOut,
    /// ResNeXt (resnext.py): the same with the outputs of one group.
    FanOutOfGroup,
    /// HRNet (hrnet.py sets none): PyTorch's default, uniform within ±1 ÷ √fan-in.
    Uniform,
    /// Decoders (ModelBuilder.weights_init): He et al. 2015, normal with variance 2 ÷ fan-in; batch norm's shift 1e-4.
    Kaiming,
    /// Decoders of later years: as `Kaiming` with biases and shifts of 0, and momentum 0.1.
    He,
    /// Transformers and ConvNeXt: normal with deviation 0.02 (which truncation at ±2 leaves as it is); biases 0.
    Normal,
}

/// Deviation of [`Initial::Normal`].
const DEVIATION: f64 = 0.02;

/// libtorch has one CPU generator: whoever seeds it keeps it until the network is complete.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Seeds the generator, and keeps other threads from drawing until the guard is dropped.
pub(super) fn seed(seed: u64) -> MutexGuard<'static, ()> {
    let guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed as i64);
    guard
}

impl Initial {
    /// A convolution's weight, shape (outputs, inputs ÷ groups, kernel, kernel).
    pub fn conv_weight(self, shape: [i64; 4], groups: i64) -> Tensor {
        let [outputs, inputs, height, width] = shape;
        let fan_in = (inputs * height * width) as f64;
        let fan_out = (outputs * height * width) as f64;
        let normal = |fan: f64| empty(&shape).normal_(0.0, (2.0 / fan).sqrt());
        match self {
            Initial::FanOut => normal(fan_out),
            Initial::FanOutOfGroup => normal((fan_out / groups as f64).floor()),
            Initial::Uniform => empty(&shape).uniform_(-fan_in.sqrt().recip(), fan_in.sqrt().recip()),
            Initial::Kaiming | Initial::He => normal(fan_in),
            Initial::Normal => empty(&shape).normal_(0.0, DEVIATION),
        }
    }

    /// A convolution's bias: 0 in later networks, else PyTorch's default, uniform within ±1 ÷ √fan-in.
    pub fn conv_bias(self, shape: [i64; 4]) -> Tensor {
        let [outputs, inputs, height, width] = shape;
        if matches!(self, Initial::He | Initial::Normal) {
            return empty(&[outputs]).zero_();
        }
        let bound = ((inputs * height * width) as f64).sqrt().recip();
        empty(&[outputs]).uniform_(-bound, bound)
    }

    /// A linear layer's weight, shape (outputs, inputs): as a convolution's of one pixel.
    pub fn linear_weight(self, [outputs, inputs]: [i64; 2]) -> Tensor {
        self.conv_weight([outputs, inputs, 1, 1], 1).view([outputs, inputs])
    }

    /// A linear layer's bias.
    pub fn linear_bias(self, [outputs, inputs]: [i64; 2]) -> Tensor {
        self.conv_bias([outputs, inputs, 1, 1])
    }

    /// Weight of a new observation in the running statistics: 0.001 in the reference but for HRNet (its BN_MOMENTUM),
    /// 0.1 elsewhere.
    pub fn norm_momentum(self) -> f64 {
        match self {
            Initial::Uniform | Initial::He | Initial::Normal => 0.1,
            Initial::FanOut | Initial::FanOutOfGroup | Initial::Kaiming => 0.001,
        }
    }

    /// Batch norm's shift; its scale is 1 everywhere.
    pub fn norm_bias(self, channels: i64) -> Tensor {
        let value = if self == Initial::Kaiming { 1e-4 } else { 0.0 };
        empty(&[channels]).fill_(value)
    }
}

fn empty(shape: &[i64]) -> Tensor {
    Tensor::empty(shape, (Kind::Float, Device::Cpu))
}
