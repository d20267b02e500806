//! Vision transformers under the names of transformers; ours are timm's, where query, key and value are one tensor.

use crate::model::weights::source::Row;

/// DINOv2 (transformers/models/dinov2).
pub const DINOV2: &[Row] = &[
    ("embeddings.cls_token", "encoder.cls_token"),
    ("embeddings.position_embeddings", "encoder.pos_embed"),
    ("embeddings.patch_embeddings.projection.{rest}", "encoder.patch_embed.proj.{rest}"),
    (
        "encoder.layer.{i}.attention.attention.query.{rest} + encoder.layer.{i}.attention.attention.key.{rest} + \
         encoder.layer.{i}.attention.attention.value.{rest}",
        "encoder.blocks.{i}.attn.qkv.{rest}",
    ),
    ("encoder.layer.{i}.attention.output.dense.{rest}", "encoder.blocks.{i}.attn.proj.{rest}"),
    ("encoder.layer.{i}.layer_scale{k}.lambda1", "encoder.blocks.{i}.ls{k}.gamma"),
    ("encoder.layer.{i}.{rest}", "encoder.blocks.{i}.{rest}"),
    ("layernorm.{rest}", "encoder.norm.{rest}"),
];

/// DINOv3 (transformers/models/dinov3_vit). Keys have no bias.
pub const DINOV3: &[Row] = &[
    ("embeddings.cls_token", "encoder.cls_token"),
    ("embeddings.register_tokens", "encoder.reg_token"),
    ("embeddings.patch_embeddings.{rest}", "encoder.patch_embed.proj.{rest}"),
    (
        "layer.{i}.attention.q_proj.weight + layer.{i}.attention.k_proj.weight + layer.{i}.attention.v_proj.weight",
        "encoder.blocks.{i}.attn.qkv.weight",
    ),
    ("layer.{i}.attention.q_proj.bias + 0 + layer.{i}.attention.v_proj.bias", "encoder.blocks.{i}.attn.qkv.bias"),
    ("layer.{i}.attention.o_proj.{rest}", "encoder.blocks.{i}.attn.proj.{rest}"),
    ("layer.{i}.layer_scale{k}.lambda1", "encoder.blocks.{i}.gamma_{k}"),
    ("layer.{i}.mlp.up_proj.{rest}", "encoder.blocks.{i}.mlp.fc1.{rest}"),
    ("layer.{i}.mlp.down_proj.{rest}", "encoder.blocks.{i}.mlp.fc2.{rest}"),
    ("layer.{i}.{rest}", "encoder.blocks.{i}.{rest}"),
    ("norm.{rest}", "encoder.norm.{rest}"),
];
