//! ConvNeXt under timm's, Meta's and mmpretrain's names; ours are those of transformers.

use crate::model::weights::source::Row;

/// The norms of the feature maps, which networks for classification lack.
pub const NORMS: &[&str] = &["encoder.hidden_states_norms."];

/// timm/models/convnext.py.
pub const TIMM: &[Row] = &[
    ("stem.0.{rest}", "encoder.embeddings.patch_embeddings.{rest}"),
    ("stem.1.{rest}", "encoder.embeddings.layernorm.{rest}"),
    ("stages.{i}.downsample.{k}.{rest}", "encoder.stages.{i}.downsampling_layer.{k}.{rest}"),
    ("stages.{i}.blocks.{j}.gamma", "encoder.stages.{i}.layers.{j}.layer_scale_parameter"),
    ("stages.{i}.blocks.{j}.conv_dw.{rest}", "encoder.stages.{i}.layers.{j}.dwconv.{rest}"),
    ("stages.{i}.blocks.{j}.norm.{rest}", "encoder.stages.{i}.layers.{j}.layernorm.{rest}"),
    ("stages.{i}.blocks.{j}.mlp.fc1.{rest}", "encoder.stages.{i}.layers.{j}.pwconv1.{rest}"),
    ("stages.{i}.blocks.{j}.mlp.fc2.{rest}", "encoder.stages.{i}.layers.{j}.pwconv2.{rest}"),
];

/// Meta's release (ConvNeXt/models/convnext.py).
pub const META: &[Row] = &[
    ("stages.{i}.{j}.dwconv.{rest}", "encoder.stages.{i}.layers.{j}.dwconv.{rest}"),
    ("stages.{i}.{j}.pwconv1.{rest}", "encoder.stages.{i}.layers.{j}.pwconv1.{rest}"),
    ("stages.{i}.{j}.pwconv2.{rest}", "encoder.stages.{i}.layers.{j}.pwconv2.{rest}"),
];

/// mmpretrain/models/backbones/convnext.py.
pub const MMPRETRAIN: &[Row] = &[
    ("stages.{i}.{j}.depthwise_conv.{rest}", "encoder.stages.{i}.layers.{j}.dwconv.{rest}"),
    ("stages.{i}.{j}.pointwise_conv1.{rest}", "encoder.stages.{i}.layers.{j}.pwconv1.{rest}"),
    ("stages.{i}.{j}.pointwise_conv2.{rest}", "encoder.stages.{i}.layers.{j}.pwconv2.{rest}"),
    ("norm{i}.{rest}", "encoder.hidden_states_norms.stage{i+1}.{rest}"),
];

/// What Meta's and mmpretrain's have in common.
pub const COMMON: &[Row] = &[
    ("downsample_layers.0.0.{rest}", "encoder.embeddings.patch_embeddings.{rest}"),
    ("downsample_layers.0.1.{rest}", "encoder.embeddings.layernorm.{rest}"),
    ("downsample_layers.{i}.{k}.{rest}", "encoder.stages.{i}.downsampling_layer.{k}.{rest}"),
    ("stages.{i}.{j}.gamma", "encoder.stages.{i}.layers.{j}.layer_scale_parameter"),
    ("stages.{i}.{j}.norm.{rest}", "encoder.stages.{i}.layers.{j}.layernorm.{rest}"),
];
