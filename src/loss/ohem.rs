//! Online hard example mining (Shrivastava et al. 2016, arXiv 1604.03540): cross-entropy over the hard pixels alone.

use super::cross_entropy::{CrossEntropyConfig, smoothing_fits};
use super::tiles;
use super::{BatchSize, ClassWeights, CrossEntropy, Form, IGNORE, Loss};
use crate::fault::require;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// `ohem` of TRAIN.loss, and what there is to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OhemConfig {
    /// Pixels count whose class has less than this probability …
    pub threshold: f64,
    /// … and in any case about this many of the hardest of an image.
    pub least: i64,
    /// What the sum is divided by: the pixels that count (HRNet, BiSeNet), or all that are labelled (mmsegmentation).
    pub over: Over,
    /// As for `ce`.
    pub smoothing: f64,
    /// As for `ce`.
    pub class_weights: ClassWeights,
}

/// What OHEM is a mean over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Over {
    Chosen,
    Labelled,
}

impl Default for OhemConfig {
    fn default() -> Self {
        let CrossEntropyConfig { smoothing, class_weights } = CrossEntropyConfig::default();
        OhemConfig { threshold: 0.7, least: 100_000, over: Over::Chosen, smoothing, class_weights }
    }
}

impl OhemConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        let Self { threshold, least, .. } = *self;
        require((0.0..=1.0).contains(&threshold), || format!("threshold is {threshold}: set it to 0 … 1"))?;
        require(least >= 0, || format!("least is {least}: set it to a number of pixels, 0 or more"))?;
        smoothing_fits(self.smoothing)?;
        self.class_weights.validate()
    }
}

/// [`CrossEntropy`] over the pixels that [`Ohem::choose`] leaves a label.
pub struct Ohem {
    /// See [`OhemConfig`].
    pub threshold: f64,
    /// See [`OhemConfig`].
    pub least: i64,
    /// See [`OhemConfig`].
    pub over: Over,
    /// Of a pixel that counts.
    pub loss: CrossEntropy,
}

impl Ohem {
    /// `labels` with [`IGNORE`] at all pixels that do not count.
    ///
    /// The rule of mmsegmentation (mmseg/structures/sampler/ohem_pixel_sampler.py), for each image by itself: a pixel
    /// counts where the probability of its class is less than the larger of the threshold and the `least`th smallest
    /// (from 0) of the image, or the largest where it has fewer labelled pixels.
    pub fn choose(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let probability =
            tiles::map(logits, labels, |logits, labels| CrossEntropy::of_pixels(logits, labels).neg().exp());
        tch::no_grad(|| {
            let ignored = labels.eq(IGNORE);
            // Larger than any probability: behind all others.
            let sorted = probability.masked_fill(&ignored, 2.0).flatten(1, 2).sort(1, false).0;
            let last = ignored.logical_not().sum_dim_intlist([1i64, 2].as_slice(), true, Kind::Int64) - 1;
            let at = last.clamp_max(self.least).clamp_min(0).flatten(1, 2);
            let limit = sorted.gather(1, &at, false).clamp_min(self.threshold).unsqueeze(2);
            labels.masked_fill(&probability.ge_tensor(&limit), IGNORE)
        })
    }
}

impl Loss for Ohem {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let sums = self.loss.sums(logits, &self.choose(logits, labels));
        match self.over {
            Over::Chosen => sums,
            Over::Labelled => Tensor::stack(&[sums.get(0), self.loss.divisor(labels)], 0),
        }
    }

    fn enlarges(&self) -> bool {
        true
    }

    fn form(&self) -> Form {
        match self.over {
            Over::Chosen => Form::MeanOfChosen,
            Over::Labelled => Form::Mean,
        }
    }

    fn label_sums(&self, labels: &Tensor) -> Option<Tensor> {
        (self.over == Over::Labelled).then(|| self.loss.label_sums(labels)).flatten()
    }

    fn largest_divisor(&self, size: BatchSize) -> f64 {
        self.loss.largest_divisor(size)
    }
}
