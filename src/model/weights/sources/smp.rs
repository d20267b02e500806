//! segmentation_models_pytorch: encoder, decoder and the head of its networks.

use super::{mit, torchvision};
use crate::model::weights::source::{Row, Source};

/// A decoder of its own over an encoder of torchvision's.
pub const SMP: Source = Source {
    name: "segmentation_models_pytorch",
    rows: &[
        ("encoder.", torchvision::STEM),
        ("encoder.", torchvision::STAGES),
        ("encoder.", torchvision::NESTED),
        ("", DECODERS),
    ],
    lacks: &[],
};

/// The same over a MiT.
pub const SMP_MIT: Source =
    Source { name: "segmentation_models_pytorch MiT", rows: &[("encoder.", mit::ENCODER), ("", DECODERS)], lacks: &[] };

/// SegFormer.
pub const SMP_SEGFORMER: Source = Source {
    name: "segmentation_models_pytorch SegFormer",
    rows: &[("encoder.", mit::ENCODER), ("", SEGFORMER)],
    lacks: &[],
};

/// Unet and DeepLabV3Plus.
const DECODERS: &[Row] = &[
    ("segmentation_head.{rest}", "decoder.segmentation_head.{rest}"),
    ("decoder.blocks.{rest}", "decoder.blocks.{rest}"),
    ("decoder.aspp.{rest}", "decoder.aspp.{rest}"),
    ("decoder.block1.{rest}", "decoder.block1.{rest}"),
    ("decoder.block2.{rest}", "decoder.block2.{rest}"),
];

/// Its first linear layer reads the coarsest map.
const SEGFORMER: &[Row] = &[
    ("decoder.mlp_stage.0.linear.{rest}", "decoder.linear_c.3.proj.{rest}"),
    ("decoder.mlp_stage.1.linear.{rest}", "decoder.linear_c.2.proj.{rest}"),
    ("decoder.mlp_stage.2.linear.{rest}", "decoder.linear_c.1.proj.{rest}"),
    ("decoder.mlp_stage.3.linear.{rest}", "decoder.linear_c.0.proj.{rest}"),
    ("decoder.fuse_stage.0.{rest}", "decoder.linear_fuse.{rest}"),
    ("decoder.fuse_stage.1.{rest}", "decoder.batch_norm.{rest}"),
    ("segmentation_head.0.{rest}", "decoder.classifier.{rest}"),
];
