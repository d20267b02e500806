//! Batch norm whose statistics cover all ranks.
//!
//! Forward sums (N, Σ(x − k), Σ(x − k)²) of every channel over ranks in f64, with the layer's running mean for the shift k:
//! it is the same on all ranks and near the mean, so that the variance Σ(x − k)²/N − (Σ(x − k)/N)² loses no digits
//! (Chan, Golub & LeVeque 1983). What travels does not grow with the number of ranks. Backward needs one sum as well;
//! the gradients of weight and bias stay this rank's own: the reducer adds them up with all others.
//!
//! A rank without images takes part with an empty batch, (0, channels, h, w). All numbers stay on the device.

use super::tensor_sum::{HostSum, TensorSum};
use crate::comm::{Comm, CommError};
use crate::fault;
use crate::model::BnVariance;
use crate::model::layers::{BatchNorm2d, Local, Normalize, Observation};
use crate::torch::batch_norm::{Normalized, Sums, dense, moments};
use crate::torch::{TorchError, autograd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

/// Synchronized batch norm over the ranks of one [`TensorSum`].
pub struct SyncBatchNorm {
    ranks: Arc<dyn TensorSum>,
    variance: BnVariance,
    failure: Arc<Failure>,
}

/// The first failure to reach the others; nobody is asked again after it.
#[derive(Default)]
struct Failure(Mutex<Option<CommError>>);

impl Failure {
    fn lock(&self) -> MutexGuard<'_, Option<CommError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a failure between ranks, for the trainer to act on; the text is for libtorch.
    fn note(&self, error: SyncError) -> String {
        let text = error.to_string();
        if let SyncError::Comm(error) = error {
            self.lock().get_or_insert(error);
        }
        text
    }
}

impl SyncBatchNorm {
    /// Sums go by way of the host. `comm` must be used by nothing else: backward communicates on autograd's thread.
    pub fn new(comm: Arc<dyn Comm>, variance: BnVariance) -> Self {
        SyncBatchNorm::over(Arc::new(HostSum(comm)), variance)
    }

    /// The same with sums that go another way.
    pub fn over(ranks: Arc<dyn TensorSum>, variance: BnVariance) -> Self {
        SyncBatchNorm { ranks, variance, failure: Arc::default() }
    }

    fn normalize(&self, layer: &BatchNorm2d, input: &Tensor) -> Result<Tensor, SyncError> {
        fault::point("batch_norm");
        let (output, normalized) = tch::no_grad(|| self.forward(layer, input))?;
        let (ranks, failure) = (self.ranks.clone(), self.failure.clone());
        autograd::attach_backward(&output, &[input, &layer.weight, &layer.bias], move |dy| {
            backward(&normalized, &*ranks, &dy).map_err(|error| failure.note(error))
        })?;
        Ok(output)
    }

    fn forward(&self, layer: &BatchNorm2d, input: &Tensor) -> Result<(Tensor, Normalized), CommError> {
        let input = dense(&input.detach());
        let Moments { mean, variance, count } = Moments::of_ranks(&*self.ranks, &input, &layer.running_mean)?;
        layer.observe(Observation {
            mean: mean.shallow_clone(),
            variance: variance.shallow_clone(),
            count: Some(count.shallow_clone()),
        });
        let (variance, eps, moves) = match self.variance {
            BnVariance::Offset => (variance, layer.eps, None),
            BnVariance::Clamped => (variance.clamp_min(layer.eps), 0.0, Some(variance.ge(layer.eps))),
        };
        let invstd = (&variance + eps).rsqrt();
        let weight = layer.weight.detach();
        let normalized = Normalized { input, weight, mean, variance, invstd, eps, count, moves };
        Ok((normalized.output(&layer.bias.detach()), normalized))
    }
}

/// The gradients of input, weight and bias.
fn backward(normalized: &Normalized, ranks: &dyn TensorSum, dy: &Tensor) -> Result<Vec<Tensor>, SyncError> {
    let Sums { mut across, weight_gradient, bias_gradient } = normalized.sums(dy)?;
    ranks.all_reduce(&mut across)?;
    Ok(vec![normalized.input_gradient(dy, &across), weight_gradient, bias_gradient])
}

impl Normalize for SyncBatchNorm {
    /// # Panics
    /// When libtorch fails, as tch's operations do.
    fn batch_norm(&self, layer: &BatchNorm2d, input: &Tensor) -> Tensor {
        if self.ranks.ranks() == 1 && self.variance == BnVariance::Offset {
            return Local.batch_norm(layer, input);
        }
        if self.failure.lock().is_some() {
            return input.shallow_clone();
        }
        match self.normalize(layer, input) {
            Ok(output) => output,
            Err(error @ SyncError::Comm(_)) => {
                self.failure.note(error);
                input.shallow_clone()
            }
            Err(error) => panic!("synchronized batch norm: {error}"),
        }
    }

    fn failure(&self) -> Option<CommError> {
        self.failure.lock().take()
    }
}

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Comm(#[from] CommError),
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// Mean and biased variance, f32 (channels), and count of values per channel, one f64, over all ranks.
struct Moments {
    mean: Tensor,
    variance: Tensor,
    count: Tensor,
}

impl Moments {
    /// The same bits on every rank; `shift`: f32 (channels), the same on every rank.
    fn of_ranks(ranks: &dyn TensorSum, input: &Tensor, shift: &Tensor) -> Result<Moments, CommError> {
        let channels = shift.size()[0];
        // Σ(x − k), Σ(x − k)² and N; from mean and variance, which libtorch computes without losing digits.
        let mut sums = Tensor::zeros([2 * channels + 1], (Kind::Double, input.device()));
        let parts = |sums: &Tensor| {
            let part = |index: i64| sums.narrow(0, index * channels, channels);
            (part(0), part(1), sums.narrow(0, 2 * channels, 1))
        };
        if input.numel() > 0 {
            let (mean, variance) = moments(input);
            let (mut first, mut second, mut count) = parts(&sums);
            first.copy_(&mean);
            let _ = first.g_sub_(shift);
            second.copy_(&variance);
            let _ = second.addcmul_(&first, &first);
            let _ = count.fill_(1.0);
            let _ = sums.g_mul_scalar_((input.numel() as i64 / channels) as f64);
        }
        ranks.all_reduce(&mut sums)?;
        let (first, second, count) = parts(&sums);
        // Where no rank has a value, 0 ÷ 0 is not a number, and nobody uses it.
        let first = first / &count;
        let variance = (second / &count - first.square()).clamp_min_(0.0);
        Ok(Moments { mean: (first + shift).to_kind(Kind::Float), variance: variance.to_kind(Kind::Float), count })
    }
}
