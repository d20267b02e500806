//! C1: one 3 × 3 convolution on the last feature map, then the scores (`C1`, `C1DeepSup` in the reference's models.py).

use super::{Conv2d, ConvNorm, ConvShape, DeepSupervision, Logits, conv3x3};
use crate::model::layers::Context;
use crate::model::path::Path;
use tch::Tensor;

pub(in crate::model) struct C1 {
    cbr: ConvNorm,
    last: Conv2d,
    deep: Option<DeepSupervision>,
}

impl C1 {
    /// On the last of the feature maps' `widths`, with deep supervision on the one before if `deep`.
    pub fn new(path: &Path, widths: &[i64], classes: i64, deep: bool) -> Self {
        let width = widths[widths.len() - 1];
        let cbr = conv3x3(&(path / "cbr"), width, width / 4);
        let cbr_deepsup = deep.then(|| conv3x3(&(path / "cbr_deepsup"), width / 2, width / 4));
        let scores = ConvShape::new(width / 4, classes, 1);
        let last = Conv2d::with_bias(&(path / "conv_last"), scores);
        let deep = cbr_deepsup
            .map(|cbr| DeepSupervision { cbr, last: Conv2d::with_bias(&(path / "conv_last_deepsup"), scores) });
        C1 { cbr, last, deep }
    }

    pub fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let x = self.cbr.forward_relu(&maps[maps.len() - 1], context);
        let main = self.last.forward(&x, context);
        let deep = self.deep.as_ref().filter(|_| context.pass.deep_supervision);
        let deepsup = deep.map(|head| head.forward(maps, &main, false, context));
        Logits { main, deepsup }
    }
}
