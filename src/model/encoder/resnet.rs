//! ResNet (He et al. 2015, arXiv:1512.03385), its dilated form (Yu et al. 2017, arXiv:1705.09914) and ResNeXt (Xie et
//! al. 2016, arXiv:1611.05431), with the three-convolution stem of the reference's resnet.py and resnext.py.

use crate::model::layers::{Context, ConvNorm, ConvShape};
use crate::model::path::Path;
use tch::Tensor;

/// What a stage repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) enum BlockKind {
    /// Two 3 × 3 convolutions.
    Basic,
    /// 1 × 1, 3 × 3 and 1 × 1, four times as wide outside as inside.
    Bottleneck,
    /// The same in 32 groups, twice as wide outside as inside.
    Grouped,
}

impl BlockKind {
    /// Channels that leave a block, per channel within.
    pub fn expansion(self) -> i64 {
        match self {
            BlockKind::Basic => 1,
            BlockKind::Bottleneck => 4,
            BlockKind::Grouped => 2,
        }
    }

    /// Channels within the first stage's blocks; every further stage doubles them.
    fn base_width(self) -> i64 {
        match self {
            BlockKind::Grouped => 128,
            _ => 64,
        }
    }
}

/// A network of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct Plan {
    pub block: BlockKind,
    /// Blocks in each stage.
    pub depths: [usize; 4],
    /// Keeps the last two stages at an eighth of the input by dilation 2 and 4 instead of striding.
    pub dilated: bool,
}

impl Plan {
    /// Channels of the four feature maps.
    pub fn widths(&self) -> Vec<i64> {
        (0..4).map(|stage| (self.block.base_width() << stage) * self.block.expansion()).collect()
    }

    /// Input pixels per pixel of the four feature maps, one direction.
    pub fn strides(&self) -> Vec<u32> {
        if self.dilated { vec![4, 8, 8, 8] } else { vec![4, 8, 16, 32] }
    }
}

/// How a block's 3 × 3 convolutions see their input.
#[derive(Clone, Copy)]
struct Reach {
    stride: i64,
    /// Of the convolution that would carry the stride.
    first_dilation: i64,
    dilation: i64,
}

impl Reach {
    /// Of block `index` in `stage`. Dilation d in a stage is d ÷ 2 where the stride was (`_nostride_dilate`).
    fn of(plan: &Plan, stage: usize, index: usize) -> Reach {
        let strided = stage > 0 && index == 0;
        let dilation = if plan.dilated && stage >= 2 { 1 << (stage - 1) } else { 1 };
        match (strided, dilation) {
            (true, 1) => Reach { stride: 2, first_dilation: 1, dilation },
            (true, _) => Reach { stride: 1, first_dilation: dilation / 2, dilation },
            (false, _) => Reach { stride: 1, first_dilation: dilation, dilation },
        }
    }
}

/// Convolutions around which the input is carried past.
pub(in crate::model) struct Block {
    body: Vec<ConvNorm>,
    /// Brings the input to the output's shape, where they differ.
    shortcut: Option<ConvNorm>,
}

impl Block {
    /// A block of `width` inner channels without dilation, as HRNet uses them too.
    pub fn new(path: &Path, kind: BlockKind, inputs: i64, width: i64) -> Self {
        Block::reaching(path, kind, inputs, width, Reach { stride: 1, first_dilation: 1, dilation: 1 })
    }

    fn reaching(path: &Path, kind: BlockKind, inputs: i64, width: i64, reach: Reach) -> Self {
        let outputs = width * kind.expansion();
        let Reach { stride, first_dilation, dilation } = reach;
        let shapes = match kind {
            BlockKind::Basic => vec![
                ConvShape::new(inputs, width, 3).stride(stride).dilation(first_dilation),
                ConvShape::new(width, width, 3).dilation(dilation),
            ],
            BlockKind::Bottleneck | BlockKind::Grouped => {
                let groups = if kind == BlockKind::Grouped { 32 } else { 1 };
                vec![
                    ConvShape::new(inputs, width, 1),
                    ConvShape::new(width, width, 3).stride(stride).dilation(first_dilation).groups(groups),
                    ConvShape::new(width, outputs, 1),
                ]
            }
        };
        let layer =
            |(i, shape)| ConvNorm::new(&(path / format!("conv{}", i + 1)), &(path / format!("bn{}", i + 1)), shape);
        let body = shapes.into_iter().enumerate().map(layer).collect();
        let shortcut = (stride != 1 || inputs != outputs)
            .then(|| ConvNorm::sequential(&(path / "downsample"), ConvShape::new(inputs, outputs, 1).stride(stride)));
        Block { body, shortcut }
    }

    pub fn forward(&self, x: &Tensor, context: &Context) -> Tensor {
        let (last, inner) = self.body.split_last().expect("a block has two or three convolutions");
        let mut y = x.shallow_clone();
        for layer in inner {
            y = layer.forward_relu(&y, context);
        }
        y = last.forward(&y, context);
        match &self.shortcut {
            Some(shortcut) => y.g_add_(&shortcut.forward(x, context)),
            None => y.g_add_(x),
        }
        .relu_()
    }
}

/// Feature maps of four stages.
pub(in crate::model) struct ResNet {
    stem: [ConvNorm; 3],
    stages: Vec<Vec<Block>>,
}

impl ResNet {
    pub fn new(path: &Path, plan: &Plan) -> Self {
        let stem = [(3, 64, 2), (64, 64, 1), (64, 128, 1)];
        let mut number = 0;
        let stem = stem.map(|(inputs, outputs, stride)| {
            number += 1;
            let shape = ConvShape::new(inputs, outputs, 3).stride(stride);
            ConvNorm::new(&(path / format!("conv{number}")), &(path / format!("bn{number}")), shape)
        });
        let mut inputs = 128;
        let mut stages = Vec::new();
        for (stage, &depth) in plan.depths.iter().enumerate() {
            let path = path / format!("layer{}", stage + 1);
            let width = plan.block.base_width() << stage;
            let mut blocks = Vec::new();
            for index in 0..depth {
                let reach = Reach::of(plan, stage, index);
                blocks.push(Block::reaching(&(&path / index), plan.block, inputs, width, reach));
                inputs = width * plan.block.expansion();
            }
            stages.push(blocks);
        }
        ResNet { stem, stages }
    }

    pub fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        let mut x = images.shallow_clone();
        for layer in &self.stem {
            x = layer.forward_relu(&x, context);
        }
        x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        let mut maps = Vec::new();
        for stage in &self.stages {
            for block in stage {
                x = block.forward(&x, context);
            }
            maps.push(x.shallow_clone());
        }
        maps
    }
}
