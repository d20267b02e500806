//! Losses made of other losses: a weighted sum, and the reference's mean over micro-batches.

use super::{BatchSize, Form, Loss};
use tch::Tensor;

/// Σ of weight · loss. Its sums are those of its terms, one after the other.
pub struct WeightedSum(pub Vec<(f64, Box<dyn Loss>)>);

impl Loss for WeightedSum {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let of_term = |(_, loss): &(f64, Box<dyn Loss>)| super::sums_at_label_size(&**loss, logits, labels);
        Tensor::cat(&self.0.iter().map(of_term).collect::<Vec<_>>(), 0)
    }

    fn enlarges(&self) -> bool {
        true
    }

    fn length(&self) -> usize {
        self.0.iter().map(|(_, loss)| loss.length()).sum()
    }

    fn form(&self) -> Form {
        Form::Joint
    }

    fn value(&self, sums: &Tensor) -> Tensor {
        let mut first = 0;
        let of_term = |(weight, loss): &(f64, Box<dyn Loss>)| {
            let own = sums.narrow(0, first, loss.length() as i64);
            first += loss.length() as i64;
            loss.value(&own) * *weight
        };
        self.0.iter().map(of_term).sum()
    }

    fn label_sums(&self, labels: &Tensor) -> Option<Tensor> {
        let of_terms: Option<Vec<Tensor>> = self.0.iter().map(|(_, loss)| loss.label_sums(labels)).collect();
        of_terms.map(|sums| Tensor::cat(&sums, 0))
    }
}

/// TRAIN.loss_norm per_rank: the mean of the losses of all micro-batches, each by itself, as the reference averages its
/// GPUs' (train.py). One without a labelled pixel counts as 0.
pub struct MeanOfMicroBatches(pub Box<dyn Loss>);

impl Loss for MeanOfMicroBatches {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let value = self.0.value(&super::sums_at_label_size(&*self.0, logits, labels));
        Tensor::stack(&[&value, &value.ones_like()], 0)
    }

    fn enlarges(&self) -> bool {
        true
    }

    fn form(&self) -> Form {
        Form::Mean
    }

    fn label_sums(&self, labels: &Tensor) -> Option<Tensor> {
        Some(Tensor::from_slice(&[0.0, 1.0]).to_device(labels.device()))
    }

    fn largest_divisor(&self, size: BatchSize) -> f64 {
        size.micro_batches
    }
}
