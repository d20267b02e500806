//! Hugging Face transformers, whose names ours follow in SegFormer, ConvNeXt and UPerNet.

use super::convnext::NORMS;
use super::vit;
use crate::model::weights::source::{Row, Source};

/// SegFormer as save_pretrained writes it; with a head for classification the encoder alone.
pub const SEGFORMER: Source = Source {
    name: "transformers SegFormer",
    rows: &[(
        "",
        &[
            ("segformer.encoder.patch_embeddings.{rest}", "encoder.patch_embeddings.{rest}"),
            ("segformer.encoder.block.{rest}", "encoder.block.{rest}"),
            ("segformer.encoder.layer_norm.{rest}", "encoder.layer_norm.{rest}"),
            ("decode_head.linear_c.{rest}", "decoder.linear_c.{rest}"),
            ("decode_head.linear_fuse.{rest}", "decoder.linear_fuse.{rest}"),
            ("decode_head.batch_norm.{rest}", "decoder.batch_norm.{rest}"),
            ("decode_head.classifier.{rest}", "decoder.classifier.{rest}"),
        ],
    )],
    lacks: &[],
};

/// SegFormer's state dict since transformers 5, whose modules are called otherwise than the files it writes.
pub const SEGFORMER_IN_MEMORY: Source = Source { name: "transformers 5 SegFormer", rows: &[("", MODULES)], lacks: &[] };

const MODULES: &[Row] = &[
    ("segformer.stages.{i}.patch_embeddings.{rest}", "encoder.patch_embeddings.{i}.{rest}"),
    ("segformer.stages.{i}.blocks.{j}.layernorm_before.{rest}", "encoder.block.{i}.{j}.layer_norm_1.{rest}"),
    ("segformer.stages.{i}.blocks.{j}.layernorm_after.{rest}", "encoder.block.{i}.{j}.layer_norm_2.{rest}"),
    ("segformer.stages.{i}.blocks.{j}.attention.q_proj.{rest}", "encoder.block.{i}.{j}.attention.self.query.{rest}"),
    ("segformer.stages.{i}.blocks.{j}.attention.k_proj.{rest}", "encoder.block.{i}.{j}.attention.self.key.{rest}"),
    ("segformer.stages.{i}.blocks.{j}.attention.v_proj.{rest}", "encoder.block.{i}.{j}.attention.self.value.{rest}"),
    ("segformer.stages.{i}.blocks.{j}.attention.o_proj.{rest}", "encoder.block.{i}.{j}.attention.output.dense.{rest}"),
    (
        "segformer.stages.{i}.blocks.{j}.attention.sequence_reduction.sequence_reduction.{rest}",
        "encoder.block.{i}.{j}.attention.self.sr.{rest}",
    ),
    (
        "segformer.stages.{i}.blocks.{j}.attention.sequence_reduction.layer_norm.{rest}",
        "encoder.block.{i}.{j}.attention.self.layer_norm.{rest}",
    ),
    ("segformer.stages.{i}.blocks.{j}.mlp.fc{k}.{rest}", "encoder.block.{i}.{j}.mlp.dense{k}.{rest}"),
    ("segformer.stages.{i}.blocks.{j}.mlp.dwconv.{rest}", "encoder.block.{i}.{j}.mlp.dwconv.{rest}"),
    ("segformer.stages.{i}.layer_norm.{rest}", "encoder.layer_norm.{i}.{rest}"),
    ("decode_head.linear_projections.{rest}", "decoder.linear_c.{rest}"),
    ("decode_head.{rest}", "decoder.{rest}"),
];

/// UPerNet over a ConvNeXt.
pub const UPERNET: Source = Source {
    name: "transformers UPerNet",
    rows: &[
        ("backbone.", BACKBONE),
        (
            "",
            &[
                ("auxiliary_head.{rest}", "decoder.auxiliary_head.{rest}"),
                ("decode_head.classifier.{rest}", "decoder.classifier.{rest}"),
                ("decode_head.psp_modules.{rest}", "decoder.psp_modules.{rest}"),
                ("decode_head.bottleneck.{rest}", "decoder.bottleneck.{rest}"),
                ("decode_head.lateral_convs.{rest}", "decoder.lateral_convs.{rest}"),
                ("decode_head.fpn_convs.{rest}", "decoder.fpn_convs.{rest}"),
                ("decode_head.fpn_bottleneck.{rest}", "decoder.fpn_bottleneck.{rest}"),
            ],
        ),
    ],
    lacks: &[],
};

/// ConvNeXt for classification or alone.
pub const CONVNEXT: Source =
    Source { name: "transformers ConvNeXt", rows: &[("convnext.", BACKBONE), ("", BACKBONE)], lacks: NORMS };

const BACKBONE: &[Row] = &[
    ("embeddings.{rest}", "encoder.embeddings.{rest}"),
    ("encoder.stages.{rest}", "encoder.stages.{rest}"),
    ("hidden_states_norms.{rest}", "encoder.hidden_states_norms.{rest}"),
];

/// DINOv2.
pub const DINOV2: Source = Source { name: "transformers DINOv2", rows: &[("", vit::DINOV2)], lacks: &[] };

/// DINOv3.
pub const DINOV3: Source = Source { name: "transformers DINOv3", rows: &[("", vit::DINOV3)], lacks: &[] };
