//! Encoders: images in, feature maps out, finest first. One family a file.

mod convnext;
mod hrnet;
mod mit;
mod mobilenet;
mod resnet;
mod vit;

use super::layers::Context;
use super::path::Path;
use super::{Initial, Stem};
use tch::Tensor;

/// Every name MODEL.arch_encoder may have, family by family.
pub const ENCODERS: &[&[EncoderRow]] =
    &[mobilenet::ROWS, resnet::ROWS, hrnet::ROWS, mit::ROWS, convnext::ROWS, vit::ROWS];

/// A name and what it stands for.
#[derive(Clone, Copy)]
pub struct EncoderRow {
    /// In lower case.
    pub name: &'static str,
    /// A member of a family.
    pub plan: &'static dyn EncoderPlan,
}

/// What an encoder gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureMap {
    /// Channels.
    pub width: i64,
    /// Input pixels per pixel, one direction.
    pub stride: u32,
}

/// What an encoder is built for.
#[derive(Clone, Copy)]
pub struct EncoderOptions {
    /// MODEL.stem.
    pub stem: Stem,
    /// MODEL.drop_path.
    pub drop_path: f64,
    /// The stride at which the decoder wants the encoder to stop, for those that can; see [`DecoderPlan::coarsest`].
    ///
    /// [`DecoderPlan::coarsest`]: super::DecoderPlan::coarsest
    pub coarsest: Option<u32>,
}

/// An encoder before it is built.
pub trait EncoderPlan: Sync {
    /// What [`Encoder::forward`] gives, in its order.
    fn maps(&self, options: &EncoderOptions) -> Vec<FeatureMap>;

    /// The rule for its first values.
    fn initial(&self) -> Initial;

    /// Name of the file with its ImageNet weights in MODEL.pretrained_dir, where somebody publishes one.
    fn pretrained_file(&self, _options: &EncoderOptions) -> Option<&'static str> {
        None
    }

    /// Channels inside the decoder of that name, where it was published with this encoder.
    fn decoder_dim(&self, _decoder: &str) -> Option<i64> {
        None
    }

    /// Makes its layers under `path`.
    fn build(&self, path: &Path, options: &EncoderOptions) -> Box<dyn Encoder>;
}

/// An encoder's layers.
pub trait Encoder: Send {
    /// Feature maps (n, width, h ÷ stride, w ÷ stride) of `images` (n, 3, h, w), finest first; n may be 0.
    fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor>;

    /// In how many parts it can run, one after the other: what MODEL.recompute saves memory by.
    fn parts(&self) -> usize {
        1
    }

    /// Part `index`, of what the part before passes on, or of the images. No part may change what it is given.
    fn part(&self, _index: usize, inputs: &[Tensor], context: &Context) -> Flow {
        Flow { next: Vec::new(), maps: self.forward(&inputs[0], context) }
    }
}

/// What comes out of a part of an encoder.
pub struct Flow {
    /// For the next part.
    pub next: Vec<Tensor>,
    /// Feature maps.
    pub maps: Vec<Tensor>,
}

/// [`Encoder::forward`] of an encoder in parts: all of them.
///
/// Gradients of what is passed on are summed before those of the same tensor as a map are added, as they are where a part
/// runs again by itself: floating-point sums depend on their order.
fn in_parts(encoder: &dyn Encoder, images: &Tensor, context: &Context) -> Vec<Tensor> {
    let (mut inputs, mut maps) = (vec![images.shallow_clone()], Vec::new());
    for index in 0..encoder.parts() {
        let flow = encoder.part(index, &inputs, context);
        inputs = flow.next.iter().map(Tensor::alias).collect();
        maps.extend(flow.maps);
    }
    maps
}
