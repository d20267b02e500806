//! Focal loss: each class against all others, the easy pixels of it counting little.

use super::tiles::{self, Slope};
use super::{Form, IGNORE, Loss};
use crate::fault::require;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

/// `focal` of TRAIN.loss, and what there is to choose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FocalConfig {
    /// How fast the weight of a pixel falls with its probability.
    pub gamma: f64,
    /// Weight of pixels of the class against 1 − alpha of the others; none: 1 for both.
    pub alpha: Option<f64>,
}

impl Default for FocalConfig {
    fn default() -> Self {
        FocalConfig { gamma: 2.0, alpha: None }
    }
}

impl FocalConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        // Between 0 and 1 the slope is infinite where a pixel is certain.
        let gamma = self.gamma;
        require(gamma == 0.0 || (1.0..=100.0).contains(&gamma), || {
            format!("gamma is {gamma}: set it to 0, or 1 … 100")
        })?;
        let alpha = self.alpha.unwrap_or(0.0);
        require((0.0..=1.0).contains(&alpha), || format!("alpha is {alpha}: set it to 0 … 1"))
    }
}

/// The mean over classes and labelled pixels of (1 − q)^gamma · −log q, where q is sigmoid(logit) at pixels of the class
/// and 1 − sigmoid(logit) elsewhere (Lin et al. 2017, arXiv 1708.02002; `FocalLoss` of segmentation_models_pytorch 0.6).
pub struct Focal(pub FocalConfig);

impl Focal {
    fn sum(config: FocalConfig, logits: &Tensor, labels: &Tensor) -> Tensor {
        let logits = logits.to_kind(Kind::Float);
        let labelled = labels.ne(IGNORE);
        let truth = logits.zeros_like().scatter_value_(1, &labels.clamp_min(0).unsqueeze(1), 1.0);
        let nll = logits.binary_cross_entropy_with_logits::<Tensor>(&truth, None, None, Reduction::None);
        let mut loss = (1f64 - nll.neg().exp()).pow_tensor_scalar(config.gamma) * nll;
        if let Some(alpha) = config.alpha {
            loss *= truth * (2.0 * alpha - 1.0) + (1.0 - alpha);
        }
        let sum = (loss.mean_dim([1i64].as_slice(), false, Kind::Float) * &labelled).sum(Kind::Double);
        Tensor::stack(&[sum, labelled.sum(Kind::Double)], 0)
    }
}

impl Loss for Focal {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let config = self.0;
        tiles::sum(logits, labels, Slope::First, move |logits, labels| Focal::sum(config, logits, labels))
    }

    fn enlarges(&self) -> bool {
        true
    }

    fn form(&self) -> Form {
        Form::Mean
    }

    fn label_sums(&self, labels: &Tensor) -> Option<Tensor> {
        Some(super::only_divisor(labels.ne(IGNORE).sum(Kind::Double)))
    }
}
