//! Networks over named tensors, each an encoder and a decoder that a table's row describes.
//!
//! Those of the reference (mit_semseg/models) have its tensor names. What others there are, what weights they take and give
//! back, and how near they are to the packages they come from stands in [`crate::guide::networks`].
//!
//! # How to add an encoder
//!
//! Write one file in `encoder/` with the layers, an [`Encoder`] over them, an [`EncoderPlan`] that says what they give,
//! and its `ROWS`; name those in [`ENCODERS`]. Layers are made from a [`Path`](path::Path), which names their tensors, and
//! run with a [`Context`](layers::Context). One that also says its parts ([`Encoder::part`]) saves memory with MODEL.recompute.
//!
//! ```
//! use segdist::model::layers::{Context, ConvNorm, ConvShape};
//! use segdist::model::{Encoder, EncoderOptions, EncoderPlan, EncoderRow, FeatureMap, Initial, path::Path};
//! use tch::Tensor;
//!
//! struct Tiny(ConvNorm);
//! impl Encoder for Tiny {
//!     fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
//!         vec![self.0.forward_relu(images, context)]
//!     }
//! }
//! struct Plan;
//! impl EncoderPlan for Plan {
//!     fn maps(&self, _: &EncoderOptions) -> Vec<FeatureMap> {
//!         vec![FeatureMap { width: 16, stride: 4 }]
//!     }
//!     fn initial(&self) -> Initial {
//!         Initial::FanOut
//!     }
//!     fn build(&self, path: &Path, _: &EncoderOptions) -> Box<dyn Encoder> {
//!         Box::new(Tiny(ConvNorm::sequential(&(path / "stem"), ConvShape::new(3, 16, 3).stride(4))))
//!     }
//! }
//! const ROW: EncoderRow = EncoderRow { name: "tiny", plan: &Plan };
//! ```
//!
//! # How to add a decoder
//!
//! The same in `decoder/`: a [`Decoder`], a [`DecoderPlan`] whose [`Needs`] say which feature maps it takes, and a row
//! in [`DECODERS`]. A network from rows that no table holds comes from [`Network::from_rows`].
//!
//! ```
//! use segdist::model::layers::{Context, Conv2d, ConvShape};
//! use segdist::model::{Decoder, DecoderOptions, DecoderPlan, FeatureMap, Logits, Needs, path::Path};
//! use tch::Tensor;
//!
//! struct Scores(Conv2d);
//! impl Decoder for Scores {
//!     fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
//!         Logits { main: self.0.forward(&maps[0], context), deepsup: None }
//!     }
//! }
//! struct Plan;
//! impl DecoderPlan for Plan {
//!     fn needs(&self) -> Needs {
//!         Needs::at_least(1)
//!     }
//!     fn output_stride(&self, maps: &[FeatureMap]) -> u32 {
//!         maps[0].stride
//!     }
//!     fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
//!         Box::new(Scores(Conv2d::with_bias(&(path / "scores"), ConvShape::new(maps[0].width, options.classes, 1))))
//!     }
//! }
//! ```

pub mod dropout;
pub mod layers;
pub mod path;
pub mod summary;
pub mod weights;

mod config;
mod decoder;
mod encoder;
mod inference;
mod init;
mod network;
mod recompute;
mod shape;
mod statistics;

pub use config::{BnRunning, BnVariance, Init, ModelConfig, Stem};
pub use decoder::{DECODERS, Decoder, DecoderOptions, DecoderPlan, DecoderRow, Needs};
pub use encoder::{ENCODERS, Encoder, EncoderOptions, EncoderPlan, EncoderRow, FeatureMap, Flow};
pub use inference::EVALUATE;
pub use init::Initial;
pub use network::{Logits, Network, Pass};
pub use recompute::Kept;
pub use shape::{ModelError, Shape, shape};
pub use statistics::{Estimate, Statistics};
