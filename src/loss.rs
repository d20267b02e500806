//! The training loss as a sum over labelled pixels, so that ranks can add theirs up before dividing once.
//!
//! The reference averages per GPU and then over GPUs (mit_semseg/models/models.py, train.py `loss.mean()`),
//! which weights a pixel by how many labelled neighbours its GPU happened to have. Here
//! `loss = Σ over ranks Σ over pixels nll ÷ Σ over ranks labelled pixels`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

/// The label of a pixel that counts for nothing.
pub const IGNORE: i64 = -1;

/// TRAIN.loss_norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LossNorm {
    Global,
    PerRank,
}

/// Σ over labelled pixels of −log softmax(logits)[label].
///
/// `logits`: f32 (n, classes, h, w); `labels`: i64 (n, h, w) in −1..classes. A scalar, 0 where nothing is labelled.
pub fn summed_nll(logits: &Tensor, labels: &Tensor) -> Tensor {
    let log_probabilities = logits.log_softmax(1, Kind::Float);
    log_probabilities.nll_loss2d::<Tensor>(labels, None, Reduction::Sum, IGNORE)
}

/// [`summed_nll`] of the scores and, where there is a second head, of its scores times `scale` (TRAIN.deep_sup_scale).
///
/// The reference's SegmentationModule (mit_semseg/models/models.py).
pub fn summed_nll_of_heads(main: &Tensor, deepsup: Option<&Tensor>, scale: f64, labels: &Tensor) -> Tensor {
    let sum = summed_nll(main, labels);
    match deepsup {
        Some(deepsup) => sum + summed_nll(deepsup, labels) * scale,
        None => sum,
    }
}

/// How many labelled pixels have their label as the largest logit. An i64 scalar tensor.
pub fn correct_pixels(logits: &Tensor, labels: &Tensor) -> Tensor {
    tch::no_grad(|| logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64))
}
