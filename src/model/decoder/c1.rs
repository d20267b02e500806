//! C1: one 3 × 3 convolution on the last feature map, then the scores (`C1`, `C1DeepSup` in the reference's models.py).

use super::{Conv2d, ConvNorm, ConvShape, Decoder, DecoderRow, DeepSupervision, Logits, OnCoarsest};
use super::{coarsest, conv3x3};
use crate::model::FeatureMap;
use crate::model::layers::Context;
use crate::model::path::Path;
use tch::Tensor;

pub(super) const ROWS: &[DecoderRow] = &[
    DecoderRow { name: "c1", plan: &OnCoarsest { deep: false, build } },
    DecoderRow { name: "c1_deepsup", plan: &OnCoarsest { deep: true, build } },
];

fn build(path: &Path, maps: &[FeatureMap], classes: i64, deep: bool) -> Box<dyn Decoder> {
    Box::new(C1::new(path, maps, classes, deep))
}

struct C1 {
    cbr: ConvNorm,
    last: Conv2d,
    deep: Option<DeepSupervision>,
}

impl C1 {
    fn new(path: &Path, maps: &[FeatureMap], classes: i64, deep: bool) -> Self {
        let width = coarsest(maps).width;
        let cbr = conv3x3(&(path / "cbr"), width, width / 4);
        let cbr_deepsup = deep.then(|| conv3x3(&(path / "cbr_deepsup"), maps[maps.len() - 2].width, width / 4));
        let scores = ConvShape::new(width / 4, classes, 1);
        let last = Conv2d::with_bias(&(path / "conv_last"), scores);
        let deep = cbr_deepsup
            .map(|cbr| DeepSupervision { cbr, last: Conv2d::with_bias(&(path / "conv_last_deepsup"), scores) });
        C1 { cbr, last, deep }
    }
}

impl Decoder for C1 {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let x = self.cbr.forward_relu(&maps[maps.len() - 1], context);
        let main = self.last.forward(&x, context);
        let deep = self.deep.as_ref().filter(|_| context.pass.deep_supervision);
        let deepsup = deep.map(|head| head.forward(maps, &main, false, context));
        Logits { main, deepsup }
    }
}
