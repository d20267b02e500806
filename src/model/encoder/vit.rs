//! Vision transformers (Dosovitskiy et al. 2020, arXiv:2010.11929) as DINOv2 (Oquab et al. 2023, arXiv:2304.07193) and
//! DINOv3 (Siméoni et al. 2025, arXiv:2508.10104) train them. As timm's vision_transformer.py and eva.py, with their names.
//!
//! An image that is no multiple of the patch's side is padded with zeros at the right and bottom (timm's
//! `dynamic_img_pad`). The maps are those after each quarter of the blocks, all of one stride, each through the last
//! layer norm; class and register tokens are left out.

use super::{Encoder, EncoderOptions, EncoderPlan, EncoderRow, FeatureMap, Flow, in_parts};
use crate::model::Initial;
use crate::model::layers::{
    Context, Conv2d, ConvShape, DropPath, LayerNorm, LayerScale, Linear, Role, attention, from_tokens, to_tokens,
};
use crate::model::path::Path;
use tch::{Kind, Tensor};

pub(super) const ROWS: &[EncoderRow] = &[
    row("dinov2_vits14", &Plan { family: DINOV2, width: 384, depth: 12 }),
    row("dinov2_vitb14", &Plan { family: DINOV2, width: 768, depth: 12 }),
    row("dinov2_vitl14", &Plan { family: DINOV2, width: 1024, depth: 24 }),
    row("dinov3_vits16", &Plan { family: DINOV3, width: 384, depth: 12 }),
    row("dinov3_vitb16", &Plan { family: DINOV3, width: 768, depth: 12 }),
    row("dinov3_vitl16", &Plan { family: DINOV3, width: 1024, depth: 24 }),
];

const fn row(name: &'static str, plan: &'static Plan) -> EncoderRow {
    EncoderRow { name, plan }
}

const DINOV2: Family = Family { patch: 14, positions: Positions::Learned { side: 37 }, registers: 0, eps: 1e-6 };
const DINOV3: Family = Family { patch: 16, positions: Positions::Rotary, registers: 4, eps: 1e-5 };

/// Channels of a head.
const HEAD: i64 = 64;
/// How many maps there are.
const MAPS: usize = 4;
/// What a residual branch is multiplied by at first.
const FIRST_SCALE: f64 = 1e-5;
/// Base of the rotations' wavelengths.
const TEMPERATURE: f64 = 100.0;

/// How tokens know where they are.
#[derive(Clone, Copy, PartialEq)]
enum Positions {
    /// By a vector that is added, one for each place of a square of `side` patches.
    Learned { side: i64 },
    /// By rotating queries and keys.
    Rotary,
}

/// What sizes of a family have in common.
#[derive(Clone, Copy)]
struct Family {
    /// Side of a patch.
    patch: i64,
    positions: Positions,
    /// Tokens besides the class token that no patch belongs to.
    registers: i64,
    eps: f64,
}

struct Plan {
    family: Family,
    width: i64,
    depth: usize,
}

impl EncoderPlan for Plan {
    fn maps(&self, _options: &EncoderOptions) -> Vec<FeatureMap> {
        vec![FeatureMap { width: self.width, stride: self.family.patch as u32 }; MAPS]
    }

    fn initial(&self) -> Initial {
        Initial::Normal
    }

    fn build(&self, path: &Path, options: &EncoderOptions) -> Box<dyn Encoder> {
        Box::new(Vit::new(path, self, options.drop_path))
    }
}

/// Sine and cosine by which each token's query and key are turned, (tokens, channels of a head ÷ 2).
struct Rotation {
    sin: Tensor,
    cos: Tensor,
}

impl Rotation {
    /// For `prefix` tokens that stay as they are, and the patches of (height, width): each axis from -1 to 1, half the
    /// angles by the row and half by the column (`RotaryEmbeddingDinoV3` in timm's pos_embed_sincos.py).
    fn new(prefix: i64, (height, width): (i64, i64), like: &Tensor) -> Self {
        let options = (Kind::Float, like.device());
        let frequencies = HEAD / 4;
        let exponents = Tensor::arange(frequencies, options) * (2.0 / (HEAD / 2) as f64);
        let periods = (exponents * TEMPERATURE.ln()).exp();
        let axis = |length: i64| (Tensor::arange(length, options) + 0.5) * (2.0 / length as f64) - 1.0;
        let angles = |length| axis(length).unsqueeze(1) * (2.0 * std::f64::consts::PI) / periods.unsqueeze(0);
        let size = [height, width, frequencies];
        let (rows, columns) = (angles(height).unsqueeze(1).expand(size, false), angles(width).expand(size, false));
        let patches = Tensor::cat(&[rows, columns], 2).view([height * width, 2 * frequencies]);
        let angles = patches.constant_pad_nd([0, 0, prefix, 0]);
        Rotation { sin: angles.sin().to_kind(like.kind()), cos: angles.cos().to_kind(like.kind()) }
    }

    /// Turns the first half of the channels of (n, heads, tokens, channels) against the second.
    fn turn(&self, x: &Tensor) -> Tensor {
        let halves = x.chunk(2, 3);
        let (first, second) = (&halves[0], &halves[1]);
        let turned = [first * &self.cos - second * &self.sin, second * &self.cos + first * &self.sin];
        Tensor::cat(&turned, 3)
    }
}

/// Attention and an MLP, each scaled and added to what goes in.
struct Block {
    norms: [LayerNorm; 2],
    qkv: Linear,
    output: Linear,
    widen: Linear,
    narrow: Linear,
    scales: [LayerScale; 2],
    drop: DropPath,
}

impl Block {
    fn new(path: &Path, plan: &Plan, drop: DropPath) -> Self {
        let Plan { family, width, .. } = *plan;
        let norm = |name: &str| LayerNorm::new(&(path / name), width, family.eps);
        let scale = |path: &Path, name: &str| LayerScale::new(path, name, width, FIRST_SCALE);
        let (scales, qkv) = match family.positions {
            Positions::Learned { .. } => {
                let scales = [scale(&(path / "ls1"), "gamma"), scale(&(path / "ls2"), "gamma")];
                (scales, Linear::new(&(path / "attn" / "qkv"), width, 3 * width))
            }
            // Published with biases of 0, which timm leaves out.
            Positions::Rotary => {
                let scales = [scale(path, "gamma_1"), scale(path, "gamma_2")];
                (scales, Linear::without_bias(&(path / "attn" / "qkv"), width, 3 * width))
            }
        };
        let output = Linear::new(&(path / "attn" / "proj"), width, width);
        let widen = Linear::new(&(path / "mlp" / "fc1"), width, 4 * width);
        let narrow = Linear::new(&(path / "mlp" / "fc2"), 4 * width, width);
        Block { norms: [norm("norm1"), norm("norm2")], qkv, output, widen, narrow, scales, drop }
    }

    fn forward(&self, x: Tensor, rotation: Option<&Rotation>, context: &Context) -> Tensor {
        let qkv = self.qkv.forward(&self.norms[0].forward(&x), context);
        let size = qkv.size();
        let qkv = qkv.view([size[0], size[1], 3, size[2] / 3 / HEAD, HEAD]).permute([2, 0, 3, 1, 4]).unbind(0);
        let turn = |x: &Tensor| rotation.map_or_else(|| x.shallow_clone(), |rotation| rotation.turn(x));
        let mixed = attention(&turn(&qkv[0]), &turn(&qkv[1]), &qkv[2], context);
        let y = self.output.forward_scaled(&mixed, &self.scales[0], context);
        let x = self.drop.forward(0, y, context).g_add_(&x);
        let y = self.widen.forward(&self.norms[1].forward(&x), context);
        let y = self.narrow.forward_gelu(&y, Some(&self.scales[1]), context);
        self.drop.forward(1, y, context).g_add_(&x)
    }
}

struct Vit {
    family: Family,
    /// The class token and the registers, (1, 1 or registers, width).
    prefix: Vec<Tensor>,
    /// (1, 1 + patches, width), the class token's first.
    positions: Option<Tensor>,
    patches: Conv2d,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Vit {
    fn new(path: &Path, plan: &Plan, drop_path: f64) -> Self {
        let Plan { family, width, depth } = *plan;
        let embeddings = path.under(depth + 1);
        let vectors = |name: &str, count: i64| {
            let size = [1, count, width];
            let draw = |initial: Initial| initial.linear_weight([count, width]).view(size);
            embeddings.drawn(name, &size, Role::NoDecay, draw)
        };
        let mut prefix = vec![vectors("cls_token", 1)];
        if family.registers > 0 {
            prefix.push(vectors("reg_token", family.registers));
        }
        let positions = match family.positions {
            Positions::Learned { side } => Some(vectors("pos_embed", 1 + side * side)),
            Positions::Rotary => None,
        };
        let patches = ConvShape::patches(3, width, family.patch);
        let patches = Conv2d::with_bias(&(&embeddings / "patch_embed" / "proj"), patches);
        let block = |index| {
            let path = (path / "blocks" / index).under(depth - index);
            Block::new(&path, plan, DropPath::new(drop_path, index, depth))
        };
        let blocks = (0..depth).map(block).collect();
        let norm = LayerNorm::new(&(path / "norm"), width, family.eps);
        Vit { family, prefix, positions, patches, blocks, norm }
    }

    /// The tokens of `images` before the first block, the prefix first; `grid`: patches in a column and in a row.
    fn tokens(&self, images: &Tensor, grid: (i64, i64), context: &Context) -> Tensor {
        let (size, patch) = (images.size(), self.family.patch);
        let missing = |length: i64| (patch - length % patch) % patch;
        let padded = images.constant_pad_nd([0, missing(size[3]), 0, missing(size[2])]);
        let patches = self.patches.forward(&padded, context);
        let mut parts: Vec<Tensor> = self.prefix.iter().map(|token| token.expand([size[0], -1, -1], false)).collect();
        parts.push(to_tokens(&patches));
        let mut tokens = Tensor::cat(&parts, 1);
        match &self.positions {
            Some(positions) => tokens.g_add_(&resized(positions, self.family.positions, grid)),
            None => tokens,
        }
    }
}

/// Position embeddings for another grid: bicubic with antialiasing, the class token's own as it is
/// (`resample_abs_pos_embed` in timm's pos_embed.py).
fn resized(embeddings: &Tensor, positions: Positions, (height, width): (i64, i64)) -> Tensor {
    let Positions::Learned { side } = positions else { return embeddings.shallow_clone() };
    if (height, width) == (side, side) {
        return embeddings.shallow_clone();
    }
    let (class, patches) = (embeddings.narrow(1, 0, 1), embeddings.narrow(1, 1, side * side));
    let patches =
        from_tokens(&patches, (side, side)).internal_upsample_bicubic2d_aa([height, width], false, None, None);
    Tensor::cat(&[class, to_tokens(&patches)], 1)
}

impl Encoder for Vit {
    fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        in_parts(self, images, context)
    }

    fn parts(&self) -> usize {
        MAPS
    }

    fn part(&self, index: usize, inputs: &[Tensor], context: &Context) -> Flow {
        let grid = [context.size.0, context.size.1].map(|length| (length + self.family.patch - 1) / self.family.patch);
        let grid = (grid[0], grid[1]);
        let mut x = if index == 0 { self.tokens(&inputs[0], grid, context) } else { inputs[0].shallow_clone() };
        let prefix = 1 + self.family.registers;
        let rotation = (self.family.positions == Positions::Rotary).then(|| Rotation::new(prefix, grid, &x));
        let quarter = self.blocks.len() / MAPS;
        for block in &self.blocks[index * quarter..][..quarter] {
            x = block.forward(x, rotation.as_ref(), context);
        }
        let patches = x.narrow(1, prefix, grid.0 * grid.1);
        let map = from_tokens(&self.norm.forward(&patches), grid);
        Flow { next: vec![x], maps: vec![map] }
    }
}
