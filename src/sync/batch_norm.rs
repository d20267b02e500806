//! Batch norm whose statistics cover all ranks.
//!
//! Forward gathers every rank's count, mean and M2 (sum of squared deviations) per channel and folds them in rank
//! order in f64 (Chan, Golub & LeVeque 1983), so that every rank holds the same bits. Backward needs one sum over
//! ranks: with x̂ = (x − mean)·invstd and N values per channel over all ranks,
//! dx = weight·invstd·(dy − Σdy/N − x̂·Σ(dy·x̂)/N), Σ over all ranks. The gradients of weight and bias stay this
//! rank's own sums: the reducer adds them up with all others.
//!
//! A rank without images takes part with an empty batch, (0, channels, h, w).

use crate::comm::{Comm, CommError};
use crate::fault;
use crate::model::BnVariance;
use crate::model::layers::{BatchNorm2d, Local, Normalize};
use crate::torch::{TorchError, autograd, fused};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

/// Synchronized batch norm over the ranks of its own communicator.
pub struct SyncBatchNorm {
    comm: Arc<dyn Comm>,
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
    /// `comm` must be used by nothing else: backward communicates on autograd's thread.
    pub fn new(comm: Arc<dyn Comm>, variance: BnVariance) -> Self {
        SyncBatchNorm { comm, variance, failure: Arc::default() }
    }

    fn normalize(&self, layer: &BatchNorm2d, input: &Tensor) -> Result<Tensor, SyncError> {
        fault::point("batch_norm");
        let (output, backward) = tch::no_grad(|| self.forward(layer, input))?;
        let failure = self.failure.clone();
        autograd::attach_backward(&output, &[input, &layer.weight, &layer.bias], move |dy| {
            backward.run(&dy).map_err(|error| failure.note(error))
        })?;
        Ok(output)
    }

    fn forward(&self, layer: &BatchNorm2d, input: &Tensor) -> Result<(Tensor, Backward), SyncError> {
        let moments = Moments::of_ranks(self.comm.as_ref(), input)?;
        let to_tensor = |values: &[f64]| Tensor::from_slice(values).to_kind(Kind::Float).to_device(input.device());
        let (mean, variance) = (to_tensor(&moments.mean), to_tensor(&moments.variance(0.0)));
        // One value has no variance: nothing to learn from it.
        if moments.count > 1.0 {
            layer.recorded.borrow_mut().push((mean.shallow_clone(), to_tensor(&moments.variance(1.0))));
        }
        let (variance, eps, moves) = match self.variance {
            BnVariance::Offset => (variance, layer.eps, None),
            BnVariance::Clamped => (variance.clamp_min(layer.eps), 0.0, Some(variance.ge(layer.eps))),
        };
        let (weight, bias) = (layer.weight.detach(), layer.bias.detach());
        let output = if input.numel() == 0 {
            input.empty_like()
        } else {
            let (output, _, _) =
                input.native_batch_norm(Some(&weight), Some(&bias), Some(&mean), Some(&variance), false, 0.0, eps);
            output
        };
        let backward = Backward {
            comm: self.comm.clone(),
            input: input.detach(),
            weight,
            mean,
            variance,
            eps,
            moves,
            count: moments.count,
        };
        Ok((output, backward))
    }
}

impl Normalize for SyncBatchNorm {
    /// # Panics
    /// When libtorch fails, as tch's operations do.
    fn batch_norm(&self, layer: &BatchNorm2d, input: &Tensor) -> Tensor {
        if self.comm.size() == 1 && self.variance == BnVariance::Offset {
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
    #[error("rank {0} normalises another number of channels")]
    Channels(usize),
}

/// Count, mean and M2 per channel over all ranks.
struct Moments {
    count: f64,
    mean: Vec<f64>,
    m2: Vec<f64>,
}

impl Moments {
    /// Every rank's moments folded into one, the same bits everywhere.
    fn of_ranks(comm: &dyn Comm, input: &Tensor) -> Result<Moments, SyncError> {
        let mine = Moments::of(input);
        let channels = mine.mean.len();
        let values = std::iter::once(&mine.count).chain(&mine.mean).chain(&mine.m2);
        let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
        let mut all = Moments { count: 0.0, mean: vec![0.0; channels], m2: vec![0.0; channels] };
        for (rank, part) in comm.all_gather(&bytes)?.iter().enumerate() {
            if part.len() != bytes.len() {
                return Err(SyncError::Channels(rank));
            }
            let value = |chunk: &[u8]| f64::from_le_bytes(chunk.try_into().expect("eight bytes"));
            let part: Vec<f64> = part.chunks_exact(8).map(value).collect();
            all.fold(part[0], &part[1..=channels], &part[channels + 1..]);
        }
        Ok(all)
    }

    /// This rank's moments; zeros for an empty batch.
    fn of(input: &Tensor) -> Moments {
        let channels = input.size()[1] as usize;
        if input.numel() == 0 {
            return Moments { count: 0.0, mean: vec![0.0; channels], m2: vec![0.0; channels] };
        }
        let count = (input.numel() / channels) as f64;
        // f32 running statistics, thrown away, make the results f32 for inputs of 16 bits, too.
        let unused = || Tensor::zeros([channels as i64], (Kind::Float, input.device()));
        let (mean, variance) = input.batch_norm_update_stats(Some(unused()), Some(unused()), 0.0);
        let to_host = |tensor: &Tensor| Vec::<f64>::try_from(tensor.to_kind(Kind::Double)).expect("one-dimensional");
        let m2 = to_host(&variance).into_iter().map(|variance| variance * count).collect();
        Moments { count, mean: to_host(&mean), m2 }
    }

    /// Adds a part: M2 = M2ₐ + M2ᵦ + δ²·nₐ·nᵦ/n, mean = meanₐ + δ·nᵦ/n with δ = meanᵦ − meanₐ.
    fn fold(&mut self, count: f64, mean: &[f64], m2: &[f64]) {
        if count == 0.0 {
            return;
        }
        let total = self.count + count;
        for channel in 0..self.mean.len() {
            let delta = mean[channel] - self.mean[channel];
            self.m2[channel] += m2[channel] + delta * delta * self.count * count / total;
            self.mean[channel] += delta * count / total;
        }
        self.count = total;
    }

    /// M2 ÷ (count − `less`): biased for 0, unbiased for 1.
    fn variance(&self, less: f64) -> Vec<f64> {
        self.m2.iter().map(|m2| m2 / (self.count - less).max(1.0)).collect()
    }
}

/// What backward needs of a forward pass.
struct Backward {
    comm: Arc<dyn Comm>,
    input: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: f64,
    /// Channels whose divisor depends on the variance; None: all.
    moves: Option<Tensor>,
    count: f64,
}

impl Backward {
    /// The gradients of input, weight and bias.
    fn run(&self, dy: &Tensor) -> Result<Vec<Tensor>, SyncError> {
        let (sum_dy, sum_dy_xhat) = if self.input.numel() == 0 {
            (self.weight.zeros_like(), self.weight.zeros_like())
        } else {
            fused::batch_norm_sums(dy, &self.input, &self.weight, (&self.mean, &self.variance), self.eps)?
        };
        let channels = self.weight.size()[0];
        let own = Tensor::cat(&[&sum_dy, &sum_dy_xhat], 0).to_kind(Kind::Double);
        let mut sums = Vec::<f64>::try_from(own).expect("one-dimensional");
        self.comm.all_reduce_f64(&mut sums)?;
        if self.input.numel() == 0 {
            return Ok(vec![self.input.zeros_like(), sum_dy_xhat, sum_dy]);
        }
        let means = Tensor::from_slice(&sums).to_kind(Kind::Float).to_device(dy.device()) / self.count;
        let (mean_dy, mean_dy_xhat) = (means.narrow(0, 0, channels), means.narrow(0, channels, channels));
        // dx = scale·dy + slope·x + offset, per channel.
        let invstd = (&self.variance + self.eps).rsqrt();
        let scale = &self.weight * &invstd;
        let mut slope = -(&scale * &invstd * &mean_dy_xhat);
        if let Some(moves) = &self.moves {
            slope *= moves;
        }
        let offset = -(&scale * mean_dy) - &slope * &self.mean;
        let per_channel = |values: Tensor| values.view([1, channels, 1, 1]);
        let mut dx = per_channel(offset).addcmul(&self.input, &per_channel(slope));
        let dx = dx.addcmul_(dy, &per_channel(scale));
        Ok(vec![dx.to_kind(self.input.kind()), sum_dy_xhat, sum_dy])
    }
}
