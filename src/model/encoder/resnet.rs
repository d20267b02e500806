//! ResNet (He et al. 2015, arXiv:1512.03385), its dilated form (Yu et al. 2017, arXiv:1705.09914) and ResNeXt (Xie et
//! al. 2016, arXiv:1611.05431), with the three-convolution stem of the reference's resnet.py and resnext.py.

use super::{Encoder, EncoderPlan, EncoderRow, FeatureMap};
use crate::model::layers::{Context, ConvNorm, ConvShape};
use crate::model::path::Path;
use crate::model::{Initial, ModelConfig};
use tch::Tensor;

pub(super) const ROWS: &[EncoderRow] = &[
    row("resnet18", &Plan { dilated: false, ..RESNET18 }),
    row("resnet18dilated", &Plan { dilated: true, ..RESNET18 }),
    row("resnet34", &Plan { dilated: false, ..RESNET34 }),
    row("resnet34dilated", &Plan { dilated: true, ..RESNET34 }),
    row("resnet50", &Plan { dilated: false, ..RESNET50 }),
    row("resnet50dilated", &Plan { dilated: true, ..RESNET50 }),
    row("resnet101", &Plan { dilated: false, ..RESNET101 }),
    row("resnet101dilated", &Plan { dilated: true, ..RESNET101 }),
    row("resnext101", &RESNEXT101),
];

const RESNET18: Plan = Plan::new(BlockKind::Basic, [2, 2, 2, 2], Some("resnet18-imagenet.pth"));
const RESNET34: Plan = Plan::new(BlockKind::Basic, [3, 4, 6, 3], None);
const RESNET50: Plan = Plan::new(BlockKind::Bottleneck, [3, 4, 6, 3], Some("resnet50-imagenet.pth"));
const RESNET101: Plan = Plan::new(BlockKind::Bottleneck, [3, 4, 23, 3], Some("resnet101-imagenet.pth"));
const RESNEXT101: Plan = Plan::new(BlockKind::Grouped, [3, 4, 23, 3], Some("resnext101-imagenet.pth"));

const fn row(name: &'static str, plan: &'static Plan) -> EncoderRow {
    EncoderRow { name, plan }
}

/// What a stage repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
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
#[derive(Clone, Copy)]
struct Plan {
    block: BlockKind,
    /// Blocks in each stage.
    depths: [usize; 4],
    /// Keeps the last two stages at an eighth of the input by dilation 2 and 4 instead of striding.
    dilated: bool,
    /// The reference's ImageNet weights (`model_urls` in its resnet.py and resnext.py).
    pretrained: Option<&'static str>,
}

impl Plan {
    const fn new(block: BlockKind, depths: [usize; 4], pretrained: Option<&'static str>) -> Plan {
        Plan { block, depths, dilated: false, pretrained }
    }
}

impl EncoderPlan for Plan {
    fn maps(&self, _config: &ModelConfig) -> Vec<FeatureMap> {
        let strides = if self.dilated { [4, 8, 8, 8] } else { [4, 8, 16, 32] };
        let width = |stage: usize| (self.block.base_width() << stage) * self.block.expansion();
        strides.into_iter().enumerate().map(|(stage, stride)| FeatureMap { width: width(stage), stride }).collect()
    }

    fn initial(&self) -> Initial {
        if self.block == BlockKind::Grouped { Initial::FanOutOfGroup } else { Initial::FanOut }
    }

    fn pretrained_file(&self, _config: &ModelConfig) -> Option<&'static str> {
        self.pretrained
    }

    fn build(&self, path: &Path, _config: &ModelConfig) -> Box<dyn Encoder> {
        Box::new(ResNet::new(path, self))
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
pub(super) struct Block {
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
struct ResNet {
    stem: [ConvNorm; 3],
    stages: Vec<Vec<Block>>,
}

impl ResNet {
    fn new(path: &Path, plan: &Plan) -> Self {
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
}

impl Encoder for ResNet {
    fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
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
