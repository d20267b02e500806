//! timm, and Meta's releases that it follows. Its ResNets are called as torchvision's, its vision transformers as ours.

use super::convnext::{self, NORMS};
use crate::model::weights::source::Source;

/// timm's ConvNeXt.
pub const CONVNEXT: Source = Source { name: "timm ConvNeXt", rows: &[("", convnext::TIMM)], lacks: NORMS };

/// Meta's ConvNeXt.
pub const CONVNEXT_META: Source =
    Source { name: "Meta ConvNeXt", rows: &[("", convnext::COMMON), ("", convnext::META)], lacks: NORMS };

/// Meta's DINOv3.
pub const DINOV3_META: Source = Source {
    name: "Meta DINOv3",
    rows: &[(
        "",
        &[
            ("storage_tokens", "encoder.reg_token"),
            ("blocks.{i}.ls{k}.gamma", "encoder.blocks.{i}.gamma_{k}"),
            ("blocks.{i}.norm{k}.{rest}", "encoder.blocks.{i}.norm{k}.{rest}"),
            ("blocks.{i}.attn.{rest}", "encoder.blocks.{i}.attn.{rest}"),
            ("blocks.{i}.mlp.{rest}", "encoder.blocks.{i}.mlp.{rest}"),
            ("cls_token", "encoder.cls_token"),
            ("patch_embed.{rest}", "encoder.patch_embed.{rest}"),
            ("norm.{rest}", "encoder.norm.{rest}"),
        ],
    )],
    lacks: &[],
};
