//! Cross-entropy, with label smoothing and weights of classes.

use super::tiles::{self, Slope};
use super::{BatchSize, ClassWeights, Form, IGNORE, Loss};
use crate::fault::require;
use crate::torch::upload::upload;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

/// `ce` of TRAIN.loss, and what there is to choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrossEntropyConfig {
    /// Part of the target that all classes share equally (Szegedy et al. 2016, arXiv 1512.00567).
    pub smoothing: f64,
    /// How much a pixel of each class counts.
    pub class_weights: ClassWeights,
}

impl CrossEntropyConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        smoothing_fits(self.smoothing)?;
        self.class_weights.validate()
    }
}

pub(super) fn smoothing_fits(smoothing: f64) -> Result<(), String> {
    require((0.0..1.0).contains(&smoothing), || format!("smoothing is {smoothing}: set it to 0 … 1"))
}

/// Σ over labelled pixels of w[y] · ((1 − ε) · −log p[y]) + ε ÷ classes · Σ over classes of w[c] · −log p[c], divided
/// by Σ w[y], as torch.nn.CrossEntropyLoss has it. Without weights, all w are 1.
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    /// ε.
    pub smoothing: f64,
    /// w, one number a class.
    pub weights: Option<Vec<f32>>,
}

impl CrossEntropy {
    /// −log softmax(logits)[label] of every pixel, 0 where it has no label: f32 (n, h, w).
    pub fn of_pixels(logits: &Tensor, labels: &Tensor) -> Tensor {
        nll(logits, labels, Reduction::None)
    }

    /// Σ of all pixels' losses: S₀.
    pub(super) fn sum(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        if self.smoothing == 0.0 && self.weights.is_none() {
            return summed_nll(logits, labels);
        }
        let logits = logits.to_kind(Kind::Float);
        let weights = self.weights_on(logits.device());
        logits.cross_entropy_loss(labels, weights, Reduction::Sum, IGNORE, self.smoothing)
    }

    /// Σ w[y]: S₁, f64.
    pub(super) fn divisor(&self, labels: &Tensor) -> Tensor {
        let labelled = labels.ne(IGNORE);
        match self.weights_on(labels.device()) {
            None => labelled.sum(Kind::Double),
            Some(weights) => (weights.take(&labels.clamp_min(0)) * labelled).sum(Kind::Double),
        }
    }

    fn weights_on(&self, device: Device) -> Option<Tensor> {
        self.weights.as_ref().map(|weights| upload(&Tensor::from_slice(weights), device))
    }

    pub(super) fn largest_weight(&self) -> f64 {
        self.weights.iter().flatten().copied().reduce(f32::max).map_or(1.0, f64::from)
    }
}

impl Loss for CrossEntropy {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let own = self.clone();
        tiles::sum(logits, labels, Slope::First, move |logits, labels| {
            Tensor::stack(&[own.sum(logits, labels).to_kind(Kind::Double), own.divisor(labels)], 0)
        })
    }

    fn enlarges(&self) -> bool {
        true
    }

    fn form(&self) -> Form {
        Form::Mean
    }

    fn label_sums(&self, labels: &Tensor) -> Option<Tensor> {
        Some(super::only_divisor(self.divisor(labels)))
    }

    fn largest_divisor(&self, size: BatchSize) -> f64 {
        size.pixels * self.largest_weight()
    }
}

/// Σ over labelled pixels of −log softmax(logits)[label].
///
/// `logits`: f32 (n, classes, h, w); `labels`: i64 (n, h, w) in −1..classes. A scalar, 0 where nothing is labelled.
pub fn summed_nll(logits: &Tensor, labels: &Tensor) -> Tensor {
    nll(logits, labels, Reduction::Sum)
}

fn nll(logits: &Tensor, labels: &Tensor, reduction: Reduction) -> Tensor {
    logits.log_softmax(1, Kind::Float).nll_loss2d::<Tensor>(labels, None, reduction, IGNORE)
}

/// How many labelled pixels have their label as the largest logit. An i64 scalar tensor.
///
/// `logits` may be smaller than `labels`, and are then enlarged.
pub fn correct_pixels(logits: &Tensor, labels: &Tensor) -> Tensor {
    tiles::map(logits, labels, |logits, labels| logits.argmax(1, false).eq_tensor(labels)).sum(Kind::Int64)
}
