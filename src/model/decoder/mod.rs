//! Decoders: feature maps in, scores of every class out.

mod c1;
mod ppm;
mod pyramid;
mod upernet;

use super::layers::{Context, Conv2d, ConvNorm, ConvShape, resize};
use super::path::Path;
use super::{Logits, ModelError};
use c1::C1;
use ppm::Ppm;
use tch::Tensor;
use upernet::UperNet;

/// The decoders of the reference, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    C1 {
        deep: bool,
    },
    Ppm {
        deep: bool,
    },
    /// `width`: channels of its feature pyramid.
    UperNet {
        width: i64,
    },
}

/// Every name MODEL.arch_decoder may have.
pub const NAMES: [&str; 6] = ["c1", "c1_deepsup", "ppm", "ppm_deepsup", "upernet", "upernet_lite"];

impl Architecture {
    /// Takes any case, as the reference does.
    pub fn parse(name: &str) -> Result<Self, ModelError> {
        match name.to_lowercase().as_str() {
            "c1" => Ok(Architecture::C1 { deep: false }),
            "c1_deepsup" => Ok(Architecture::C1 { deep: true }),
            "ppm" => Ok(Architecture::Ppm { deep: false }),
            "ppm_deepsup" => Ok(Architecture::Ppm { deep: true }),
            "upernet" => Ok(Architecture::UperNet { width: 512 }),
            "upernet_lite" => Ok(Architecture::UperNet { width: 256 }),
            _ => Err(ModelError::unknown("MODEL.arch_decoder", name, &NAMES)),
        }
    }

    /// Whether there is a second head, on the map before the last.
    pub fn deep_supervision(&self) -> bool {
        match self {
            Architecture::C1 { deep } | Architecture::Ppm { deep } => *deep,
            Architecture::UperNet { .. } => false,
        }
    }

    /// How many feature maps it takes at least.
    pub fn maps(&self) -> usize {
        match self {
            Architecture::UperNet { .. } => 4,
            _ if self.deep_supervision() => 2,
            _ => 1,
        }
    }

    /// Input pixels per pixel of the scores, given those of the feature maps.
    pub fn output_stride(&self, strides: &[u32]) -> u32 {
        let finest = matches!(self, Architecture::UperNet { .. });
        let stride = if finest { strides.first() } else { strides.last() };
        *stride.expect("every encoder has a feature map")
    }
}

/// A decoder's layers.
pub(super) enum Decoder {
    C1(C1),
    Ppm(Ppm),
    UperNet(UperNet),
}

impl Decoder {
    /// `widths`: channels of the encoder's feature maps.
    pub fn new(path: &Path, architecture: &Architecture, widths: &[i64], classes: i64) -> Self {
        match architecture {
            Architecture::C1 { deep } => Decoder::C1(C1::new(path, widths, classes, *deep)),
            Architecture::Ppm { deep } => Decoder::Ppm(Ppm::new(path, widths, classes, *deep)),
            Architecture::UperNet { width } => Decoder::UperNet(UperNet::new(path, widths, classes, *width)),
        }
    }

    /// Scores from the encoder's feature maps, finest first.
    pub fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        match self {
            Decoder::C1(decoder) => decoder.forward(maps, context),
            Decoder::Ppm(decoder) => decoder.forward(maps, context),
            Decoder::UperNet(decoder) => decoder.forward(maps, context),
        }
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

/// A 3 × 3 convolution with batch norm, `conv3x3_bn_relu` in the reference.
fn conv3x3(path: &Path, inputs: i64, outputs: i64) -> ConvNorm {
    ConvNorm::sequential(path, ConvShape::new(inputs, outputs, 3))
}
