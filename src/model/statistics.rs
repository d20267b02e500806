//! The running statistics of all batch norm layers in flat memory: one update is some thirty operations, whatever the
//! number of layers, and it may be left out by a flag that only the device knows.

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

    /// Moves what the layers have observed since the last call into the running statistics, in the order of the passes.
    pub fn commit(&self, layers: &[BatchNorm2d], rule: BnRunning) {
        let observed: Vec<Vec<Observation>> = layers.iter().map(|layer| layer.observed.take()).collect();
        for pass in 0..observed.iter().map(Vec::len).max().unwrap_or(0) {
            let of_pass: Vec<Option<&Observation>> = observed.iter().map(|all| all.get(pass)).collect();
            self.learn(&of_pass, rule);
        }
    }

    /// Moves one observation of each layer, None where it has none, into the running statistics.
    fn learn(&self, observed: &[Option<&Observation>], rule: BnRunning) {
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
        let per_channel = |values: &Tensor| values.index_select(0, &self.layer);
        // N ÷ (N − 1) in a form that is 1 for a variance that is unbiased already.
        let unbias = (1.0f64 - counts.reciprocal()).reciprocal().to_kind(Kind::Float);
        let (mean, variance) = (join(&|one| &one.mean), join(&|one| &one.variance) * per_channel(&unbias));
        let learns = counts.gt(1.0);
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
