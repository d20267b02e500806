//! MiT, the encoder of SegFormer (Xie et al. 2021, arXiv:2105.15203), under NVIDIA's names (NVlabs/SegFormer, mix_transformer.py and
//! segformer_head.py); ours are those of transformers. Keys and values are one tensor there.

use crate::model::weights::source::{Row, Source};

/// The encoder alone, as trained on ImageNet.
pub const NVIDIA: Source = Source { name: "NVIDIA MiT", rows: &[("", ENCODER)], lacks: &[] };

/// A whole SegFormer.
pub const NVIDIA_BACKBONE: Source =
    Source { name: "NVIDIA SegFormer", rows: &[("backbone.", ENCODER), ("decode_head.", HEAD)], lacks: &[] };

/// The encoder's names.
pub const ENCODER: &[Row] = &[
    ("patch_embed{i+1}.proj.{rest}", "encoder.patch_embeddings.{i}.proj.{rest}"),
    ("patch_embed{i+1}.norm.{rest}", "encoder.patch_embeddings.{i}.layer_norm.{rest}"),
    ("block{i+1}.{j}.norm{k}.{rest}", "encoder.block.{i}.{j}.layer_norm_{k}.{rest}"),
    ("block{i+1}.{j}.attn.q.{rest}", "encoder.block.{i}.{j}.attention.self.query.{rest}"),
    (
        "block{i+1}.{j}.attn.kv.{rest}",
        "encoder.block.{i}.{j}.attention.self.key.{rest} + encoder.block.{i}.{j}.attention.self.value.{rest}",
    ),
    ("block{i+1}.{j}.attn.proj.{rest}", "encoder.block.{i}.{j}.attention.output.dense.{rest}"),
    ("block{i+1}.{j}.attn.sr.{rest}", "encoder.block.{i}.{j}.attention.self.sr.{rest}"),
    ("block{i+1}.{j}.attn.norm.{rest}", "encoder.block.{i}.{j}.attention.self.layer_norm.{rest}"),
    ("block{i+1}.{j}.mlp.fc1.{rest}", "encoder.block.{i}.{j}.mlp.dense1.{rest}"),
    ("block{i+1}.{j}.mlp.dwconv.dwconv.{rest}", "encoder.block.{i}.{j}.mlp.dwconv.dwconv.{rest}"),
    ("block{i+1}.{j}.mlp.fc2.{rest}", "encoder.block.{i}.{j}.mlp.dense2.{rest}"),
    ("norm{i+1}.{rest}", "encoder.layer_norm.{i}.{rest}"),
];

const HEAD: &[Row] = &[
    ("linear_c{i+1}.{rest}", "decoder.linear_c.{i}.{rest}"),
    ("linear_fuse.conv.{rest}", "decoder.linear_fuse.{rest}"),
    ("linear_fuse.bn.{rest}", "decoder.batch_norm.{rest}"),
    ("linear_pred.{rest}", "decoder.classifier.{rest}"),
];
