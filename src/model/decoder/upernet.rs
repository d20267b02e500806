//! UPerNet (Xiao et al. 2018, arXiv:1807.10221): pyramid pooling on the last feature map, then a feature pyramid down to
//! the finest (`UPerNet` in the reference's models.py, whose lateral widths fit ResNet-50 alone; here the encoder gives them).

use super::ppm::{SCALES, WIDTH};
use super::{
    Conv2d, ConvNorm, ConvShape, Decoder, DecoderOptions, DecoderPlan, DecoderRow, Logits, Needs, conv3x3, finest,
    resize,
};
use crate::model::FeatureMap;
use crate::model::layers::Context;
use crate::model::path::Path;
use tch::Tensor;

pub(super) const ROWS: &[DecoderRow] = &[
    DecoderRow { name: "upernet", plan: &Plan { width: 512 } },
    DecoderRow { name: "upernet_lite", plan: &Plan { width: 256 } },
];

struct Plan {
    /// Channels of its feature pyramid.
    width: i64,
}

impl DecoderPlan for Plan {
    fn needs(&self) -> Needs {
        Needs::at_least(4)
    }

    fn output_stride(&self, maps: &[FeatureMap]) -> u32 {
        finest(maps).stride
    }

    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
        Box::new(UperNet::new(path, maps, options.classes, self.width))
    }
}

struct UperNet {
    pyramid: Vec<ConvNorm>,
    top: ConvNorm,
    /// One per feature map but the last, as `outputs`.
    laterals: Vec<ConvNorm>,
    outputs: Vec<ConvNorm>,
    fuse: ConvNorm,
    last: Conv2d,
}

impl UperNet {
    /// `width`: channels of the feature pyramid.
    fn new(path: &Path, maps: &[FeatureMap], classes: i64, width: i64) -> Self {
        let (FeatureMap { width: last, .. }, finer) = maps.split_last().expect("every decoder needs a map");
        let pyramid = path / "ppm_conv";
        let pyramid =
            (0..SCALES.len()).map(|i| ConvNorm::sequential(&(&pyramid / i), ConvShape::new(*last, WIDTH, 1))).collect();
        let top = conv3x3(&(path / "ppm_last_conv"), last + WIDTH * SCALES.len() as i64, width);
        let (lateral, output) = (path / "fpn_in", path / "fpn_out");
        let lateral =
            |(i, map): (usize, &FeatureMap)| ConvNorm::sequential(&(&lateral / i), ConvShape::new(map.width, width, 1));
        let laterals = finer.iter().enumerate().map(lateral).collect();
        let outputs = (0..finer.len()).map(|i| conv3x3(&(&output / i / 0), width, width)).collect();
        let path = path / "conv_last";
        let fuse = conv3x3(&(&path / 0), width * maps.len() as i64, width);
        let last = Conv2d::with_bias(&(&path / 1), ConvShape::new(width, classes, 1));
        UperNet { pyramid, top, laterals, outputs, fuse, last }
    }

    /// The last feature map with its surroundings at four scales.
    fn top(&self, last: &Tensor, context: &Context) -> Tensor {
        let mut parts = vec![last.shallow_clone()];
        for (layer, scale) in self.pyramid.iter().zip(SCALES) {
            let pooled = last.adaptive_avg_pool2d([scale, scale]);
            parts.push(layer.forward_resized_relu(&pooled, &last.size()[2..], context));
        }
        self.top.forward_relu(&Tensor::cat(&parts, 1), context)
    }
}

impl Decoder for UperNet {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let (last, finer) = maps.split_last().expect("every encoder has a feature map");
        let mut above = self.top(last, context);
        let mut levels = vec![above.shallow_clone()];
        for ((map, lateral), output) in finer.iter().zip(&self.laterals).zip(&self.outputs).rev() {
            let size = &map.size()[2..];
            above = resize(&above, size).g_add_(&lateral.forward_relu(map, context));
            levels.push(output.forward_relu(&above, context));
        }
        drop(above);
        levels.reverse();
        let size = levels[0].size();
        let (finest, coarser) = levels.split_at(1);
        let mut parts = vec![finest[0].shallow_clone()];
        parts.extend(coarser.iter().map(|level| resize(level, &size[2..])));
        drop(levels);
        let joined = Tensor::cat(&parts, 1);
        drop(parts);
        let main = self.last.forward(&self.fuse.forward_relu(&joined, context), context);
        Logits { main, deepsup: None }
    }
}
