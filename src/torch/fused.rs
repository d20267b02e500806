//! Operations that touch each value once: optimizer updates and batch norm's backward sums.

use super::TorchError;
use super::ffi;
use tch::Tensor;

/// SGD with momentum over lists of tensors of equal shapes (torch.optim.SGD, dampening 0, no Nesterov):
/// d = g + decay·p; m = momentum·m + d; p −= lr·m. `m` starts at 0.
pub fn sgd(
    parameters: &[Tensor],
    gradients: &[Tensor],
    momenta: &[Tensor],
    (lr, momentum, decay): (f64, f64, f64),
) -> Result<(), TorchError> {
    assert!(parameters.len() == gradients.len() && parameters.len() == momenta.len(), "lists of one length");
    let (parameters, gradients, momenta) =
        (ffi::pointers(parameters), ffi::pointers(gradients), ffi::pointers(momenta));
    // SAFETY: three lists of live tensors, each of the length given.
    ffi::check(unsafe {
        ffi::segdist_sgd(
            parameters.as_ptr(),
            gradients.as_ptr(),
            momenta.as_ptr(),
            parameters.len(),
            lr,
            momentum,
            decay,
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
}

/// AdamW over lists of tensors of equal shapes (torch.optim.AdamW; Loshchilov & Hutter 2019).
pub fn adamw(
    parameters: &[Tensor],
    gradients: &[Tensor],
    means: &[Tensor],
    squares: &[Tensor],
    with: &AdamW,
) -> Result<(), TorchError> {
    let count = parameters.len();
    assert!([gradients, means, squares].iter().all(|list| list.len() == count), "lists of one length");
    let (parameters, gradients) = (ffi::pointers(parameters), ffi::pointers(gradients));
    let (means, squares) = (ffi::pointers(means), ffi::pointers(squares));
    // SAFETY: four lists of live tensors, each of the length given.
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
        )
    })
}

/// Σ dy and Σ dy·(x − mean)·(variance + eps)^-½ over all but the channel dimension, in one pass over both tensors.
///
/// `gradient` and `input`: (n, channels, h, w), not empty; the rest and both results: (channels).
pub fn batch_norm_sums(
    gradient: &Tensor,
    input: &Tensor,
    weight: &Tensor,
    (mean, variance): (&Tensor, &Tensor),
    eps: f64,
) -> Result<(Tensor, Tensor), TorchError> {
    let (mut sum_dy, mut sum_dy_xhat) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: all tensors are alive, and the results are written only on success.
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
