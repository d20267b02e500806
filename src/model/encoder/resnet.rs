//! ResNet (He et al. 2015, arXiv:1512.03385), its dilated form (Yu et al. 2017, arXiv:1705.09914) and ResNeXt (Xie et
//! al. 2016, arXiv:1611.05431), with the three-convolution stem of the reference's resnet.py and resnext.py, or with the
//! one 7 × 7 convolution of the papers and torchvision's resnet.py. A name with two numbers has so many groups of so many
//! channels; those of resnext50 and resnext101 are 32 of 4.

use super::{Encoder, EncoderOptions, EncoderPlan, EncoderRow, FeatureMap, Flow, in_parts};
use crate::model::layers::{Context, ConvNorm, ConvShape};
use crate::model::path::Path;
use crate::model::{Initial, Stem};
use tch::Tensor;

pub(super) const ROWS: &[EncoderRow] = &[
    row("resnet18", &RESNET18),
    row("resnet18dilated", &RESNET18.dilated()),
    row("resnet34", &RESNET34),
    row("resnet34dilated", &RESNET34.dilated()),
    row("resnet50", &RESNET50),
    row("resnet50dilated", &RESNET50.dilated()),
    row("resnet101", &RESNET101),
    row("resnet101dilated", &RESNET101.dilated()),
    row("resnext50", &RESNEXT50),
    row("resnext50dilated", &RESNEXT50.dilated()),
    row("resnext101", &RESNEXT101),
    row("resnext101dilated", &RESNEXT101.dilated()),
    row("resnext101_32x8d", &RESNEXT101_32X8D),
    row("resnext101_32x8ddilated", &RESNEXT101_32X8D.dilated()),
    row("resnext101_64x4d", &RESNEXT101_64X4D),
    row("resnext101_64x4ddilated", &RESNEXT101_64X4D.dilated()),
];

/// The reference's ImageNet weights (`model_urls` in its resnet.py and resnext.py), and torchvision's.
type Files = [Option<&'static str>; 2];

const RESNET18: Plan =
    Plan::new(BlockKind::Basic, [2, 2, 2, 2], [Some("resnet18-imagenet.pth"), Some("resnet18-f37072fd.pth")]);
const RESNET34: Plan = Plan::new(BlockKind::Basic, [3, 4, 6, 3], [None, Some("resnet34-b627a593.pth")]);
const RESNET50: Plan =
    Plan::new(BlockKind::Bottleneck, [3, 4, 6, 3], [Some("resnet50-imagenet.pth"), Some("resnet50-0676ba61.pth")]);
const RESNET101: Plan =
    Plan::new(BlockKind::Bottleneck, [3, 4, 23, 3], [Some("resnet101-imagenet.pth"), Some("resnet101-63fe2227.pth")]);
const RESNEXT50: Plan =
    Plan::new(BlockKind::Grouped { groups: 32, each: 4 }, [3, 4, 6, 3], [None, Some("resnext50_32x4d-7cdf4587.pth")]);
const RESNEXT101: Plan =
    Plan::new(BlockKind::Grouped { groups: 32, each: 4 }, [3, 4, 23, 3], [Some("resnext101-imagenet.pth"), None]);
const RESNEXT101_32X8D: Plan =
    Plan::new(BlockKind::Grouped { groups: 32, each: 8 }, [3, 4, 23, 3], [None, Some("resnext101_32x8d-8ba56ff5.pth")]);
const RESNEXT101_64X4D: Plan =
    Plan::new(BlockKind::Grouped { groups: 64, each: 4 }, [3, 4, 23, 3], [None, Some("resnext101_64x4d-173b62eb.pth")]);

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
    /// The same as wide outside, with `groups` inside that are `each` channels wide in the first stage.
    Grouped { groups: i64, each: i64 },
}

impl BlockKind {
    /// Channels that leave a block, per channel within.
    pub fn expansion(self) -> i64 {
        match self {
            BlockKind::Basic => 1,
            BlockKind::Bottleneck => 4,
            BlockKind::Grouped { groups, each } => 256 / (groups * each),
        }
    }

    /// Channels within the first stage's blocks; every further stage doubles them.
    fn base_width(self) -> i64 {
        match self {
            BlockKind::Grouped { groups, each } => groups * each,
            _ => 64,
        }
    }

    fn groups(self) -> i64 {
        if let BlockKind::Grouped { groups, .. } = self { groups } else { 1 }
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
    files: Files,
}

impl Plan {
    const fn new(block: BlockKind, depths: [usize; 4], files: Files) -> Plan {
        Plan { block, depths, dilated: false, files }
    }

    const fn dilated(self) -> Plan {
        Plan { dilated: true, ..self }
    }

    fn stop(&self, options: &EncoderOptions) -> Stop {
        match (self.dilated, options.coarsest) {
            (true, _) => Stop::At8,
            (false, Some(16)) => Stop::At16,
            (false, _) => Stop::Never,
        }
    }
}

impl EncoderPlan for Plan {
    /// The stem's, and the four stages'.
    fn maps(&self, options: &EncoderOptions) -> Vec<FeatureMap> {
        let strides = match self.stop(options) {
            Stop::Never => [4, 8, 16, 32],
            Stop::At16 => [4, 8, 16, 16],
            Stop::At8 => [4, 8, 8, 8],
        };
        let stem = if options.stem == Stem::Deep { 128 } else { 64 };
        let width = |stage: usize| (self.block.base_width() << stage) * self.block.expansion();
        let stages = strides.into_iter().enumerate().map(|(stage, stride)| FeatureMap { width: width(stage), stride });
        std::iter::once(FeatureMap { width: stem, stride: 2 }).chain(stages).collect()
    }

    fn initial(&self) -> Initial {
        if self.block.groups() > 1 { Initial::FanOutOfGroup } else { Initial::FanOut }
    }

    fn pretrained_file(&self, options: &EncoderOptions) -> Option<&'static str> {
        let [deep, plain] = self.files;
        if options.stem == Stem::Deep { deep } else { plain }
    }

    fn build(&self, path: &Path, options: &EncoderOptions) -> Box<dyn Encoder> {
        Box::new(ResNet::new(path, self, options))
    }
}

/// From which stride on a stage dilates instead of striding.
#[derive(Clone, Copy)]
enum Stop {
    Never,
    /// The last stage with dilation 2 throughout (DeepLabV3+, and segmentation_models.pytorch's `output_stride`).
    At16,
    /// The last two with dilation 2 and 4, half of it where the stride was (the reference's `_nostride_dilate`, and
    /// torchvision's `replace_stride_with_dilation`).
    At8,
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
    /// Of block `index` in `stage`.
    fn of(stop: Stop, stage: usize, index: usize) -> Reach {
        let dilation = match (stop, stage) {
            (Stop::At16, 3) | (Stop::At8, 2) => 2,
            (Stop::At8, 3) => 4,
            _ => 1,
        };
        match (stop, stage > 0 && index == 0) {
            (_, true) if dilation == 1 => Reach { stride: 2, first_dilation: 1, dilation },
            (Stop::At8, true) => Reach { stride: 1, first_dilation: dilation / 2, dilation },
            _ => Reach { stride: 1, first_dilation: dilation, dilation },
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
            BlockKind::Bottleneck | BlockKind::Grouped { .. } => vec![
                ConvShape::new(inputs, width, 1),
                ConvShape::new(width, width, 3).stride(stride).dilation(first_dilation).groups(kind.groups()),
                ConvShape::new(width, outputs, 1),
            ],
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
    stem: Vec<ConvNorm>,
    stages: Vec<Vec<Block>>,
}

impl ResNet {
    fn new(path: &Path, plan: &Plan, options: &EncoderOptions) -> Self {
        let shapes = match options.stem {
            Stem::Deep => {
                vec![ConvShape::new(3, 64, 3).stride(2), ConvShape::new(64, 64, 3), ConvShape::new(64, 128, 3)]
            }
            Stem::Plain => vec![ConvShape::new(3, 64, 7).stride(2)],
        };
        let mut inputs = if options.stem == Stem::Deep { 128 } else { 64 };
        let layer =
            |(i, shape)| ConvNorm::new(&(path / format!("conv{}", i + 1)), &(path / format!("bn{}", i + 1)), shape);
        let stem = shapes.into_iter().enumerate().map(layer).collect();
        let mut stages = Vec::new();
        for (stage, &depth) in plan.depths.iter().enumerate() {
            let path = path / format!("layer{}", stage + 1);
            let width = plan.block.base_width() << stage;
            let mut blocks = Vec::new();
            for index in 0..depth {
                let reach = Reach::of(plan.stop(options), stage, index);
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
        in_parts(self, images, context)
    }

    /// The stem, and each stage.
    fn parts(&self) -> usize {
        1 + self.stages.len()
    }

    fn part(&self, index: usize, inputs: &[Tensor], context: &Context) -> Flow {
        let x = inputs[0].shallow_clone();
        let Some(stage) = index.checked_sub(1) else {
            let x = self.stem.iter().fold(x, |x, layer| layer.forward_relu(&x, context));
            return Flow { next: vec![x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)], maps: vec![x] };
        };
        let x = self.stages[stage].iter().fold(x, |x, block| block.forward(&x, context));
        Flow { next: vec![x.shallow_clone()], maps: vec![x] }
    }
}
