//! Decoders: feature maps in, scores of every class out. One family a file.

mod c1;
mod deeplabv3plus;
mod linear;
mod ppm;
mod pyramid;
mod segformer;
mod unet;
mod uperhead;
mod upernet;

use super::layers::{Context, Conv2d, ConvNorm, ConvShape, resize};
use super::path::Path;
use super::{FeatureMap, Initial, Logits};
use tch::Tensor;

/// Every name MODEL.arch_decoder may have, family by family.
pub const DECODERS: &[&[DecoderRow]] = &[
    c1::ROWS,
    ppm::ROWS,
    upernet::ROWS,
    segformer::ROWS,
    uperhead::ROWS,
    linear::ROWS,
    unet::ROWS,
    deeplabv3plus::ROWS,
];

/// A name and what it stands for.
#[derive(Clone, Copy)]
pub struct DecoderRow {
    /// In lower case.
    pub name: &'static str,
    /// A member of a family.
    pub plan: &'static dyn DecoderPlan,
}

/// Which feature maps a decoder takes.
pub struct Needs {
    /// Ends the sentence "it needs …".
    pub words: &'static str,
    /// Whether an encoder's maps are such.
    pub met_by: fn(&[FeatureMap]) -> bool,
}

impl Needs {
    /// `count` maps or more (1 to 4), whatever their strides.
    pub fn at_least(count: usize) -> Needs {
        match count {
            0 | 1 => Needs { words: "a feature map", met_by: |maps| !maps.is_empty() },
            2 => Needs { words: "two feature maps", met_by: |maps| maps.len() >= 2 },
            3 => Needs { words: "three feature maps", met_by: |maps| maps.len() >= 3 },
            _ => Needs { words: "four feature maps", met_by: |maps| maps.len() >= 4 },
        }
    }
}

/// What a decoder is built for.
pub struct DecoderOptions {
    /// Channels of the scores.
    pub classes: i64,
    /// Channels inside, where MODEL.decoder_dim or a publication with the same encoder says; else the decoder's own.
    pub width: Option<i64>,
}

/// A decoder before it is built.
pub trait DecoderPlan: Sync {
    /// Which feature maps it can be built on; the other functions are called with such alone.
    fn needs(&self) -> Needs;

    /// The finest stride at which it has a use for a map; finer ones are not shown to it.
    fn finest(&self) -> u32 {
        4
    }

    /// The stride at which an encoder that can dilate instead should stop striding.
    fn coarsest(&self) -> Option<u32> {
        None
    }

    /// Input pixels per pixel of the scores, one direction.
    fn output_stride(&self, maps: &[FeatureMap]) -> u32;

    /// Whether there is a second head, for deep supervision.
    fn deep_supervision(&self) -> bool {
        false
    }

    /// The rule for its first values.
    fn initial(&self) -> Initial {
        Initial::Kaiming
    }

    /// Makes its layers under `path`, on an encoder that gives `maps`.
    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder>;
}

/// A decoder's layers.
pub trait Decoder: Send {
    /// Scores from the encoder's feature maps, finest first.
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits;
}

fn finest(maps: &[FeatureMap]) -> FeatureMap {
    *maps.first().expect("every decoder needs a map")
}

fn coarsest(maps: &[FeatureMap]) -> FeatureMap {
    *maps.last().expect("every decoder needs a map")
}

/// A decoder of the reference on the coarsest map.
struct OnCoarsest {
    /// With deep supervision on the map before.
    deep: bool,
    /// From the path, the maps, the number of classes, and `deep`.
    build: fn(&Path, &[FeatureMap], i64, bool) -> Box<dyn Decoder>,
}

impl DecoderPlan for OnCoarsest {
    fn needs(&self) -> Needs {
        Needs::at_least(if self.deep { 2 } else { 1 })
    }

    fn output_stride(&self, maps: &[FeatureMap]) -> u32 {
        coarsest(maps).stride
    }

    fn deep_supervision(&self) -> bool {
        self.deep
    }

    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
        (self.build)(path, maps, options.classes, self.deep)
    }
}

/// The head of deep supervision on the map before the last, half as wide as the last (Zhao et al. 2016).
struct DeepSupervision {
    cbr: ConvNorm,
    last: Conv2d,
}

/// Dropout layers by number, part of their masks' key.
const MAIN_DROPOUT: u64 = 0;
const DEEP_DROPOUT: u64 = 1;

impl DeepSupervision {
    /// Its scores, of the size of `main`; `dropout`: whether channels are dropped before the last layer.
    fn forward(&self, maps: &[Tensor], main: &Tensor, dropout: bool, context: &Context) -> Tensor {
        let mut x = self.cbr.forward(&maps[maps.len() - 2], context);
        if dropout {
            x = context.dropout(DEEP_DROPOUT, x);
        }
        let scores = self.last.forward(&x.relu_(), context);
        // Behind an encoder that is not dilated the two maps differ in size, which the reference cannot train.
        match (&scores.size()[2..], &main.size()[2..]) {
            (own, main) if own == main => scores,
            (_, main) => resize(&scores, main),
        }
    }
}

/// Bilinear with corners aligned, as segmentation_models.pytorch resizes; `size`: height and width.
fn resize_aligned(x: &Tensor, size: &[i64]) -> Tensor {
    x.upsample_bilinear2d(size, true, None, None)
}

/// A 3 × 3 convolution with batch norm, `conv3x3_bn_relu` in the reference.
fn conv3x3(path: &Path, inputs: i64, outputs: i64) -> ConvNorm {
    ConvNorm::sequential(path, ConvShape::new(inputs, outputs, 3))
}
