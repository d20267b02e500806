//! MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), dilated to an eighth of the input (`MobileNetV2Dilated` in the
//! reference's models.py).

use super::{Encoder, EncoderOptions, EncoderPlan, EncoderRow, FeatureMap, Flow, in_parts};
use crate::model::Initial;
use crate::model::layers::{Context, ConvNorm, ConvShape};
use crate::model::path::Path;
use tch::Tensor;

/// Expansion, channels, blocks and stride of the first block, of every group of blocks.
const GROUPS: [(i64, i64, usize, i64); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// Layers after which there is a feature map, besides the last; the last two begin dilation 2 and 4.
const MAPS: [usize; 4] = [2, 4, 7, 14];

pub(super) const ROWS: &[EncoderRow] = &[EncoderRow { name: "mobilenetv2dilated", plan: &Plan }];

struct Plan;

impl EncoderPlan for Plan {
    fn maps(&self, _options: &EncoderOptions) -> Vec<FeatureMap> {
        let maps = [(24, 4), (32, 8), (64, 8), (160, 8), (320, 8)];
        maps.map(|(width, stride)| FeatureMap { width, stride }).to_vec()
    }

    fn initial(&self) -> Initial {
        Initial::FanOut
    }

    fn pretrained_file(&self, _options: &EncoderOptions) -> Option<&'static str> {
        Some("mobilenet_v2.pth.tar")
    }

    fn build(&self, path: &Path, _options: &EncoderOptions) -> Box<dyn Encoder> {
        Box::new(MobileNetV2::new(path))
    }
}

/// An inverted residual block: widen, convolve every channel by itself, narrow.
struct Block {
    /// All but the last end in ReLU6.
    layers: Vec<ConvNorm>,
    residual: bool,
}

impl Block {
    fn new(path: &Path, inputs: i64, outputs: i64, stride: i64, expansion: i64, number: usize) -> Self {
        let path = path / number / "conv";
        let hidden = inputs * expansion;
        let mut shapes = Vec::new();
        if expansion != 1 {
            shapes.push(ConvShape::new(inputs, hidden, 1));
        }
        shapes.push(depthwise(hidden, stride, number));
        shapes.push(ConvShape::new(hidden, outputs, 1));
        // In the reference's nn.Sequential every convolution is followed by a batch norm and a ReLU6.
        let layer = |(i, shape)| ConvNorm::new(&(&path / (3 * i)), &(&path / (3 * i + 1)), shape);
        let layers = shapes.into_iter().enumerate().map(layer).collect();
        Block { layers, residual: stride == 1 && inputs == outputs }
    }

    fn forward(&self, x: &Tensor, context: &Context) -> Tensor {
        let (last, inner) = self.layers.split_last().expect("a block has two or three convolutions");
        let mut y = x.shallow_clone();
        for layer in inner {
            y = relu6(layer.forward(&y, context));
        }
        y = last.forward(&y, context);
        if self.residual { y.g_add_(x) } else { y }
    }
}

/// The 3 × 3 convolution of layer `number`: where the reference dilates, a stride becomes half the dilation.
fn depthwise(channels: i64, stride: i64, number: usize) -> ConvShape {
    let dilation = match number {
        _ if number < MAPS[2] => 1,
        _ if number < MAPS[3] => 2,
        _ => 4,
    };
    let shape = ConvShape::new(channels, channels, 3).groups(channels);
    match (stride, dilation) {
        (_, 1) => shape.stride(stride),
        (2, _) => shape.dilation(dilation / 2),
        _ => shape.dilation(dilation),
    }
}

fn relu6(mut x: Tensor) -> Tensor {
    x.relu6_()
}

struct MobileNetV2 {
    stem: ConvNorm,
    blocks: Vec<Block>,
}

impl MobileNetV2 {
    fn new(path: &Path) -> Self {
        let path = path / "features";
        let stem = ConvNorm::sequential(&(&path / 0), ConvShape::new(3, 32, 3).stride(2));
        let mut inputs = 32;
        let mut blocks = Vec::new();
        for (expansion, outputs, count, first_stride) in GROUPS {
            for index in 0..count {
                let stride = if index == 0 { first_stride } else { 1 };
                blocks.push(Block::new(&path, inputs, outputs, stride, expansion, blocks.len() + 1));
                inputs = outputs;
            }
        }
        MobileNetV2 { stem, blocks }
    }
}

impl Encoder for MobileNetV2 {
    fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        in_parts(self, images, context)
    }

    /// From map to map.
    fn parts(&self) -> usize {
        MAPS.len() + 1
    }

    fn part(&self, index: usize, inputs: &[Tensor], context: &Context) -> Flow {
        let x = if index == 0 { relu6(self.stem.forward(&inputs[0], context)) } else { inputs[0].shallow_clone() };
        let start = index.checked_sub(1).map_or(0, |before| MAPS[before]);
        let end = MAPS.get(index).copied().unwrap_or(self.blocks.len());
        let x = self.blocks[start..end].iter().fold(x, |x, block| block.forward(&x, context));
        Flow { next: vec![x.shallow_clone()], maps: vec![x] }
    }
}
