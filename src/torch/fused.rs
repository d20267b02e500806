//! Operations that touch each value once: optimizer updates and batch norm's backward sums.
//!
//! libtorch's kernels take it on trust that their tensors fit together; here that is checked.

use super::TorchError;
use super::ffi;
use tch::Tensor;

/// SGD's constants for one update.
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// What is left of the momentum.
    pub momentum: f64,
    /// Weight decay.
    pub decay: f64,
    /// What gradients are multiplied by first, in their memory as well.
    pub grad_scale: f64,
}

/// SGD with momentum over lists of tensors of equal shapes (torch.optim.SGD, dampening 0, no Nesterov):
/// d = grad_scale·g + decay·p; m = momentum·m + d; p −= lr·m. `m` starts at 0.
///
/// # Errors
/// When the lists do not fit together, or libtorch fails.
pub fn sgd(parameters: &[Tensor], gradients: &[Tensor], momenta: &[Tensor], with: &Sgd) -> Result<(), TorchError> {
    lists_fit(parameters, &[gradients, momenta])?;
    let (parameters, gradients, momenta) =
        (ffi::pointers(parameters), ffi::pointers(gradients), ffi::pointers(momenta));
    // SAFETY: three lists of live tensors, each of the length given, alike place by place.
    ffi::check(unsafe {
        ffi::segdist_sgd(
            parameters.as_ptr(),
            gradients.as_ptr(),
            momenta.as_ptr(),
            parameters.len(),
            with.lr,
            with.momentum,
            with.decay,
            with.grad_scale,
        )
    })
}

/// AdamW's constants for one update.
pub struct AdamW {
    /// This update's number, from 1.
    pub step: f64,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the divisor.
    pub eps: f64,
    /// Weight decay.
    pub decay: f64,
    /// What gradients are multiplied by first, in their memory as well.
    pub grad_scale: f64,
}

/// AdamW over lists of tensors of equal shapes (torch.optim.AdamW; Loshchilov & Hutter 2019).
///
/// # Errors
/// When the lists do not fit together, or libtorch fails.
pub fn adamw(
    parameters: &[Tensor],
    gradients: &[Tensor],
    means: &[Tensor],
    squares: &[Tensor],
    with: &AdamW,
) -> Result<(), TorchError> {
    let count = parameters.len();
    lists_fit(parameters, &[gradients, means, squares])?;
    let (parameters, gradients) = (ffi::pointers(parameters), ffi::pointers(gradients));
    let (means, squares) = (ffi::pointers(means), ffi::pointers(squares));
    // SAFETY: four lists of live tensors, each of the length given, alike place by place.
    ffi::check(unsafe {
        ffi::segdist_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            means.as_ptr(),
            squares.as_ptr(),
            count,
            with.step,
            with.lr,
            with.beta1,
            with.beta2,
            with.eps,
            with.decay,
            with.grad_scale,
        )
    })
}

/// Σ dy and Σ dy·(x − mean)·(variance + eps)^-½ over all but the channel dimension, in one pass over both tensors.
///
/// `gradient` and `input`: (n, channels, h, w), not empty; the rest and both results: (channels).
///
/// # Errors
/// When the shapes or devices do not fit together, or libtorch fails.
pub fn batch_norm_sums(
    gradient: &Tensor,
    input: &Tensor,
    weight: &Tensor,
    (mean, variance): (&Tensor, &Tensor),
    eps: f64,
) -> Result<(Tensor, Tensor), TorchError> {
    let per_channel = [weight, mean, variance];
    let channels = input.size4().map_or(-1, |(_, channels, ..)| channels);
    let fits = |tensor: &&Tensor| tensor.size() == [channels] && tensor.device() == input.device();
    if input.numel() == 0 || !like(gradient, input) || !per_channel.iter().all(fits) {
        return Err(misfit("the tensors of a batch norm"));
    }
    let (mut sum_dy, mut sum_dy_xhat) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: all tensors are alive and fit together, and the results are written only on success.
    ffi::check(unsafe {
        ffi::segdist_batch_norm_sums(
            gradient.as_ptr().cast_mut(),
            input.as_ptr().cast_mut(),
            weight.as_ptr().cast_mut(),
            mean.as_ptr().cast_mut(),
            variance.as_ptr().cast_mut(),
            eps,
            &mut sum_dy,
            &mut sum_dy_xhat,
        )
    })?;
    // SAFETY: on success both point to tensors that the shim made for us to own.
    Ok(unsafe { (Tensor::from_ptr(sum_dy), Tensor::from_ptr(sum_dy_xhat)) })
}

fn misfit(what: &str) -> TorchError {
    TorchError(format!("{what} do not fit together"))
}

fn like(one: &Tensor, other: &Tensor) -> bool {
    one.size() == other.size() && one.kind() == other.kind() && one.device() == other.device()
}

/// The kernels walk through all lists at once, in memory order.
fn lists_fit(parameters: &[Tensor], others: &[&[Tensor]]) -> Result<(), TorchError> {
    let pairs = |list: &[Tensor]| {
        let same = |(one, other): (&Tensor, &Tensor)| like(one, other) && one.stride() == other.stride();
        list.len() == parameters.len() && list.iter().zip(parameters).all(same)
    };
    let fit = parameters.iter().all(is_dense) && others.iter().all(|list| pairs(list));
    if fit { Ok(()) } else { Err(misfit("lists of parameters, gradients and states")) }
}

/// Whether the values fill a range of memory as long as they are many.
fn is_dense(tensor: &Tensor) -> bool {
    let steps = tensor.size().into_iter().zip(tensor.stride());
    let last: i64 = steps.map(|(size, stride)| (size - 1) * stride).sum();
    tensor.numel() == 0 || last + 1 == tensor.numel() as i64
}
