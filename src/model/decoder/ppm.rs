//! Pyramid pooling (Zhao et al. 2016, arXiv:1612.01105; `PPM`, `PPMDeepsup` in the reference's models.py).

use super::{Conv2d, ConvNorm, ConvShape, Decoder, DecoderRow, DeepSupervision, Logits, OnCoarsest};
use super::{MAIN_DROPOUT, coarsest, conv3x3, pyramid};
use crate::model::FeatureMap;
use crate::model::layers::Context;
use crate::model::path::Path;
use tch::Tensor;

/// Cells per side of the pooled maps.
pub(super) const SCALES: [i64; 4] = [1, 2, 3, 6];
/// Channels of every pooled map, and before the scores.
pub(super) const WIDTH: i64 = 512;

pub(super) const ROWS: &[DecoderRow] = &[
    DecoderRow { name: "ppm", plan: &OnCoarsest { deep: false, build } },
    DecoderRow { name: "ppm_deepsup", plan: &OnCoarsest { deep: true, build } },
];

fn build(path: &Path, maps: &[FeatureMap], classes: i64, deep: bool) -> Box<dyn Decoder> {
    Box::new(Ppm::new(path, maps, classes, deep))
}

struct Ppm {
    pyramid: Vec<ConvNorm>,
    fuse: ConvNorm,
    last: Conv2d,
    deep: Option<DeepSupervision>,
}

impl Ppm {
    fn new(path: &Path, maps: &[FeatureMap], classes: i64, deep: bool) -> Self {
        let width = coarsest(maps).width;
        let cell = |i| {
            let path = path / "ppm" / i;
            ConvNorm::new(&(&path / 1), &(&path / 2), ConvShape::new(width, WIDTH, 1))
        };
        let pyramid = (0..SCALES.len()).map(cell).collect();
        let cbr_deepsup = deep.then(|| conv3x3(&(path / "cbr_deepsup"), maps[maps.len() - 2].width, width / 4));
        let fused = width + WIDTH * SCALES.len() as i64;
        let last = path / "conv_last";
        let fuse = ConvNorm::sequential(&last, ConvShape::new(fused, WIDTH, 3));
        let last = Conv2d::with_bias(&(&last / 4), ConvShape::new(WIDTH, classes, 1));
        let deep = cbr_deepsup.map(|cbr| {
            let shape = ConvShape::new(width / 4, classes, 1);
            DeepSupervision { cbr, last: Conv2d::with_bias(&(path / "conv_last_deepsup"), shape) }
        });
        Ppm { pyramid, fuse, last, deep }
    }
}

impl Decoder for Ppm {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let x = &maps[maps.len() - 1];
        let pool =
            |(layer, scale): (&ConvNorm, i64)| layer.forward_relu(&x.adaptive_avg_pool2d([scale, scale]), context);
        let cells: Vec<Tensor> = self.pyramid.iter().zip(SCALES).map(pool).collect();
        let fused = self.fuse.forward_by(|weight| pyramid::convolve(weight, x, &cells), context);
        let main = self.last.forward(&context.dropout(MAIN_DROPOUT, fused).relu_(), context);
        let deep = self.deep.as_ref().filter(|_| context.pass.deep_supervision);
        let deepsup = deep.map(|head| head.forward(maps, &main, true, context));
        Logits { main, deepsup }
    }
}
