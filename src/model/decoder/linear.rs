//! The linear head of DINO (Caron et al. 2021, arXiv:2104.14294; `BNHead` in DINOv2's evaluation): batch norm of the last
//! map, then the scores by a 1 × 1 convolution.

use super::{Conv2d, ConvShape, Decoder, DecoderOptions, DecoderPlan, DecoderRow, Logits, Needs, coarsest};
use crate::model::layers::{Context, Norm};
use crate::model::path::Path;
use crate::model::{FeatureMap, Initial};
use tch::Tensor;

pub(super) const ROWS: &[DecoderRow] = &[DecoderRow { name: "linear", plan: &Plan }];

struct Plan;

impl DecoderPlan for Plan {
    fn needs(&self) -> Needs {
        Needs::at_least(1)
    }

    fn output_stride(&self, maps: &[FeatureMap]) -> u32 {
        coarsest(maps).stride
    }

    fn initial(&self) -> Initial {
        Initial::Normal
    }

    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
        let width = coarsest(maps).width;
        let norm = Norm::new(&(path / "bn"), width);
        Box::new(Linear {
            norm,
            last: Conv2d::with_bias(&(path / "conv_seg"), ConvShape::new(width, options.classes, 1)),
        })
    }
}

struct Linear {
    norm: Norm,
    last: Conv2d,
}

impl Decoder for Linear {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let x = self.norm.forward(&maps[maps.len() - 1], context);
        Logits { main: self.last.forward(&x, context), deepsup: None }
    }
}
