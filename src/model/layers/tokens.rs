//! Layers of transformers: images as rows of tokens (n, tokens, channels), which is an image in channels-last order.

use super::{Context, Role};
use crate::model::path::Path;
use tch::{Device, Kind, Tensor};

/// The pixels of (n, channels, h, w), row by row: (n, h·w, channels). Copies nothing of a channels-last tensor.
pub fn to_tokens(x: &Tensor) -> Tensor {
    x.flatten(2, 3).transpose(1, 2)
}

/// The image of `size` (height, width) that (n, h·w, channels) came from, in channels-last order. Copies nothing.
pub fn from_tokens(x: &Tensor, (height, width): (i64, i64)) -> Tensor {
    let size = x.size();
    x.view([size[0], height, width, size[2]]).permute([0, 3, 1, 2])
}

/// A linear layer on the last dimension.
pub struct Linear {
    /// (outputs, inputs).
    pub weight: Tensor,
    /// (outputs).
    pub bias: Option<Tensor>,
}

impl Linear {
    /// With bias.
    pub fn new(path: &Path, inputs: i64, outputs: i64) -> Self {
        let size = [outputs, inputs];
        let weight = path.drawn("weight", &size, Role::Weight, |initial| initial.linear_weight(size));
        let bias = path.drawn("bias", &[outputs], Role::NoDecay, |initial| initial.linear_bias(size));
        Linear { weight, bias: Some(bias) }
    }

    /// Without.
    pub fn without_bias(path: &Path, inputs: i64, outputs: i64) -> Self {
        let size = [outputs, inputs];
        Linear { weight: path.drawn("weight", &size, Role::Weight, |initial| initial.linear_weight(size)), bias: None }
    }

    /// (n, …, inputs) to (n, …, outputs).
    pub fn forward(&self, x: &Tensor, context: &Context) -> Tensor {
        self.forward_by(x, &self.weight, self.bias.as_ref(), context)
    }

    /// [`LayerScale`] after the layer. Scaling the weights instead of the result saves passes over the larger of both.
    pub fn forward_scaled(&self, x: &Tensor, scale: &LayerScale, context: &Context) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| bias * &scale.0);
        self.forward_by(x, &(&self.weight * scale.0.unsqueeze(1)), bias.as_ref(), context)
    }

    fn forward_by(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, context: &Context) -> Tensor {
        let y = x.linear(weight, bias);
        let size = y.size();
        let tokens: i64 = size[1..size.len() - 1].iter().product();
        context.count(self.weight.numel() as i64 * tokens);
        y
    }
}

/// Layer norm over the last dimension (Ba et al. 2016, arXiv:1607.06450).
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Scale 1, shift 0; `eps` is added to the variance.
    pub fn new(path: &Path, channels: i64, eps: f64) -> Self {
        let weight = Tensor::ones([channels], (Kind::Float, Device::Cpu));
        let bias = Tensor::zeros([channels], (Kind::Float, Device::Cpu));
        let weight = path.parameter("weight", weight, Role::NoDecay);
        LayerNorm { weight, bias: path.parameter("bias", bias, Role::NoDecay), eps }
    }

    /// (…, channels) of the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.eps, true)
    }

    /// The same over the channels of (n, channels, h, w), channels last.
    pub fn forward_channels(&self, x: &Tensor) -> Tensor {
        self.forward(&x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    }
}

/// A factor for each channel of a residual branch (Touvron et al. 2021, arXiv:2103.17239).
pub struct LayerScale(Tensor);

impl LayerScale {
    /// Named `name`, all `initial` at first.
    pub fn new(path: &Path, name: &str, channels: i64, initial: f64) -> Self {
        let value = Tensor::full([channels], initial, (Kind::Float, Device::Cpu));
        LayerScale(path.parameter(name, value, Role::NoDecay))
    }
}

/// Stochastic depth of a residual block's branches, rising from block to block; see [`Context::drop_path`].
pub struct DropPath {
    block: usize,
    probability: f64,
}

impl DropPath {
    /// Of block number `block` of `blocks`, from 0; `last` is the last one's probability (MODEL.drop_path).
    pub fn new(last: f64, block: usize, blocks: usize) -> Self {
        DropPath { block, probability: last * block as f64 / blocks.saturating_sub(1).max(1) as f64 }
    }

    /// Of the block's branch 0 or 1.
    pub fn forward(&self, branch: u64, x: Tensor, context: &Context) -> Tensor {
        context.drop_path(2 * self.block as u64 + branch, self.probability, x)
    }
}

/// Softmax(q·kᵀ ÷ √channels)·v of every head (Vaswani et al. 2017, arXiv:1706.03762), by libtorch's fused kernels.
///
/// `query`: (n, heads, tokens, channels); `key`, `value`: the same with tokens of their own. (n, tokens, heads ·
/// channels).
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, context: &Context) -> Tensor {
    let (size, keys) = (query.size(), key.size()[2]);
    let (images, heads, tokens, channels) = (size[0], size[1], size[2], size[3]);
    context.count(2 * heads * tokens * keys * channels);
    let mixed = Tensor::scaled_dot_product_attention::<Tensor>(query, key, value, None, 0.0, false, None, false);
    mixed.transpose(1, 2).reshape([images, tokens, heads * channels])
}
