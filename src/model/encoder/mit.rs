//! MiT, the encoder of SegFormer (Xie et al. 2021, arXiv:2105.15203): four stages of transformer blocks on ever coarser
//! tokens, whose attention looks at a coarser copy of its own map, and whose MLPs hold a depthwise convolution instead of
//! position embeddings. As in transformers' modeling_segformer.py, with the names of its files.

use super::{Encoder, EncoderOptions, EncoderPlan, EncoderRow, FeatureMap, Flow, in_parts};
use crate::model::Initial;
use crate::model::layers::{
    Context, Conv2d, ConvShape, DropPath, LayerNorm, Linear, attention, from_tokens, to_tokens,
};
use crate::model::path::Path;
use tch::Tensor;

pub(super) const ROWS: &[EncoderRow] = &[
    EncoderRow { name: "mit_b0", plan: &Plan { width: 32, depths: [2, 2, 2, 2], decoder_dim: 256 } },
    EncoderRow { name: "mit_b1", plan: &Plan { width: 64, depths: [2, 2, 2, 2], decoder_dim: 256 } },
    EncoderRow { name: "mit_b2", plan: &Plan { width: 64, depths: [3, 4, 6, 3], decoder_dim: 768 } },
    EncoderRow { name: "mit_b3", plan: &Plan { width: 64, depths: [3, 4, 18, 3], decoder_dim: 768 } },
    EncoderRow { name: "mit_b4", plan: &Plan { width: 64, depths: [3, 8, 27, 3], decoder_dim: 768 } },
    EncoderRow { name: "mit_b5", plan: &Plan { width: 64, depths: [3, 6, 40, 3], decoder_dim: 768 } },
];

/// Heads of attention of each stage; its channels are so many times a head's.
const HEADS: [i64; 4] = [1, 2, 5, 8];
/// Side of the squares of tokens that one key and value stand for.
const REDUCTIONS: [i64; 4] = [8, 4, 2, 1];
/// Side of the convolution that makes a stage's tokens, and its stride.
const PATCHES: [(i64, i64); 4] = [(7, 4), (3, 2), (3, 2), (3, 2)];
/// Channels within an MLP, per channel outside.
const EXPANSION: i64 = 4;
/// Of every layer norm in transformers (NVIDIA's own code has 1e-6 in some).
const EPS: f64 = 1e-5;

struct Plan {
    /// Channels of a head, thus of the first map.
    width: i64,
    /// Blocks in each stage.
    depths: [usize; 4],
    /// Of the segformer head that NVIDIA published with it.
    decoder_dim: i64,
}

impl Plan {
    fn widths(&self) -> [i64; 4] {
        HEADS.map(|heads| heads * self.width)
    }
}

impl EncoderPlan for Plan {
    fn maps(&self, _options: &EncoderOptions) -> Vec<FeatureMap> {
        self.widths().into_iter().zip([4, 8, 16, 32]).map(|(width, stride)| FeatureMap { width, stride }).collect()
    }

    fn initial(&self) -> Initial {
        Initial::Normal
    }

    fn decoder_dim(&self, decoder: &str) -> Option<i64> {
        (decoder == "segformer").then_some(self.decoder_dim)
    }

    fn build(&self, path: &Path, options: &EncoderOptions) -> Box<dyn Encoder> {
        Box::new(Mit::new(path, self, options.drop_path))
    }
}

/// Attention whose keys and values are fewer than its queries.
struct Attention {
    heads: i64,
    query: Linear,
    key: Linear,
    value: Linear,
    reduction: Option<(Conv2d, LayerNorm)>,
    output: Linear,
}

impl Attention {
    fn new(path: &Path, width: i64, heads: i64, reduction: i64) -> Self {
        let inner = path / "self";
        let linear = |name: &str| Linear::new(&(&inner / name), width, width);
        let (query, key, value) = (linear("query"), linear("key"), linear("value"));
        let reduction = (reduction > 1).then(|| {
            let conv = Conv2d::with_bias(&(&inner / "sr"), ConvShape::patches(width, width, reduction));
            (conv, LayerNorm::new(&(&inner / "layer_norm"), width, EPS))
        });
        Attention {
            heads,
            query,
            key,
            value,
            reduction,
            output: Linear::new(&(path / "output" / "dense"), width, width),
        }
    }

    fn forward(&self, x: &Tensor, size: (i64, i64), context: &Context) -> Tensor {
        let split = |x: Tensor| {
            let size = x.size();
            x.view([size[0], size[1], self.heads, size[2] / self.heads]).transpose(1, 2)
        };
        let reduced = self
            .reduction
            .as_ref()
            .map(|(conv, norm)| norm.forward(&to_tokens(&conv.forward(&from_tokens(x, size), context))));
        let source = reduced.as_ref().unwrap_or(x);
        let query = split(self.query.forward(x, context));
        let (key, value) = (self.key.forward(source, context), self.value.forward(source, context));
        self.output.forward(&attention(&query, &split(key), &split(value), context), context)
    }
}

/// Attention and an MLP, each added to what goes in.
struct Block {
    norms: [LayerNorm; 2],
    attention: Attention,
    widen: Linear,
    depthwise: Conv2d,
    narrow: Linear,
    drop: DropPath,
}

impl Block {
    fn new(path: &Path, stage: usize, width: i64, drop: DropPath) -> Self {
        let hidden = EXPANSION * width;
        let first = LayerNorm::new(&(path / "layer_norm_1"), width, EPS);
        let attention = Attention::new(&(path / "attention"), width, HEADS[stage], REDUCTIONS[stage]);
        let second = LayerNorm::new(&(path / "layer_norm_2"), width, EPS);
        let path = path / "mlp";
        let widen = Linear::new(&(&path / "dense1"), width, hidden);
        let depthwise = ConvShape::new(hidden, hidden, 3).groups(hidden);
        let depthwise = Conv2d::with_bias(&(&path / "dwconv" / "dwconv"), depthwise);
        let narrow = Linear::new(&(&path / "dense2"), hidden, width);
        Block { norms: [first, second], attention, widen, depthwise, narrow, drop }
    }

    /// `x`: (n, tokens, channels) of an image of `size`.
    fn forward(&self, x: Tensor, size: (i64, i64), context: &Context) -> Tensor {
        let y = self.attention.forward(&self.norms[0].forward(&x), size, context);
        let x = self.drop.forward(0, y, context).g_add_(&x);
        let y = self.widen.forward(&self.norms[1].forward(&x), context);
        let y = to_tokens(&self.depthwise.forward(&from_tokens(&y, size), context));
        let y = self.narrow.forward_gelu(&y, None, context);
        self.drop.forward(1, y, context).g_add_(&x)
    }
}

struct Stage {
    patches: Conv2d,
    patch_norm: LayerNorm,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

struct Mit(Vec<Stage>);

impl Mit {
    fn new(path: &Path, plan: &Plan, drop_path: f64) -> Self {
        let blocks = plan.depths.iter().sum();
        let widths = plan.widths();
        let mut number = 0;
        let stage = |stage: usize| {
            let inputs = if stage == 0 { 3 } else { widths[stage - 1] };
            let (width, (side, stride)) = (widths[stage], PATCHES[stage]);
            // Like the stage's first block, but for what makes tokens of the image.
            let above = if stage == 0 { blocks + 1 } else { blocks - number };
            let patch_path = (path / "patch_embeddings" / stage).under(above);
            let patches = ConvShape::new(inputs, width, side).stride(stride);
            let patches = Conv2d::with_bias(&(&patch_path / "proj"), patches);
            let patch_norm = LayerNorm::new(&(&patch_path / "layer_norm"), width, EPS);
            let block = |index| {
                let drop = DropPath::new(drop_path, number, blocks);
                let path = (path / "block" / stage / index).under(blocks - number);
                number += 1;
                Block::new(&path, stage, width, drop)
            };
            let of_stage = (0..plan.depths[stage]).map(block).collect();
            let norm = LayerNorm::new(&(path / "layer_norm" / stage).under(blocks + 1 - number), width, EPS);
            Stage { patches, patch_norm, blocks: of_stage, norm }
        };
        Mit((0..4).map(stage).collect())
    }
}

impl Encoder for Mit {
    fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        in_parts(self, images, context)
    }

    fn parts(&self) -> usize {
        self.0.len()
    }

    fn part(&self, index: usize, inputs: &[Tensor], context: &Context) -> Flow {
        let stage = &self.0[index];
        let patches = stage.patches.forward(&inputs[0], context);
        let size = (patches.size()[2], patches.size()[3]);
        let tokens = stage.patch_norm.forward(&to_tokens(&patches));
        let tokens = stage.blocks.iter().fold(tokens, |tokens, block| block.forward(tokens, size, context));
        let x = from_tokens(&stage.norm.forward(&tokens), size);
        Flow { next: vec![x.shallow_clone()], maps: vec![x] }
    }
}
