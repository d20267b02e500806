//! mmsegmentation's checkpoints: `backbone.`, `decode_head.` and `auxiliary_head.` under `state_dict`.

use super::convnext;
use crate::model::weights::source::{Row, Source};

/// A MiT. Its SegFormer head (convolutions with a norm for each map) is another than NVIDIA's and has no counterpart.
pub const MIT: Source = Source { name: "mmsegmentation MiT", rows: &[("backbone.", ENCODER)], lacks: &[] };

const ENCODER: &[Row] = &[
    ("layers.{i}.0.projection.{rest}", "encoder.patch_embeddings.{i}.proj.{rest}"),
    ("layers.{i}.0.norm.{rest}", "encoder.patch_embeddings.{i}.layer_norm.{rest}"),
    ("layers.{i}.1.{j}.norm{k}.{rest}", "encoder.block.{i}.{j}.layer_norm_{k}.{rest}"),
    (
        "layers.{i}.1.{j}.attn.attn.in_proj_{rest}",
        "encoder.block.{i}.{j}.attention.self.query.{rest} + encoder.block.{i}.{j}.attention.self.key.{rest} + \
         encoder.block.{i}.{j}.attention.self.value.{rest}",
    ),
    ("layers.{i}.1.{j}.attn.attn.out_proj.{rest}", "encoder.block.{i}.{j}.attention.output.dense.{rest}"),
    ("layers.{i}.1.{j}.attn.sr.{rest}", "encoder.block.{i}.{j}.attention.self.sr.{rest}"),
    ("layers.{i}.1.{j}.attn.norm.{rest}", "encoder.block.{i}.{j}.attention.self.layer_norm.{rest}"),
    ("layers.{i}.1.{j}.ffn.layers.0.{rest}", "encoder.block.{i}.{j}.mlp.dense1.{rest}"),
    ("layers.{i}.1.{j}.ffn.layers.1.{rest}", "encoder.block.{i}.{j}.mlp.dwconv.dwconv.{rest}"),
    ("layers.{i}.1.{j}.ffn.layers.4.{rest}", "encoder.block.{i}.{j}.mlp.dense2.{rest}"),
    ("layers.{i}.2.{rest}", "encoder.layer_norm.{i}.{rest}"),
];

/// UPerNet over a ConvNeXt.
pub const CONVNEXT: Source = Source {
    name: "mmsegmentation ConvNeXt",
    rows: &[("backbone.", convnext::COMMON), ("backbone.", convnext::MMPRETRAIN), ("", HEADS)],
    lacks: &[],
};

const HEADS: &[Row] = &[
    ("decode_head.conv_seg.{rest}", "decoder.classifier.{rest}"),
    ("decode_head.psp_modules.{k}.1.bn.{rest}", "decoder.psp_modules.{k}.1.batch_norm.{rest}"),
    ("decode_head.bottleneck.bn.{rest}", "decoder.bottleneck.batch_norm.{rest}"),
    ("decode_head.lateral_convs.{k}.bn.{rest}", "decoder.lateral_convs.{k}.batch_norm.{rest}"),
    ("decode_head.fpn_convs.{k}.bn.{rest}", "decoder.fpn_convs.{k}.batch_norm.{rest}"),
    ("decode_head.fpn_bottleneck.bn.{rest}", "decoder.fpn_bottleneck.batch_norm.{rest}"),
    ("decode_head.{rest}", "decoder.{rest}"),
    ("auxiliary_head.convs.{k}.bn.{rest}", "decoder.auxiliary_head.convs.{k}.batch_norm.{rest}"),
    ("auxiliary_head.conv_seg.{rest}", "decoder.auxiliary_head.classifier.{rest}"),
    ("auxiliary_head.{rest}", "decoder.auxiliary_head.{rest}"),
];

/// A backbone that is called as ours, such as a ResNet; heads of UPerNet.
pub const BACKBONE: Source =
    Source { name: "mmsegmentation", rows: &[("", &[("backbone.{rest}", "encoder.{rest}")]), ("", HEADS)], lacks: &[] };
