//! The training loss, from local sums over pixels, so that any number of ranks computes the same one.
//!
//! A loss is f(S), where S is a short vector: Σ over ranks and their micro-batches of s(logits, labels). The mean over
//! labelled pixels, for one, is S₀ ÷ S₁ with s = (Σ nll, number of labelled pixels). The reference averages per GPU and
//! then over GPUs (mit_semseg/models/models.py, train.py `loss.mean()`), which weights a pixel by how many labelled
//! neighbours its GPU happened to have; a sum of sums does not.
//!
//! The trainer calls s for every micro-batch and head, and needs to know S before backward only where the [`Form`] says
//! so. Gradients of an undivided S₀ are divided by S₁ in the optimizer, so that no rank waits for another in between.
//!
//! # How to add a loss
//!
//! Implement [`Loss`] in a file of this folder, with its parameters and a variant of [`Term`] if a configuration is to
//! ask for it, or anywhere for [`crate::train::Trainer::with_loss`]. Heads of deep supervision have the same loss, times
//! their weight. Where labels are larger than the scores, scores come enlarged, all at once: a loss that takes them in
//! tiles ([`tiles::sum`]) says so in [`Loss::enlarges`], and needs a fraction of the memory.
//!
//! ```
//! use segdist::loss::{CrossEntropy, Form, Loss};
//! use tch::{Kind, Tensor};
//!
//! /// Cross-entropy over the pixels that have more than the mean one has.
//! struct Hard;
//!
//! impl Loss for Hard {
//!     fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
//!         let nll = CrossEntropy::of_pixels(logits, labels);
//!         let kept = nll.gt_tensor(&nll.mean(Kind::Float)).detach().to_kind(Kind::Float);
//!         Tensor::stack(&[(&nll * &kept).sum(Kind::Float), kept.sum(Kind::Float)], 0)
//!     }
//!     fn form(&self) -> Form {
//!         Form::MeanOfChosen
//!     }
//! }
//! let logits = Tensor::from_slice(&[2f32, 0.0, 0.0, 0.0]).view([1, 2, 1, 2]);
//! let sums = Hard.sums(&logits, &Tensor::from_slice(&[0i64, 1]).view([1, 1, 2]));
//! assert_eq!(sums.double_value(&[1]), 1.0);
//! ```

mod class_weights;
mod config;
mod cross_entropy;
mod dice;
mod focal;
mod lovasz;
mod objective;
mod ohem;
mod sum;
pub mod tiles;

pub use class_weights::ClassWeights;
pub use config::{LossConfig, Term};
pub use cross_entropy::{CrossEntropy, CrossEntropyConfig, correct_pixels, summed_nll};
pub use dice::{Dice, DiceConfig, Together};
pub use focal::{Focal, FocalConfig};
pub use lovasz::Lovasz;
pub use objective::{BatchSize, Objective};
pub use ohem::{Ohem, OhemConfig, Over};
pub use sum::{MeanOfMicroBatches, WeightedSum};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The label of a pixel that counts for nothing.
pub const IGNORE: i64 = -1;

/// How a loss depends on its sums, and with that when they must be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// S₀ ÷ S₁, where S₁ depends on the labels alone and is the same for every head: cross-entropy, class weights.
    Mean,
    /// S₀ ÷ S₁, where S₁ depends on the scores as well, but not smoothly: pixels chosen by their loss (OHEM).
    MeanOfChosen,
    /// Any smooth function of S, such as Dice over the global batch. The sums go over the ranks between forward and
    /// backward; where a rank has several micro-batches, each is run forward twice, unless [`Loss::label_sums`] are
    /// enough.
    Joint,
}

/// A loss as a function of sums over ranks.
pub trait Loss: Send + Sync {
    /// s: the sums of one micro-batch, one-dimensional, of any float type, differentiable in `logits`.
    ///
    /// `logits`: f32 (n, classes, h, w), n ≥ 1; `labels`: i64 (n, h, w) in -1 … classes - 1. Pixels of label
    /// [`IGNORE`] add nothing to any sum.
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor;

    /// Whether `sums` takes logits that are smaller than the labels, for the enlarged ones that they stand for.
    fn enlarges(&self) -> bool {
        false
    }

    /// How many sums there are; two unless `value` is another function than their quotient.
    fn length(&self) -> usize {
        2
    }

    /// When the sums must be known.
    fn form(&self) -> Form;

    /// f: the loss, a scalar, from f64 sums over all ranks; differentiable where the form is [`Form::Joint`].
    ///
    /// 0 for sums that are all 0: a batch without a labelled pixel.
    fn value(&self, sums: &Tensor) -> Tensor {
        quotient(sums)
    }

    /// The sums that do not depend on the scores, and 0 for the others; None unless that is enough to differentiate
    /// `value` by the others. It spares a [`Form::Joint`] the second forward pass.
    fn label_sums(&self, _labels: &Tensor) -> Option<Tensor> {
        None
    }

    /// About how large S₁ may get in a global batch of this size. Backward starts from S₀ ÷ a power of two near it, so
    /// that 16-bit gradients neither overflow nor vanish.
    fn largest_divisor(&self, size: BatchSize) -> f64 {
        size.pixels
    }
}

/// S₀ ÷ S₁, and S₀ where S₁ is 0.
fn quotient(sums: &Tensor) -> Tensor {
    let (sum, divisor) = (sums.get(0), sums.get(1));
    let nothing = divisor.eq(0.0).to_kind(Kind::Double);
    sum / (divisor + nothing)
}

/// (0, `divisor`): what [`Loss::label_sums`] are of a quotient whose divisor hangs on the labels alone.
fn only_divisor(divisor: Tensor) -> Tensor {
    Tensor::stack(&[divisor.zeros_like(), divisor], 0)
}

/// How many images have a labelled pixel, f64.
fn labelled_images(labels: &Tensor) -> Tensor {
    labels.ne(IGNORE).flatten(1, 2).any_dim(1, false).sum(Kind::Double)
}

/// The sums of a loss of scores that may be smaller than the labels.
fn sums_at_label_size(loss: &dyn Loss, logits: &Tensor, labels: &Tensor) -> Tensor {
    if loss.enlarges() || tiles::fits(logits, labels) {
        return loss.sums(logits, labels).to_kind(Kind::Double);
    }
    let enlarged = logits.to_kind(Kind::Float).upsample_bilinear2d(&labels.size()[1..], false, None, None);
    loss.sums(&enlarged, labels).to_kind(Kind::Double)
}

/// TRAIN.loss_norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum LossNorm {
    Global,
    PerRank,
}
