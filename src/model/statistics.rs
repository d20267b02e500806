//! The running statistics of all batch norm layers in flat memory: one update is some thirty operations, whatever the
//! number of layers, and it may be left out by a flag that only the device knows.
//!
//! Running statistics lag behind the weights. An [`Estimate`] takes statistics anew, of one state of the weights.

use super::BnRunning;
use super::layers::BatchNorm2d;
use tch::{Device, Kind, Tensor};

/// What a layer has seen in one training pass.
pub struct Observation {
    /// f32 (channels).
    pub mean: Tensor,
    /// f32 (channels): biased, or unbiased where there is no count.
    pub variance: Tensor,
    /// Values per channel, one f64 on the device. One alone has no variance: there is nothing to learn from it.
    pub count: Option<Tensor>,
}

/// Statistics of all layers, one after another: f32 (channels of all layers).
pub struct Statistics {
    mean: Tensor,
    variance: Tensor,
}

/// What all layers have observed in some passes of one state of the weights, each pass counting the same.
///
/// Of a population in batches: μ = E[μ_B], σ² = E[σ_B² + μ_B²] − μ² (Wu & Johnson 2021, arXiv 2105.07576, section 3).
pub struct Estimate {
    /// Sums of means, f64 (channels of all layers).
    first: Tensor,
    /// Sums of variance + mean², f64 (channels of all layers).
    second: Tensor,
    /// f64 (layers).
    passes: Tensor,
}

/// One observation of each layer.
struct Joined {
    /// f32 (channels of all layers), as is the next.
    mean: Tensor,
    /// Unbiased.
    variance: Tensor,
    /// Whether there is something to learn from it (layers).
    learns: Tensor,
}

/// The tensors of all layers, one after another; the layers' own are views of them.
pub struct RunningStatistics {
    /// f32 (channels of all layers), as are the next three.
    mean: Tensor,
    variance: Tensor,
    mean_sum: Tensor,
    variance_sum: Tensor,
    /// f32 (layers).
    weight: Tensor,
    /// 1 − momentum of each layer, f32 (layers).
    keep: Tensor,
    /// Of each layer, f32 (layers).
    momentum: Tensor,
    /// The layer of each channel, i64 (channels of all layers).
    layer: Tensor,
    widths: Vec<i64>,
    /// Stand for what a layer has not seen or not counted: one f64 each, and f32 (channels of the widest layer).
    nothing: Tensor,
    unbiased: Tensor,
    zeros: Tensor,
}

impl RunningStatistics {
    /// Moves the layers' running statistics into one memory; their handles stay valid.
    pub fn new(layers: &[BatchNorm2d], device: Device) -> RunningStatistics {
        let _guard = tch::no_grad_guard();
        let flat = |of: fn(&BatchNorm2d) -> &Tensor| {
            let parts: Vec<&Tensor> = layers.iter().map(of).collect();
            let Some(first) = parts.first() else { return Tensor::zeros([0], (Kind::Float, device)) };
            let all = Tensor::cat(&parts, 0).to_kind(first.kind());
            let mut start = 0;
            for part in parts {
                let length = part.numel() as i64;
                part.shallow_clone().set_data(&all.narrow(0, start, length));
                start += length;
            }
            all
        };
        let widths: Vec<i64> = layers.iter().map(|layer| layer.weight.size()[0]).collect();
        let of_layers = |of: fn(&BatchNorm2d) -> f64| {
            let values: Vec<f32> = layers.iter().map(|layer| of(layer) as f32).collect();
            Tensor::from_slice(&values).to_device(device)
        };
        let of_channel: Vec<i64> =
            widths.iter().enumerate().flat_map(|(layer, &width)| vec![layer as i64; width as usize]).collect();
        let one = |value: f64| Tensor::full([1], value, (Kind::Double, device));
        RunningStatistics {
            mean: flat(|layer| &layer.running_mean),
            variance: flat(|layer| &layer.running_var),
            mean_sum: flat(|layer| &layer.tmp_running_mean),
            variance_sum: flat(|layer| &layer.tmp_running_var),
            weight: flat(|layer| &layer.running_iter),
            keep: of_layers(|layer| 1.0 - layer.momentum),
            momentum: of_layers(|layer| layer.momentum),
            layer: Tensor::from_slice(&of_channel).to_device(device),
            zeros: Tensor::zeros([widths.iter().copied().max().unwrap_or(0)], (Kind::Float, device)),
            widths,
            nothing: one(0.0),
            unbiased: one(f64::INFINITY),
        }
    }

    /// The flat tensors, which only [`RunningStatistics::commit`] and loading change.
    pub fn tensors(&self) -> [Tensor; 5] {
        [&self.mean, &self.variance, &self.mean_sum, &self.variance_sum, &self.weight].map(Tensor::shallow_clone)
    }

    /// Moves what the layers have observed since the last call into the running statistics, in the order of the passes.
    pub fn commit(&self, layers: &[BatchNorm2d], rule: BnRunning) {
        self.each_pass(layers, |observed| self.learn(observed, rule));
    }

    /// Nothing seen yet.
    pub fn estimate(&self) -> Estimate {
        let zeros = |like: &Tensor| Tensor::zeros(like.size(), (Kind::Double, like.device()));
        Estimate { first: zeros(&self.mean), second: zeros(&self.mean), passes: zeros(&self.weight) }
    }

    /// Adds what the layers have observed since the last call to an estimate, in the order of the passes.
    pub fn add(&self, layers: &[BatchNorm2d], estimate: &Estimate) {
        self.each_pass(layers, |observed| {
            let Joined { mean, variance, learns } = self.join(observed);
            let learning = learns.index_select(0, &self.layer);
            let add = |sum: &Tensor, value: Tensor, which: &Tensor| {
                let value = value.to_kind(Kind::Double);
                let _ = sum.shallow_clone().g_add_(&value.where_self(which, &value.zeros_like()));
            };
            let mean = mean.to_kind(Kind::Double);
            add(&estimate.second, variance.to_kind(Kind::Double) + mean.square(), &learning);
            add(&estimate.first, mean, &learning);
            add(&estimate.passes, learns.to_kind(Kind::Double), &learns);
        });
    }

    /// Puts an estimate in the place of the running statistics, but for layers that saw nothing, and returns these. The
    /// sums that the running statistics come from stay.
    pub fn replace_by(&self, estimate: &Estimate) -> Statistics {
        let passes = estimate.passes.index_select(0, &self.layer);
        let mean = &estimate.first / &passes;
        let variance = (&estimate.second / &passes - mean.square()).clamp_min_(0.0);
        let seen = passes.gt(0.0);
        let choose = |new: Tensor, old: &Tensor| new.to_kind(Kind::Float).where_self(&seen, old);
        let new = Statistics { mean: choose(mean, &self.mean), variance: choose(variance, &self.variance) };
        let old = Statistics { mean: self.mean.copy(), variance: self.variance.copy() };
        self.restore(&new);
        old
    }

    /// Puts these statistics in the place of the present ones.
    pub fn restore(&self, statistics: &Statistics) {
        self.mean.shallow_clone().copy_(&statistics.mean);
        self.variance.shallow_clone().copy_(&statistics.variance);
    }

    /// The smallest momentum of a layer; None where there is no layer.
    pub fn slowest(&self) -> Option<f64> {
        (!self.widths.is_empty()).then(|| self.momentum.min().double_value(&[]))
    }

    /// Takes all layers' observations, and hands them out pass by pass; None for a layer that has none.
    fn each_pass(&self, layers: &[BatchNorm2d], mut with: impl FnMut(&[Option<&Observation>])) {
        let observed: Vec<Vec<Observation>> = layers.iter().map(|layer| layer.observed.take()).collect();
        for pass in 0..observed.iter().map(Vec::len).max().unwrap_or(0) {
            let of_pass: Vec<Option<&Observation>> = observed.iter().map(|all| all.get(pass)).collect();
            with(&of_pass);
        }
    }

    fn join(&self, observed: &[Option<&Observation>]) -> Joined {
        let join = |of: &dyn Fn(&Observation) -> &Tensor| {
            let own = |(one, &width): (&Option<&Observation>, &i64)| {
                one.map_or_else(|| self.zeros.narrow(0, 0, width), |one| of(one).shallow_clone())
            };
            Tensor::cat(&observed.iter().zip(&self.widths).map(own).collect::<Vec<_>>(), 0)
        };
        let counts = observed.iter().map(|one| match one {
            None => self.nothing.shallow_clone(),
            Some(one) => one.count.as_ref().unwrap_or(&self.unbiased).shallow_clone(),
        });
        let counts = Tensor::cat(&counts.collect::<Vec<_>>(), 0);
        // N ÷ (N − 1) in a form that is 1 for a variance that is unbiased already.
        let unbias = (1.0f64 - counts.reciprocal()).reciprocal().to_kind(Kind::Float);
        let variance = join(&|one| &one.variance) * unbias.index_select(0, &self.layer);
        Joined { mean: join(&|one| &one.mean), variance, learns: counts.gt(1.0) }
    }

    /// Moves one observation of each layer, None where it has none, into the running statistics.
    fn learn(&self, observed: &[Option<&Observation>], rule: BnRunning) {
        let Joined { mean, variance, learns } = self.join(observed);
        let per_channel = |values: &Tensor| values.index_select(0, &self.layer);
        let learning = per_channel(&learns);
        let replace = |old: &Tensor, new: Tensor, which: &Tensor| {
            old.shallow_clone().copy_(&new.where_self(which, old));
        };
        let keep = per_channel(&self.keep);
        match rule {
            BnRunning::Debiased => {
                replace(&self.weight, &self.weight * &self.keep + 1.0, &learns);
                replace(&self.mean_sum, &self.mean_sum * &keep + mean, &learning);
                replace(&self.variance_sum, &self.variance_sum * &keep + variance, &learning);
                let weight = per_channel(&self.weight);
                replace(&self.mean, &self.mean_sum / &weight, &learning);
                replace(&self.variance, &self.variance_sum / weight, &learning);
            }
            BnRunning::Plain => {
                let momentum = per_channel(&self.momentum);
                replace(&self.mean, &self.mean * &keep + mean * &momentum, &learning);
                replace(&self.variance, &self.variance * &keep + variance * momentum, &learning);
                let weight = per_channel(&self.weight);
                replace(&self.mean_sum, &self.mean * &weight, &learning);
                replace(&self.variance_sum, &self.variance * weight, &learning);
            }
        }
    }
}
