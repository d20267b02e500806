//! Dice: how little prediction and truth overlap, class by class, of an image or of the whole global batch.

use super::tiles::{self, Slope};
use super::{BatchSize, Form, IGNORE, Loss, labelled_images, only_divisor};
use crate::fault::require;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// `dice` of TRAIN.loss, and what there is to choose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiceConfig {
    /// What is taken together: each image, and then their mean, or the global batch of all ranks.
    pub over: Together,
    /// Added above and below the fraction line.
    pub smooth: f64,
}

/// What Dice counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Together {
    Image,
    Batch,
}

impl Default for DiceConfig {
    fn default() -> Self {
        DiceConfig { over: Together::Image, smooth: 0.0 }
    }
}

impl DiceConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        let smooth = self.smooth;
        require((0.0..=1e9).contains(&smooth), || format!("smooth is {smooth}: set it to 0 or more"))
    }
}

/// The mean over all classes of 1 − (Σ p·t + smooth) ÷ (½ Σ (p + t) + smooth), where p is the softmax and t the truth of
/// labelled pixels; 0 for a class that does not occur in them (Milletari et al. 2016, arXiv 1606.04797; `DiceLoss` of
/// segmentation_models_pytorch 0.6).
pub struct Dice {
    /// See [`DiceConfig`].
    pub config: DiceConfig,
    /// Number of classes.
    pub classes: i64,
}

/// The least that is divided by.
const EPS: f64 = 1e-7;

impl Dice {
    /// Σ p·t, Σ (p + t) and Σ t of every image and class, f64 (n, 3, classes).
    fn overlaps(logits: &Tensor, labels: &Tensor) -> Tensor {
        let labelled = labels.ne(IGNORE).unsqueeze(1).to_kind(Kind::Float);
        let shares = logits.softmax(1, Kind::Float) * &labelled;
        let truth = shares.zeros_like().scatter_(1, &labels.clamp_min(0).unsqueeze(1), &labelled);
        let of_images = |values: &Tensor| values.sum_dim_intlist([2i64, 3].as_slice(), false, Kind::Double);
        let counts = of_images(&truth);
        Tensor::stack(&[of_images(&(&shares * &truth)), of_images(&shares) + &counts, counts], 1)
    }

    /// The loss from overlaps (…, 3, classes): (…).
    fn of_overlaps(&self, overlaps: &Tensor) -> Tensor {
        let [common, all, truth] = [0, 1, 2].map(|part| overlaps.select(-2, part));
        let smooth = self.config.smooth;
        let dice = (common + smooth) / (all * 0.5 + smooth).clamp_min(EPS);
        ((1f64 - dice) * truth.gt(0.0)).mean_dim([-1i64].as_slice(), false, Kind::Double)
    }
}

impl Loss for Dice {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let overlaps = tiles::sum(logits, labels, Slope::All, Dice::overlaps);
        match self.config.over {
            Together::Batch => overlaps.sum_dim_intlist([0i64].as_slice(), false, Kind::Double).flatten(0, 1),
            Together::Image => {
                let sum = self.of_overlaps(&overlaps).sum(Kind::Double);
                Tensor::stack(&[sum, labelled_images(labels)], 0)
            }
        }
    }

    fn enlarges(&self) -> bool {
        true
    }

    fn length(&self) -> usize {
        match self.config.over {
            Together::Image => 2,
            Together::Batch => 3 * self.classes as usize,
        }
    }

    fn form(&self) -> Form {
        match self.config.over {
            Together::Image => Form::Mean,
            Together::Batch => Form::Joint,
        }
    }

    fn value(&self, sums: &Tensor) -> Tensor {
        match self.config.over {
            Together::Image => super::quotient(sums),
            Together::Batch => self.of_overlaps(&sums.view([3, self.classes])),
        }
    }

    fn label_sums(&self, labels: &Tensor) -> Option<Tensor> {
        (self.config.over == Together::Image).then(|| only_divisor(labelled_images(labels)))
    }

    fn largest_divisor(&self, size: BatchSize) -> f64 {
        size.images
    }
}
