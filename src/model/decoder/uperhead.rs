//! UPerNet (Xiao et al. 2018, arXiv:1807.10221) as mmsegmentation and transformers have it, with an auxiliary FCN head on
//! the map before the last. As modeling_upernet.py of transformers, with the names of its files; the reference's own form
//! is `upernet`, which resizes pooled maps before batch norm and ReLU, not after.

use super::ppm::SCALES;
use super::{Conv2d, ConvNorm, ConvShape, Decoder, DecoderOptions, DecoderPlan, DecoderRow, Logits, Needs};
use super::{coarsest, finest, pyramid, resize};
use crate::model::layers::Context;
use crate::model::path::Path;
use crate::model::{FeatureMap, Initial};
use tch::Tensor;

pub(super) const ROWS: &[DecoderRow] = &[DecoderRow { name: "uperhead", plan: &Plan }];

/// Channels inside.
const WIDTH: i64 = 512;
/// Channels inside the auxiliary head.
const AUXILIARY_WIDTH: i64 = 256;

struct Plan;

impl DecoderPlan for Plan {
    fn needs(&self) -> Needs {
        Needs::at_least(4)
    }

    fn output_stride(&self, maps: &[FeatureMap]) -> u32 {
        finest(maps).stride
    }

    fn deep_supervision(&self) -> bool {
        true
    }

    fn initial(&self) -> Initial {
        Initial::He
    }

    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
        Box::new(UperHead::new(path, maps, options.width.unwrap_or(WIDTH), options.classes))
    }
}

struct UperHead {
    pyramid: Vec<ConvNorm>,
    bottleneck: ConvNorm,
    /// One for each map but the last, as `outputs`.
    laterals: Vec<ConvNorm>,
    outputs: Vec<ConvNorm>,
    fuse: ConvNorm,
    last: Conv2d,
    auxiliary: (ConvNorm, Conv2d),
}

fn layer(path: &Path, shape: ConvShape) -> ConvNorm {
    ConvNorm::new(&(path / "conv"), &(path / "batch_norm"), shape)
}

impl UperHead {
    fn new(path: &Path, maps: &[FeatureMap], width: i64, classes: i64) -> Self {
        let top = coarsest(maps).width;
        let finer = &maps[..maps.len() - 1];
        let last = Conv2d::with_bias(&(path / "classifier"), ConvShape::new(width, classes, 1));
        let cell = |i| layer(&(path / "psp_modules" / i / 1), ConvShape::new(top, width, 1));
        let pyramid = (0..SCALES.len()).map(cell).collect();
        let bottleneck = layer(&(path / "bottleneck"), ConvShape::new(top + width * SCALES.len() as i64, width, 3));
        let lateral =
            |(i, map): (usize, &FeatureMap)| layer(&(path / "lateral_convs" / i), ConvShape::new(map.width, width, 1));
        let laterals = finer.iter().enumerate().map(lateral).collect();
        let output = |i| layer(&(path / "fpn_convs" / i), ConvShape::new(width, width, 3));
        let outputs = (0..finer.len()).map(output).collect();
        let fuse = layer(&(path / "fpn_bottleneck"), ConvShape::new(width * maps.len() as i64, width, 3));
        let path = path / "auxiliary_head";
        let shape = ConvShape::new(coarsest(finer).width, AUXILIARY_WIDTH, 3);
        let auxiliary = layer(&(&path / "convs" / 0), shape);
        let scores = Conv2d::with_bias(&(&path / "classifier"), ConvShape::new(AUXILIARY_WIDTH, classes, 1));
        UperHead { pyramid, bottleneck, laterals, outputs, fuse, last, auxiliary: (auxiliary, scores) }
    }

    /// The last feature map with its surroundings at four scales.
    fn top(&self, last: &Tensor, context: &Context) -> Tensor {
        let pool =
            |(layer, scale): (&ConvNorm, i64)| layer.forward_relu(&last.adaptive_avg_pool2d([scale, scale]), context);
        let cells: Vec<Tensor> = self.pyramid.iter().zip(SCALES).map(pool).collect();
        self.bottleneck.forward_by(|weight| pyramid::convolve(weight, last, &cells), context).relu_()
    }

    /// Feature maps of one width, finest first.
    fn levels(&self, maps: &[Tensor], context: &Context) -> Vec<Tensor> {
        let (last, finer) = maps.split_last().expect("every decoder needs a map");
        let mut above = self.top(last, context);
        let mut levels = vec![above.shallow_clone()];
        for ((map, lateral), output) in finer.iter().zip(&self.laterals).zip(&self.outputs).rev() {
            above = resize(&above, &map.size()[2..]).g_add_(&lateral.forward_relu(map, context));
            levels.push(output.forward_relu(&above, context));
        }
        levels.reverse();
        levels
    }

    /// The auxiliary head's scores, of the size of `main`.
    fn auxiliary(&self, maps: &[Tensor], main: &Tensor, context: &Context) -> Tensor {
        let (layer, last) = &self.auxiliary;
        let scores = last.forward(&layer.forward_relu(&maps[maps.len() - 2], context), context);
        resize(&scores, &main.size()[2..])
    }
}

impl Decoder for UperHead {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let levels = self.levels(maps, context);
        let fused = |weight: &Tensor| pyramid::convolve(weight, &levels[0], &levels[1..]);
        let fused = self.fuse.forward_by(fused, context).relu_();
        let main = self.last.forward(&fused, context);
        let deepsup = context.pass.deep_supervision.then(|| self.auxiliary(maps, &main, context));
        Logits { main, deepsup }
    }
}
