//! Batch norm in parts, so that its sums can go over ranks: libtorch's kernels of the CPU, and on CUDA those that
//! PyTorch's own synchronized batch norm is made of. Nothing here waits for the device.

use super::{TorchError, fused, memory};
use tch::{Kind, Tensor};

/// Mean and biased variance of every channel of `input` (n, channels, h, w), not empty; both f32 (channels).
pub fn moments(input: &Tensor) -> (Tensor, Tensor) {
    if input.device().is_cuda() {
        return input.batch_norm_update_stats::<&Tensor>(None, None, 0.0);
    }
    // f32 running statistics, thrown away, make the results f32 for inputs of 16 bits, too.
    let unused = || Tensor::zeros([input.size()[1]], (Kind::Float, input.device()));
    input.batch_norm_update_stats(Some(unused()), Some(unused()), 0.0)
}

/// `input` in a memory order that the kernels of CUDA take as it is.
pub fn dense(input: &Tensor) -> Tensor {
    let suits = input.is_contiguous() || memory::is_channels_last(input);
    if suits { input.shallow_clone() } else { input.contiguous() }
}

/// A batch, and what it is normalised by: y = weight·(x − mean)·(variance + eps)^-½ + bias.
pub struct Normalized {
    /// (n, channels, h, w), f32 or 16 bits, n may be 0.
    pub input: Tensor,
    /// f32 (channels), as are the next three.
    pub weight: Tensor,
    /// Of all ranks' batches.
    pub mean: Tensor,
    /// Of all ranks' batches, biased.
    pub variance: Tensor,
    /// (variance + eps)^-½.
    pub invstd: Tensor,
    /// Added to the variance.
    pub eps: f64,
    /// Values per channel over all ranks, one f64.
    pub count: Tensor,
    /// Channels whose divisor depends on the variance; None: all.
    pub moves: Option<Tensor>,
}

/// What backward adds up over this rank's batch.
pub struct Sums {
    /// f64 (2 × channels): to be summed over ranks and given to [`Normalized::input_gradient`].
    pub across: Tensor,
    /// f32 (channels), of this rank's batch.
    pub weight_gradient: Tensor,
    /// f32 (channels), of this rank's batch.
    pub bias_gradient: Tensor,
}

impl Normalized {
    /// y, of the input's type and memory order.
    pub fn output(&self, bias: &Tensor) -> Tensor {
        let (input, weight) = (&self.input, Some(&self.weight));
        if input.numel() == 0 {
            return input.empty_like();
        }
        if input.device().is_cuda() {
            return input.batch_norm_elemt(weight, Some(bias), &self.mean, &self.invstd, self.eps);
        }
        let (mean, variance) = (Some(&self.mean), Some(&self.variance));
        input.native_batch_norm(weight, Some(bias), mean, variance, false, 0.0, self.eps).0
    }

    /// Sums over this rank's batch, with `dy` the gradient of y.
    pub fn sums(&self, dy: &Tensor) -> Result<Sums, TorchError> {
        let (input, mean) = (&self.input, &self.mean);
        // Of dy·(x − mean)·invstd; CUDA's kernel that uses the sum later wants it without the invstd.
        let (sum_dy, second, weight_gradient) = if input.numel() == 0 {
            let zeros = || self.weight.zeros_like();
            (zeros(), zeros(), zeros())
        } else if input.device().is_cuda() {
            let (sum_dy, sum_dy_xmu, weight_gradient, _) =
                input.batch_norm_backward_reduce(&dense(dy), mean, &self.invstd, Some(&self.weight), true, true, true);
            (sum_dy, sum_dy_xmu, weight_gradient)
        } else {
            let (sum_dy, sum_dy_xhat) =
                fused::batch_norm_sums(dy, input, &self.weight, (mean, &self.variance), self.eps)?;
            (sum_dy, sum_dy_xhat.shallow_clone(), sum_dy_xhat)
        };
        let across = Tensor::cat(&[&sum_dy, &second], 0).to_kind(Kind::Double);
        Ok(Sums { across, weight_gradient, bias_gradient: sum_dy })
    }

    /// The gradient of the input, with [`Sums::across`] summed over all ranks: with x̂ = (x − mean)·invstd and N values per
    /// channel, dx = weight·invstd·(dy − Σdy/N − x̂·Σ(dy·x̂)/N).
    pub fn input_gradient(&self, dy: &Tensor, across: &Tensor) -> Tensor {
        let (input, channels) = (&self.input, self.weight.size()[0]);
        if input.numel() == 0 {
            return input.zeros_like();
        }
        let halves = |values: &Tensor| (values.narrow(0, 0, channels), values.narrow(0, channels, channels));
        let masked =
            |values: Tensor| self.moves.as_ref().map_or_else(|| values.shallow_clone(), |moves| &values * moves);
        if input.device().is_cuda() {
            let (sum_dy, sum_dy_xmu) = halves(&across.to_kind(Kind::Float));
            let count = self.count.to_kind(Kind::Int);
            let (weight, second) = (Some(&self.weight), masked(sum_dy_xmu));
            return input.batch_norm_backward_elemt(
                &dense(dy),
                &self.mean,
                &self.invstd,
                weight,
                &sum_dy,
                &second,
                &count,
            );
        }
        let (mean_dy, mean_dy_xhat) = halves(&(across / &self.count).to_kind(Kind::Float));
        // dx = scale·dy + slope·x + offset, per channel.
        let scale = &self.weight * &self.invstd;
        let slope = masked(-(&scale * &self.invstd * mean_dy_xhat));
        let offset = -(&scale * mean_dy) - &slope * &self.mean;
        let per_channel = |values: Tensor| values.view([1, channels, 1, 1]);
        let mut dx = per_channel(offset).addcmul(input, &per_channel(slope));
        dx.addcmul_(dy, &per_channel(scale)).to_kind(input.kind())
    }
}
