//! U-Net (Ronneberger et al. 2015, arXiv:1505.04597) over a pretrained encoder, as `Unet` of segmentation_models.pytorch
//! with its names: from the coarsest map up, each joined with the next finer one, to a score for every pixel.

use super::{Conv2d, ConvNorm, ConvShape, Decoder, DecoderOptions, DecoderPlan, DecoderRow, Logits, Needs, coarsest};
use crate::model::layers::Context;
use crate::model::path::Path;
use crate::model::{FeatureMap, Initial};
use tch::Tensor;

pub(super) const ROWS: &[DecoderRow] = &[DecoderRow { name: "unet", plan: &Plan }];

/// Channels that leave the blocks, at strides 16, 8, 4, 2 and 1.
const WIDTHS: [i64; 5] = [256, 128, 64, 32, 16];

struct Plan;

impl DecoderPlan for Plan {
    fn needs(&self) -> Needs {
        Needs {
            words: "one feature map at each of the strides 4, 8, 16 and 32, and takes one at 2",
            met_by: |maps| {
                let strides: Vec<u32> = maps.iter().map(|map| map.stride).collect();
                strides.strip_prefix(&[2]).unwrap_or(&strides) == [4, 8, 16, 32]
            },
        }
    }

    fn finest(&self) -> u32 {
        2
    }

    fn output_stride(&self, _maps: &[FeatureMap]) -> u32 {
        1
    }

    fn initial(&self) -> Initial {
        Initial::He
    }

    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
        Box::new(Unet::new(path, maps, options.classes))
    }
}

struct Unet {
    /// From the coarsest to the finest.
    blocks: Vec<[ConvNorm; 2]>,
    last: Conv2d,
}

impl Unet {
    fn new(path: &Path, maps: &[FeatureMap], classes: i64) -> Self {
        // What joins at strides 16, 8, 4, 2 (where the encoder has it) and 1 (nothing).
        let mut joined: Vec<i64> = maps.iter().rev().skip(1).map(|map| map.width).collect();
        joined.resize(WIDTHS.len(), 0);
        let mut inputs = coarsest(maps).width;
        let block = |(i, (joined, width)): (usize, (i64, i64))| {
            let path = path / "blocks" / i;
            let shapes = [ConvShape::new(inputs + joined, width, 3), ConvShape::new(width, width, 3)];
            inputs = width;
            let [first, second] = shapes;
            [ConvNorm::sequential(&(&path / "conv1"), first), ConvNorm::sequential(&(&path / "conv2"), second)]
        };
        let blocks = joined.into_iter().zip(WIDTHS).enumerate().map(block).collect();
        let last = ConvShape::new(inputs, classes, 3);
        Unet { blocks, last: Conv2d::with_bias(&(path / "segmentation_head" / 0), last) }
    }
}

impl Decoder for Unet {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let (mut finer, (height, width)) = (maps.iter().rev(), context.size);
        let mut x = finer.next().expect("every decoder needs a map").shallow_clone();
        for (block, stride) in self.blocks.iter().zip([16, 8, 4, 2, 1]) {
            let joined = finer.next();
            let size = joined.map_or(vec![height / stride, width / stride], |map| map.size()[2..].to_vec());
            x = x.upsample_nearest2d(&size[..], None, None);
            if let Some(map) = joined {
                x = Tensor::cat(&[x, map.shallow_clone()], 1);
            }
            for layer in block {
                x = layer.forward_relu(&x, context);
            }
        }
        Logits { main: self.last.forward(&x, context), deepsup: None }
    }
}
