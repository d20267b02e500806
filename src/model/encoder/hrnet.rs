//! HRNetV2-W48 (Sun et al. 2019, arXiv:1904.04514), as in the reference's hrnet.py: branches of four resolutions side by
//! side, which exchange their maps after every module; the last ones are joined at a quarter of the input.

use super::resnet::{Block, BlockKind};
use super::{Encoder, EncoderOptions, EncoderPlan, EncoderRow, FeatureMap, Flow, in_parts};
use crate::model::Initial;
use crate::model::layers::{Context, ConvNorm, ConvShape, resize};
use crate::model::path::Path;
use tch::Tensor;

/// Channels of the branches, finest first.
const BRANCHES: [i64; 4] = [48, 96, 192, 384];
/// Modules of stages 2, 3 and 4, which have 2, 3 and 4 branches.
const MODULES: [usize; 3] = [1, 4, 3];
/// Residual blocks in every branch of a module.
const DEPTH: usize = 4;

pub(super) const ROWS: &[EncoderRow] = &[EncoderRow { name: "hrnetv2", plan: &Plan }];

struct Plan;

impl EncoderPlan for Plan {
    /// One, with all branches' channels.
    fn maps(&self, _options: &EncoderOptions) -> Vec<FeatureMap> {
        vec![FeatureMap { width: BRANCHES.iter().sum(), stride: 4 }]
    }

    fn initial(&self) -> Initial {
        Initial::Uniform
    }

    fn pretrained_file(&self, _options: &EncoderOptions) -> Option<&'static str> {
        Some("hrnetv2_w48-imagenet.pth")
    }

    fn build(&self, path: &Path, _options: &EncoderOptions) -> Box<dyn Encoder> {
        Box::new(HrNet::new(path))
    }
}

/// A chain of residual blocks.
struct Blocks(Vec<Block>);

impl Blocks {
    fn new(path: &Path, kind: BlockKind, mut inputs: i64, width: i64) -> Self {
        let block = |index| {
            let block = Block::new(&(path / index), kind, inputs, width);
            inputs = width * kind.expansion();
            block
        };
        Blocks((0..DEPTH).map(block).collect())
    }

    fn forward(&self, x: &Tensor, context: &Context) -> Tensor {
        self.0.iter().fold(x.shallow_clone(), |x, block| block.forward(&x, context))
    }
}

/// How a branch's map gets to another branch's resolution.
enum Exchange {
    /// It is there already.
    Same,
    /// From a coarser branch: 1 × 1 convolution, then bilinear to the size of the target.
    Finer(ConvNorm),
    /// From a finer branch: 3 × 3 convolutions of stride 2, ReLU between them.
    Coarser(Vec<ConvNorm>),
}

impl Exchange {
    fn new(path: &Path, from: usize, to: usize) -> Self {
        let (inputs, outputs) = (BRANCHES[from], BRANCHES[to]);
        if from == to {
            return Exchange::Same;
        }
        if from > to {
            return Exchange::Finer(ConvNorm::sequential(path, ConvShape::new(inputs, outputs, 1)));
        }
        let steps = to - from;
        let step = |i| {
            let shape = ConvShape::new(inputs, if i + 1 == steps { outputs } else { inputs }, 3).stride(2);
            ConvNorm::sequential(&(path / i), shape)
        };
        Exchange::Coarser((0..steps).map(step).collect())
    }

    /// `size`: height and width of the target's map.
    fn forward(&self, x: &Tensor, size: &[i64], context: &Context) -> Tensor {
        match self {
            Exchange::Same => x.shallow_clone(),
            Exchange::Finer(layer) => resize(&layer.forward(x, context), size),
            Exchange::Coarser(layers) => {
                let (last, inner) = layers.split_last().expect("a coarser branch is at least one step away");
                let x = inner.iter().fold(x.shallow_clone(), |x, layer| layer.forward_relu(&x, context));
                last.forward(&x, context)
            }
        }
    }
}

/// Every branch's blocks, then every branch the sum of all.
struct Module {
    branches: Vec<Blocks>,
    /// By target, then by source.
    exchanges: Vec<Vec<Exchange>>,
}

impl Module {
    fn new(path: &Path, count: usize) -> Self {
        let branches = &(path / "branches");
        let branches = (0..count).map(|i| Blocks::new(&(branches / i), BlockKind::Basic, BRANCHES[i], BRANCHES[i]));
        let branches = branches.collect();
        let fuse = path / "fuse_layers";
        let target = |to| (0..count).map(|from| Exchange::new(&(&fuse / to / from), from, to)).collect();
        Module { branches, exchanges: (0..count).map(target).collect() }
    }

    fn forward(&self, maps: &[Tensor], context: &Context) -> Vec<Tensor> {
        let maps: Vec<Tensor> = self.branches.iter().zip(maps).map(|(branch, x)| branch.forward(x, context)).collect();
        let target = |(to, sources): (usize, &Vec<Exchange>)| {
            let size = &maps[to].size()[2..];
            let mut parts = sources.iter().zip(&maps).map(|(exchange, x)| exchange.forward(x, size, context));
            // The first sum makes a new tensor, as the first part may be a branch's own map.
            let first = parts.next().expect("a module has two branches or more");
            let sum = parts.fold(None, |sum: Option<Tensor>, part| {
                Some(sum.map_or_else(|| &first + &part, |mut sum| sum.g_add_(&part)))
            });
            sum.expect("a module has two branches or more").relu_()
        };
        self.exchanges.iter().enumerate().map(target).collect()
    }
}

/// Modules of the same branches, after a transition that adds the coarsest one.
struct Stage {
    /// Of the branches that the stage before does not have in this shape: the branch and its layer.
    transition: Vec<(usize, ConvNorm)>,
    modules: Vec<Module>,
}

impl Stage {
    /// Stage `number` has as many branches, `number` from 2; the one before gives `inputs` channels on its coarsest.
    fn new(path: &Path, number: usize, inputs: i64) -> Self {
        let transition = &(path / format!("transition{}", number - 1));
        let new_branch = |i: usize| {
            let shape = ConvShape::new(inputs, BRANCHES[i], 3);
            // Stage 1's only map has other channels than branch 0; a branch is made from the coarsest before it.
            match i {
                0 => (i, ConvNorm::sequential(&(transition / i), shape)),
                _ => (i, ConvNorm::sequential(&(transition / i / 0), shape.stride(2))),
            }
        };
        let first = if number == 2 { 0 } else { number - 1 };
        let transition = (first..number).map(new_branch).collect();
        let path = path / format!("stage{number}");
        let modules = (0..MODULES[number - 2]).map(|i| Module::new(&(&path / i), number)).collect();
        Stage { transition, modules }
    }

    fn forward(&self, maps: Vec<Tensor>, context: &Context) -> Vec<Tensor> {
        let coarsest = maps[maps.len() - 1].shallow_clone();
        let kept = self.transition[0].0;
        let mut maps: Vec<Tensor> = maps.into_iter().take(kept).collect();
        maps.extend(self.transition.iter().map(|(_, layer)| layer.forward_relu(&coarsest, context)));
        self.modules.iter().fold(maps, |maps, module| module.forward(&maps, context))
    }
}

struct HrNet {
    stem: [ConvNorm; 2],
    layer1: Blocks,
    stages: Vec<Stage>,
}

impl HrNet {
    fn new(path: &Path) -> Self {
        let stem = |number: i32, inputs| {
            let shape = ConvShape::new(inputs, 64, 3).stride(2);
            ConvNorm::new(&(path / format!("conv{number}")), &(path / format!("bn{number}")), shape)
        };
        let stem = [stem(1, 3), stem(2, 64)];
        let layer1 = Blocks::new(&(path / "layer1"), BlockKind::Bottleneck, 64, 64);
        let stage = |number| Stage::new(path, number, if number == 2 { 256 } else { BRANCHES[number - 2] });
        HrNet { stem, layer1, stages: (2..=4).map(stage).collect() }
    }
}

impl Encoder for HrNet {
    fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        in_parts(self, images, context)
    }

    /// What comes before the branches, and each stage.
    fn parts(&self) -> usize {
        1 + self.stages.len()
    }

    fn part(&self, index: usize, inputs: &[Tensor], context: &Context) -> Flow {
        let Some(stage) = index.checked_sub(1) else {
            let x = self.stem.iter().fold(inputs[0].shallow_clone(), |x, layer| layer.forward_relu(&x, context));
            return Flow { next: vec![self.layer1.forward(&x, context)], maps: Vec::new() };
        };
        let branches = inputs.iter().map(Tensor::shallow_clone).collect();
        let maps = self.stages[stage].forward(branches, context);
        if index < self.stages.len() {
            return Flow { next: maps, maps: Vec::new() };
        }
        let size = &maps[0].size()[2..];
        let joined: Vec<Tensor> =
            maps.iter().enumerate().map(|(i, x)| if i == 0 { x.shallow_clone() } else { resize(x, size) }).collect();
        Flow { next: Vec::new(), maps: vec![Tensor::cat(&joined, 1)] }
    }
}
