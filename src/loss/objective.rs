//! A loss over all heads of a network: what backward starts from, and what its gradients are then multiplied by.

use super::{Form, Loss, sums_at_label_size};
use tch::Tensor;

/// How large a global batch may get, by the configuration alone, so that every rank knows it without asking.
#[derive(Clone, Copy, Debug)]
pub struct BatchSize {
    /// Label pixels.
    pub pixels: f64,
    /// Images.
    pub images: f64,
    /// Micro-batches.
    pub micro_batches: f64,
}

/// Σ over heads of weight · loss.
pub struct Objective {
    loss: Box<dyn Loss>,
    weights: Vec<f64>,
    size: BatchSize,
    /// A power of two that backward starts with, as the divisor is not known yet: exact in floating point.
    shrink: f64,
}

impl Objective {
    /// `weights`: of the main head, 1, and of those of deep supervision.
    pub fn new(loss: Box<dyn Loss>, weights: Vec<f64>, size: BatchSize) -> Objective {
        let exponent = loss.largest_divisor(size).max(1.0).log2().ceil().min(100.0);
        Objective { loss, weights, size, shrink: 0.5f64.powi(exponent as i32) }
    }

    /// The same heads with another loss.
    pub fn with_loss(self, loss: Box<dyn Loss>) -> Objective {
        Objective::new(loss, self.weights, self.size)
    }

    /// How many sums there are over all heads.
    pub fn length(&self) -> usize {
        self.weights.len() * self.loss.length()
    }

    /// Whether the sums of all ranks may be known after backward. With two heads that choose their pixels there are
    /// two divisors, and gradients can be divided by one alone.
    pub fn divides_late(&self) -> bool {
        match self.loss.form() {
            Form::Mean => true,
            Form::MeanOfChosen => self.weights.len() == 1,
            Form::Joint => false,
        }
    }

    /// The sums of one micro-batch, f64 (heads · sums), from the scores of its heads.
    pub fn sums(&self, heads: &[Tensor], labels: &Tensor) -> Tensor {
        let of_head = |logits: &Tensor| sums_at_label_size(&*self.loss, logits, labels);
        Tensor::cat(&heads.iter().map(of_head).collect::<Vec<_>>(), 0)
    }

    /// What [`Objective::slopes`] needs of a micro-batch, f64 (heads · sums), where the labels alone tell it.
    pub fn label_sums(&self, labels: &Tensor) -> Option<Tensor> {
        self.loss.label_sums(labels).map(|sums| sums.repeat([self.weights.len() as i64]))
    }

    /// What backward starts from with the sums of one micro-batch, before those of all ranks are known.
    pub fn undivided(&self, sums: &Tensor) -> Tensor {
        let of_head = |(head, weight): (usize, &f64)| sums.get((head * self.loss.length()) as i64) * *weight;
        let sum: Tensor = self.weights.iter().enumerate().map(of_head).sum();
        sum * self.shrink
    }

    /// The derivatives of the loss by the sums of all ranks, f64; backward starts from their product with a
    /// micro-batch's own sums.
    pub fn slopes(&self, sums: &[f64]) -> Tensor {
        let sums = Tensor::from_slice(sums).set_requires_grad(true);
        self.differentiable(&sums).backward();
        sums.grad()
    }

    /// What the summed gradients are multiplied by to be those of the loss.
    pub fn gradient_scale(&self, sums: &[f64]) -> f64 {
        match sums.get(1) {
            Some(&divisor) if self.divides_late() && divisor > 0.0 => 1.0 / (divisor * self.shrink),
            // No pixel counts: all gradients are 0.
            Some(_) if self.divides_late() => 1.0 / self.shrink,
            _ => 1.0,
        }
    }

    /// The loss, from the sums of all ranks.
    pub fn value(&self, sums: &[f64]) -> f64 {
        tch::no_grad(|| self.differentiable(&Tensor::from_slice(sums)).double_value(&[]))
    }

    fn differentiable(&self, sums: &Tensor) -> Tensor {
        let heads = sums.view([self.weights.len() as i64, -1]);
        let of_head = |(head, weight): (usize, &f64)| self.loss.value(&heads.get(head as i64)) * *weight;
        self.weights.iter().enumerate().map(of_head).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{LossConfig, LossNorm};
    use tch::Kind;

    const SIZE: BatchSize = BatchSize { pixels: 5.0, images: 3.0, micro_batches: 3.0 };

    fn objective(norm: LossNorm) -> Objective {
        Objective::new(LossConfig::default().build(norm, 3, None), vec![1.0, 0.4], SIZE)
    }

    #[test]
    fn gradients_of_the_undivided_sum_times_the_scale_are_those_of_the_mean() {
        let labels = Tensor::from_slice(&[0i64, 1, -1, 2]).view([1, 2, 2]);
        let scores = Tensor::arange(12, (Kind::Float, tch::Device::Cpu)).sin().view([1, 3, 2, 2]);
        for (norm, divisor) in [(LossNorm::Global, 3.0), (LossNorm::PerRank, 3.0)] {
            let ours = scores.copy().set_requires_grad(true);
            let objective = objective(norm);
            let sums = objective.sums(&[ours.shallow_clone(), ours.shallow_clone()], &labels);
            objective.undivided(&sums).backward();
            let known = Vec::<f64>::try_from(&sums.detach()).unwrap();

            let plain = scores.copy().set_requires_grad(true);
            let loss = crate::loss::summed_nll(&plain, &labels) * 1.4 / divisor;
            loss.backward();
            let scaled = ours.grad() * objective.gradient_scale(&known);
            assert!((scaled - plain.grad()).abs().max().double_value(&[]) < 1e-6, "{norm:?}");
            assert!((objective.value(&known) - loss.double_value(&[])).abs() < 1e-6, "{norm:?}");
        }
    }

    #[test]
    fn slopes_times_own_sums_have_the_gradients_of_the_late_division() {
        let sums = [6.0, 4.0, 2.0, 4.0];
        let objective = objective(LossNorm::Global);
        let slopes = Vec::<f64>::try_from(&objective.slopes(&sums)).unwrap();
        let late = objective.shrink * objective.gradient_scale(&sums);
        assert_eq!((slopes[0], slopes[2]), (late, 0.4 * late));
        assert_eq!(objective.value(&sums), 6.0 / 4.0 + 0.4 * 2.0 / 4.0);
    }

    #[test]
    fn without_a_labelled_pixel_all_is_zero() {
        let none = Tensor::full([1, 2, 2], -1i64, (Kind::Int64, tch::Device::Cpu));
        let scores = Tensor::ones([1, 3, 2, 2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        for norm in [LossNorm::Global, LossNorm::PerRank] {
            let objective = objective(norm);
            let sums = objective.sums(&[scores.shallow_clone(), scores.shallow_clone()], &none);
            objective.undivided(&sums).backward();
            assert_eq!(scores.grad().abs().sum(Kind::Float).double_value(&[]), 0.0, "{norm:?}");
            let known = Vec::<f64>::try_from(&sums.detach()).unwrap();
            assert_eq!(objective.value(&known), 0.0, "{norm:?}");
            assert!(objective.gradient_scale(&known).is_finite(), "{norm:?}");
        }
    }
}
