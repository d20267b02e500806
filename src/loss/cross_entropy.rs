//! Cross-entropy, by the mean over all labelled pixels or over the means of micro-batches.

use super::{BatchSize, Form, IGNORE, Loss, LossNorm};
use tch::{Kind, Reduction, Tensor};

/// Σ −log softmax(logits)[label] over labelled pixels ÷ how many there are.
pub struct CrossEntropy {
    /// One mean over all pixels, or the reference's mean of means.
    pub norm: LossNorm,
}

impl CrossEntropy {
    /// −log softmax(logits)[label] of every pixel, 0 where it has no label: f32 (n, h, w).
    pub fn of_pixels(logits: &Tensor, labels: &Tensor) -> Tensor {
        nll(logits, labels, Reduction::None)
    }
}

impl Loss for CrossEntropy {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let labelled = labels.ne(IGNORE).sum(Kind::Double);
        let sum = summed_nll(logits, labels).to_kind(Kind::Double);
        match self.norm {
            LossNorm::Global => Tensor::stack(&[sum, labelled], 0),
            LossNorm::PerRank => {
                let mean = sum / labelled.clamp_min(1.0);
                Tensor::stack(&[mean, labelled.ones_like()], 0)
            }
        }
    }

    fn form(&self) -> Form {
        Form::Mean
    }

    fn largest_divisor(&self, size: BatchSize) -> f64 {
        match self.norm {
            LossNorm::Global => size.pixels,
            LossNorm::PerRank => size.micro_batches,
        }
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
pub fn correct_pixels(logits: &Tensor, labels: &Tensor) -> Tensor {
    tch::no_grad(|| logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64))
}
