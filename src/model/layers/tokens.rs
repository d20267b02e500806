//! Layers of transformers: images as rows of tokens (n, tokens, channels), which is an image in channels-last order.

use super::{Context, Role};
use crate::model::path::Path;
use crate::torch::autograd;
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
        let (weight, bias) = self.scaled(scale);
        self.forward_by(x, &weight, bias.as_ref(), context)
    }

    /// The layer of gelu(x), in the error function's form, and then [`LayerScale`] if there is one.
    ///
    /// Backward keeps `x` alone and computes gelu(x) again: an MLP's widest tensor is there once, not twice.
    pub fn forward_gelu(&self, x: &Tensor, scale: Option<&LayerScale>, context: &Context) -> Tensor {
        let plain = || (self.weight.shallow_clone(), self.bias.as_ref().map(Tensor::shallow_clone));
        let (weight, bias) = scale.map_or_else(plain, |scale| self.scaled(scale));
        let (true, Some(bias)) = (x.requires_grad(), &bias) else {
            return self.forward_by(&x.gelu("none"), &weight, bias.as_ref(), context);
        };
        // Detached from the view that it is of the rows, so that it may be added to in place.
        let y = tch::no_grad(|| self.forward_by(&x.gelu("none"), &weight, Some(bias), context)).detach();
        let (saved, factor) = (x.detach(), weight.detach());
        let backward = move |dy: Tensor| gelu_linear_backward(&saved, &factor, &dy).map_err(|error| error.to_string());
        autograd::attach_backward(&y, &[x, &weight, bias], backward).expect("a fresh tensor takes a backward function");
        y
    }

    /// Weight and bias of this layer and then `scale`.
    fn scaled(&self, scale: &LayerScale) -> (Tensor, Option<Tensor>) {
        let bias = self.bias.as_ref().map(|bias| bias * &scale.0);
        (&self.weight * scale.0.unsqueeze(1), bias)
    }

    fn forward_by(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, context: &Context) -> Tensor {
        let y = x.linear(weight, bias);
        let size = y.size();
        let tokens: i64 = size[1..size.len() - 1].iter().product();
        context.count(self.weight.numel() as i64 * tokens);
        y
    }
}

/// Gradients of `x`, weight and bias from that of linear(gelu(x)).
fn gelu_linear_backward(x: &Tensor, weight: &Tensor, dy: &Tensor) -> Result<Vec<Tensor>, tch::TchError> {
    let (outputs, inputs) = weight.size2()?;
    let tokens = dy.numel() as i64 / outputs;
    let rows = dy.f_reshape([tokens, outputs])?;
    let activated = x.f_gelu("none")?.f_to_kind(dy.kind())?.f_reshape([tokens, inputs])?;
    let dweight = rows.f_tr()?.f_matmul(&activated)?.f_to_kind(weight.kind())?;
    drop(activated);
    let dbias = rows.f_sum_dim_intlist([0].as_slice(), false, weight.kind())?;
    let dx = rows.f_matmul(&weight.f_to_kind(dy.kind())?)?.f_reshape(x.size())?;
    Ok(vec![x.f_gelu_backward(&dx.f_to_kind(x.kind())?, "none")?, dweight, dbias])
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Double, Device::Cpu)).set_requires_grad(true)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn gelu_computed_again_gives_autograd_s_gradients(images in 0i64..3, tokens in 1i64..5, scaled: bool) {
            let (x, weight, bias, scale) = (random(&[images, tokens, 6]), random(&[4, 6]), random(&[4]), random(&[4]));
            let inputs = [&x, &weight, &bias, &scale];
            let gradients = |y: Tensor| {
                inputs.iter().for_each(|input| input.shallow_clone().zero_grad());
                (y.square() + &y).sum(Kind::Double).backward();
                (y.detach(), inputs.map(|input| input.grad().copy()))
            };
            // Every input takes part, so that all have a gradient.
            let own = Linear { weight: weight.shallow_clone(), bias: Some(bias.shallow_clone()) };
            let scale = LayerScale(scale.shallow_clone());
            let pass = crate::model::EVALUATE;
            let context = Context { pass: &pass, size: (1, 1), norms: &[], shifts: &[], multiply_adds: None };
            let (expected, wanted) = gradients(match scaled {
                true => x.gelu("none").linear(&weight, Some(&bias)) * &scale.0,
                false => x.gelu("none").linear(&weight, Some(&bias)) + scale.0.sum(Kind::Double) * 0.0,
            });
            let y = own.forward_gelu(&x, scaled.then_some(&scale), &context);
            let (y, found) = gradients(if scaled { y } else { y + scale.0.sum(Kind::Double) * 0.0 });
            prop_assert!(y.allclose(&expected, 1e-9, 1e-9, false));
            for (found, wanted) in found.iter().zip(&wanted) {
                prop_assert!(found.allclose(wanted, 1e-9, 1e-9, false));
            }
        }
    }
}
