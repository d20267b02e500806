//! ConvNeXt (Liu et al. 2022, arXiv:2201.03545): depthwise 7 × 7 convolutions between layer norms and MLPs of pixels. As
//! ConvNextBackbone in transformers' modeling_convnext.py, with the names of its files but for an `encoder.` among them;
//! every feature map ends in a layer norm of its own.

use super::{Encoder, EncoderOptions, EncoderPlan, EncoderRow, FeatureMap, Flow, in_parts};
use crate::model::Initial;
use crate::model::layers::{Context, Conv2d, ConvShape, DropPath, LayerNorm, LayerScale, Linear};
use crate::model::path::Path;
use tch::Tensor;

pub(super) const ROWS: &[EncoderRow] = &[
    EncoderRow { name: "convnext_tiny", plan: &Plan { width: 96, depths: [3, 3, 9, 3] } },
    EncoderRow { name: "convnext_small", plan: &Plan { width: 96, depths: [3, 3, 27, 3] } },
    EncoderRow { name: "convnext_base", plan: &Plan { width: 128, depths: [3, 3, 27, 3] } },
    EncoderRow { name: "convnext_large", plan: &Plan { width: 192, depths: [3, 3, 27, 3] } },
];

const EPS: f64 = 1e-6;
/// What a residual branch is multiplied by at first.
const FIRST_SCALE: f64 = 1e-6;

struct Plan {
    /// Channels of the first map; every further one doubles them.
    width: i64,
    /// Blocks in each stage.
    depths: [usize; 4],
}

impl EncoderPlan for Plan {
    fn maps(&self, _options: &EncoderOptions) -> Vec<FeatureMap> {
        (0..4).map(|stage| FeatureMap { width: self.width << stage, stride: 4 << stage }).collect()
    }

    fn initial(&self) -> Initial {
        Initial::Normal
    }

    fn build(&self, path: &Path, options: &EncoderOptions) -> Box<dyn Encoder> {
        Box::new(ConvNext::new(path, self, options.drop_path))
    }
}

struct Block {
    depthwise: Conv2d,
    norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    scale: LayerScale,
    drop: DropPath,
}

impl Block {
    fn new(path: &Path, width: i64, drop: DropPath) -> Self {
        let scale = LayerScale::new(path, "layer_scale_parameter", width, FIRST_SCALE);
        let depthwise = Conv2d::with_bias(&(path / "dwconv"), ConvShape::new(width, width, 7).groups(width));
        let norm = LayerNorm::new(&(path / "layernorm"), width, EPS);
        let widen = Linear::new(&(path / "pwconv1"), width, 4 * width);
        let narrow = Linear::new(&(path / "pwconv2"), 4 * width, width);
        Block { depthwise, norm, widen, narrow, scale, drop }
    }

    fn forward(&self, x: Tensor, context: &Context) -> Tensor {
        let y = self.depthwise.forward(&x, context).permute([0, 2, 3, 1]);
        let y = self.widen.forward(&self.norm.forward(&y), context);
        let y = self.narrow.forward_gelu(&y, Some(&self.scale), context).permute([0, 3, 1, 2]);
        self.drop.forward(0, y, context).g_add_(&x)
    }
}

struct Stage {
    /// What halves the map, but for the first stage's.
    downsample: Option<(LayerNorm, Conv2d)>,
    blocks: Vec<Block>,
    /// Of what leaves the encoder here; the next stage goes on without it.
    norm: LayerNorm,
}

struct ConvNext {
    patches: Conv2d,
    patch_norm: LayerNorm,
    stages: Vec<Stage>,
}

impl ConvNext {
    fn new(path: &Path, plan: &Plan, drop_path: f64) -> Self {
        // The layers that mmsegmentation counts for its decay by stages: up to three blocks of the third stage are one.
        let layers = 3 + plan.depths[2].div_ceil(3);
        let embeddings = (path / "embeddings").under(layers + 1);
        let patches = Conv2d::with_bias(&(&embeddings / "patch_embeddings"), ConvShape::patches(3, plan.width, 4));
        let patch_norm = LayerNorm::new(&(&embeddings / "layernorm"), plan.width, EPS);
        let total = plan.depths.iter().sum();
        let mut number = 0;
        let stage = |index: usize| {
            let width = plan.width << index;
            let stage_path = (path / "stages" / index).under(layers - index);
            let downsample = (index > 0).then(|| {
                let path = (&stage_path / "downsampling_layer").under(layers + 1);
                let norm = LayerNorm::new(&(&path / 0), width / 2, EPS);
                (norm, Conv2d::with_bias(&(&path / 1), ConvShape::patches(width / 2, width, 2)))
            });
            let block = |block| {
                let drop = DropPath::new(drop_path, number, total);
                number += 1;
                Block::new(&(&stage_path / "layers" / block), width, drop)
            };
            let blocks = (0..plan.depths[index]).map(block).collect();
            let norm = path / "hidden_states_norms" / format!("stage{}", index + 1);
            Stage { downsample, blocks, norm: LayerNorm::new(&norm, width, EPS) }
        };
        ConvNext { patches, patch_norm, stages: (0..4).map(stage).collect() }
    }
}

impl Encoder for ConvNext {
    fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        in_parts(self, images, context)
    }

    fn parts(&self) -> usize {
        self.stages.len()
    }

    fn part(&self, index: usize, inputs: &[Tensor], context: &Context) -> Flow {
        let stage = &self.stages[index];
        let x = match &stage.downsample {
            Some((norm, conv)) => conv.forward(&norm.forward_channels(&inputs[0]), context),
            None => self.patch_norm.forward_channels(&self.patches.forward(&inputs[0], context)),
        };
        let x = stage.blocks.iter().fold(x, |x, block| block.forward(x, context));
        let map = stage.norm.forward_channels(&x);
        Flow { next: vec![x], maps: vec![map] }
    }
}
