//! torchvision's networks (torchvision/models: resnet.py, mobilenetv2.py, convnext.py).

use std::collections::BTreeSet;

use super::convnext::NORMS;
use crate::model::weights::source::{Row, Source};

/// ResNet and ResNeXt with one 7 × 7 convolution as stem, as of timm and, as a backbone, of segmentation networks.
pub const RESNET: Source = Source { name: "torchvision ResNet", rows: &[("", STEM), ("", STAGES)], lacks: &[] };

/// Its first layers.
pub const STEM: &[Row] = &[("conv1.{rest}", "encoder.conv1.{rest}"), ("bn1.{rest}", "encoder.bn1.{rest}")];
/// Its stages.
pub const STAGES: &[Row] = &[("layer{i}.{rest}", "encoder.layer{i}.{rest}")];

/// The same for a network with the reference's stem: three 3 × 3 convolutions with 128 channels instead of 64, so that the
/// first block, which reads it, has other input channels.
pub const OTHER_STEM: Source = Source {
    name: "torchvision ResNet (stem of one 7x7 convolution; MODEL.stem plain takes it)",
    rows: &[("", DEEPER)],
    lacks: &[
        "encoder.conv1.",
        "encoder.bn1.",
        "encoder.conv2.",
        "encoder.bn2.",
        "encoder.conv3.",
        "encoder.bn3.",
        "encoder.layer1.0.conv1.",
        "encoder.layer1.0.bn1.",
        "encoder.layer1.0.downsample.",
    ],
};

const DEEPER: &[Row] = &[
    ("layer1.0.conv1.{rest}", "unused.{rest}"),
    ("layer1.0.bn1.{rest}", "unused.{rest}"),
    ("layer1.0.downsample.{rest}", "unused.{rest}"),
    ("layer{i}.{rest}", "encoder.layer{i}.{rest}"),
];

/// Whether the file has one 7 × 7 convolution where the network has three of 3 × 3.
pub fn has_other_stem(names: &[(&str, Vec<i64>)], expected: &BTreeSet<&str>) -> bool {
    let seven = |(name, shape): &(&str, Vec<i64>)| name.ends_with("conv1.weight") && shape.ends_with(&[7, 7]);
    expected.contains("conv3.weight") && names.iter().any(seven)
}

/// MobileNetV2, which nests convolution, norm and activation of a block; the reference counts them through. Its first block
/// does not expand. Older files count as the reference does.
pub const MOBILENET: Source = Source { name: "torchvision MobileNetV2", rows: &[("", NESTED)], lacks: &[] };

/// Its names. Read from right to left, the rows of fixed numbers come before those that fit any.
pub const NESTED: &[Row] = &[
    ("features.1.conv.1.{rest}", "encoder.features.1.conv.3.{rest}"),
    ("features.1.conv.2.{rest}", "encoder.features.1.conv.4.{rest}"),
    ("features.1.conv.0.{k}.{rest}", "encoder.features.1.conv.{k}.{rest}"),
    ("features.{i}.conv.2.{rest}", "encoder.features.{i}.conv.6.{rest}"),
    ("features.{i}.conv.3.{rest}", "encoder.features.{i}.conv.7.{rest}"),
    ("features.{i}.conv.1.{k}.{rest}", "encoder.features.{i}.conv.{k+3}.{rest}"),
    ("features.{i}.conv.0.{k}.{rest}", "encoder.features.{i}.conv.{k}.{rest}"),
    ("features.{rest}", "encoder.features.{rest}"),
];

/// ConvNeXt: stages at odd places, what halves the map before them at even ones.
pub const CONVNEXT: Source = Source { name: "torchvision ConvNeXt", rows: &[("", FEATURES)], lacks: NORMS };

const FEATURES: &[Row] = &[
    ("features.0.0.{rest}", "encoder.embeddings.patch_embeddings.{rest}"),
    ("features.0.1.{rest}", "encoder.embeddings.layernorm.{rest}"),
    ("features.{i*2+1}.{j}.layer_scale", "encoder.stages.{i}.layers.{j}.layer_scale_parameter"),
    ("features.{i*2+1}.{j}.block.0.{rest}", "encoder.stages.{i}.layers.{j}.dwconv.{rest}"),
    ("features.{i*2+1}.{j}.block.2.{rest}", "encoder.stages.{i}.layers.{j}.layernorm.{rest}"),
    ("features.{i*2+1}.{j}.block.3.{rest}", "encoder.stages.{i}.layers.{j}.pwconv1.{rest}"),
    ("features.{i*2+1}.{j}.block.5.{rest}", "encoder.stages.{i}.layers.{j}.pwconv2.{rest}"),
    ("features.{i*2}.{k}.{rest}", "encoder.stages.{i}.downsampling_layer.{k}.{rest}"),
];
