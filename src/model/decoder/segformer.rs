//! SegFormer's head (Xie et al. 2021, arXiv:2105.15203): every map through a linear layer, all resized to the finest, and
//! fused by one more. As SegformerDecodeHead in transformers' modeling_segformer.py, with the names of its files.
//!
//! `segformer_smp` is that of segmentation_models.pytorch (decoders/segformer): 256 wide after every encoder, without dropout,
//! the scores resized to the image's size with corners aligned.

use super::{Conv2d, ConvNorm, ConvShape, Decoder, DecoderOptions, DecoderPlan, DecoderRow, Logits, Needs};
use super::{MAIN_DROPOUT, finest, resize, resize_aligned};
use crate::model::layers::{Context, Linear, from_tokens, to_tokens};
use crate::model::path::Path;
use crate::model::{FeatureMap, Initial};
use tch::Tensor;

pub(super) const ROWS: &[DecoderRow] = &[
    DecoderRow { name: "segformer", plan: &Plan { of_smp: false } },
    DecoderRow { name: "segformer_smp", plan: &Plan { of_smp: true } },
];

/// Channels inside, where nobody published another number with the encoder.
const WIDTH: i64 = 256;

struct Plan {
    of_smp: bool,
}

impl DecoderPlan for Plan {
    fn needs(&self) -> Needs {
        Needs::at_least(4)
    }

    fn output_stride(&self, maps: &[FeatureMap]) -> u32 {
        if self.of_smp { 1 } else { finest(maps).stride }
    }

    fn initial(&self) -> Initial {
        Initial::Normal
    }

    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
        let head = SegFormer::new(path, maps, options.width.unwrap_or(WIDTH), options.classes);
        Box::new(SegFormer { of_smp: self.of_smp, ..head })
    }
}

struct SegFormer {
    /// One for each map.
    projections: Vec<Linear>,
    /// Of all projections side by side, the coarsest first.
    fuse: ConvNorm,
    last: Conv2d,
    of_smp: bool,
}

impl SegFormer {
    fn new(path: &Path, maps: &[FeatureMap], width: i64, classes: i64) -> Self {
        let projection =
            |(i, map): (usize, &FeatureMap)| Linear::new(&(path / "linear_c" / i / "proj"), map.width, width);
        let projections = maps.iter().enumerate().map(projection).collect();
        let shape = ConvShape::new(width * maps.len() as i64, width, 1);
        let fuse = ConvNorm::new(&(path / "linear_fuse"), &(path / "batch_norm"), shape);
        SegFormer {
            projections,
            fuse,
            last: Conv2d::with_bias(&(path / "classifier"), ConvShape::new(width, classes, 1)),
            of_smp: false,
        }
    }

    /// fuse(cat(resize(project(map)))) for the fusing layer's `weight` (width, channels of all, 1, 1).
    ///
    /// All of it is linear, and resizing acts on other dimensions than the layers do. So each map goes through the
    /// product of its projection and its part of the fusing layer, at its own size, and what is resized is summed up:
    /// the wide concatenation at the finest size is never made, nor multiplied by the fusing weights.
    fn fused(&self, weight: &Tensor, maps: &[Tensor]) -> Tensor {
        let width = weight.size()[0];
        let parts = weight.flatten(1, 3).split(width, 1);
        let project = |((map, projection), part): ((&Tensor, &Linear), &Tensor)| {
            let weight = part.matmul(&projection.weight);
            let bias = projection.bias.as_ref().map(|bias| part.matmul(bias));
            let size = map.size();
            from_tokens(&to_tokens(map).linear(&weight, bias.as_ref()), (size[2], size[3]))
        };
        let mut parts = maps.iter().zip(&self.projections).zip(parts.iter().rev()).map(project);
        let mut sum = parts.next().expect("every decoder needs a map");
        let size = sum.size();
        for part in parts {
            let _ = sum.g_add_(&resize(&part, &size[2..]));
        }
        sum
    }
}

impl Decoder for SegFormer {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        for (map, projection) in maps.iter().zip(&self.projections) {
            let size = map.size();
            context.count(projection.weight.numel() as i64 * size[2] * size[3]);
        }
        let fused = self.fuse.forward_by(|weight| self.fused(weight, maps), context);
        let mut fused = if self.of_smp { fused } else { context.dropout(MAIN_DROPOUT, fused) };
        let scores = self.last.forward(&fused.relu_(), context);
        let (height, width) = context.size;
        Logits { main: if self.of_smp { resize_aligned(&scores, &[height, width]) } else { scores }, deepsup: None }
    }
}
