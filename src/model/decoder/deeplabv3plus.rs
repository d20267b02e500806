//! DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611): the last map through convolutions of several dilations side by side,
//! then joined with a fine map. As `DeepLabV3Plus` of segmentation_models.pytorch with its names, the final resizing to
//! the image's size included. Encoders that can stop at stride 16, as there.

use super::{Conv2d, ConvNorm, ConvShape, Decoder, DecoderOptions, DecoderPlan, DecoderRow, Logits, Needs};
use super::{MAIN_DROPOUT, coarsest, finest, resize, resize_aligned};
use crate::model::layers::Context;
use crate::model::path::Path;
use crate::model::{FeatureMap, Initial};
use tch::Tensor;

pub(super) const ROWS: &[DecoderRow] = &[DecoderRow { name: "deeplabv3plus", plan: &Plan }];

/// Channels inside.
const WIDTH: i64 = 256;
/// Channels of the fine map where it joins.
const FINE_WIDTH: i64 = 48;
/// Dilations of the convolutions side by side.
const DILATIONS: [i64; 3] = [12, 24, 36];
/// Of single values after these.
const DROPOUT: f64 = 0.5;

struct Plan;

impl DecoderPlan for Plan {
    fn needs(&self) -> Needs {
        Needs {
            words: "a feature map at stride 4, and a last one at 8 or 16",
            met_by: |maps| maps.len() >= 2 && finest(maps).stride == 4 && [8, 16].contains(&coarsest(maps).stride),
        }
    }

    fn coarsest(&self) -> Option<u32> {
        Some(16)
    }

    fn output_stride(&self, _maps: &[FeatureMap]) -> u32 {
        1
    }

    fn initial(&self) -> Initial {
        Initial::He
    }

    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
        Box::new(DeepLab::new(path, maps, options.width.unwrap_or(WIDTH), options.classes))
    }
}

/// Every channel by itself, then all channels of a pixel.
struct Separable {
    depthwise: Conv2d,
    pointwise: ConvNorm,
}

impl Separable {
    /// The two convolutions are `0` and `1` under `conv`.
    fn new(conv: &Path, norm: &Path, inputs: i64, outputs: i64, dilation: i64) -> Self {
        let depthwise = ConvShape::new(inputs, inputs, 3).groups(inputs).dilation(dilation);
        let depthwise = Conv2d::new(&(conv / 0), depthwise);
        Separable { depthwise, pointwise: ConvNorm::new(&(conv / 1), norm, ConvShape::new(inputs, outputs, 1)) }
    }

    fn forward_relu(&self, x: &Tensor, context: &Context) -> Tensor {
        self.pointwise.forward_relu(&self.depthwise.forward(x, context), context)
    }
}

struct DeepLab {
    pixel: ConvNorm,
    dilated: Vec<Separable>,
    pooled: ConvNorm,
    project: ConvNorm,
    mix: Separable,
    fine: ConvNorm,
    fuse: Separable,
    last: Conv2d,
}

impl DeepLab {
    fn new(path: &Path, maps: &[FeatureMap], width: i64, classes: i64) -> Self {
        let inputs = coarsest(maps).width;
        let aspp = path / "aspp" / 0;
        let convs = &aspp / "convs";
        let pixel = ConvNorm::sequential(&(&convs / 0), ConvShape::new(inputs, width, 1));
        let dilated = |(i, dilation): (usize, i64)| {
            let path = &convs / (i + 1);
            Separable::new(&(&path / 0), &(&path / 1), inputs, width, dilation)
        };
        let dilated: Vec<Separable> = DILATIONS.into_iter().enumerate().map(dilated).collect();
        let pooled = &convs / (DILATIONS.len() + 1);
        let pooled = ConvNorm::new(&(&pooled / 1), &(&pooled / 2), ConvShape::new(inputs, width, 1));
        let branches = DILATIONS.len() as i64 + 2;
        let project = ConvNorm::sequential(&(&aspp / "project"), ConvShape::new(branches * width, width, 1));
        let mix = Separable::new(&(path / "aspp" / 1), &(path / "aspp" / 2), width, width, 1);
        let fine = ConvNorm::sequential(&(path / "block1"), ConvShape::new(finest(maps).width, FINE_WIDTH, 1));
        let fuse = path / "block2";
        let fuse = Separable::new(&(&fuse / 0), &(&fuse / 1), FINE_WIDTH + width, width, 1);
        let last = Conv2d::with_bias(&(path / "segmentation_head" / 0), ConvShape::new(width, classes, 1));
        DeepLab { pixel, dilated, pooled, project, mix, fine, fuse, last }
    }

    /// Atrous spatial pyramid pooling.
    fn pyramid(&self, x: &Tensor, context: &Context) -> Tensor {
        let mut parts = vec![self.pixel.forward_relu(x, context)];
        parts.extend(self.dilated.iter().map(|layer| layer.forward_relu(x, context)));
        let pooled = self.pooled.forward_relu(&x.adaptive_avg_pool2d([1, 1]), context);
        parts.push(resize(&pooled, &x.size()[2..]));
        let joined = self.project.forward(&Tensor::cat(&parts, 1), context);
        context.dropout_values(MAIN_DROPOUT, DROPOUT, joined).relu_()
    }
}

impl Decoder for DeepLab {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let (fine, coarse) = (&maps[0], &maps[maps.len() - 1]);
        let coarse = self.mix.forward_relu(&self.pyramid(coarse, context), context);
        let coarse = resize_aligned(&coarse, &fine.size()[2..]);
        let joined = Tensor::cat(&[coarse, self.fine.forward_relu(fine, context)], 1);
        let scores = self.last.forward(&self.fuse.forward_relu(&joined, context), context);
        let (height, width) = context.size;
        Logits { main: resize_aligned(&scores, &[height, width]), deepsup: None }
    }
}
