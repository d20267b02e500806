//! Encoders: images in, feature maps out, finest first.

mod hrnet;
mod mobilenet;
mod resnet;

use super::ModelError;
use super::init::Initial;
use super::layers::Context;
use super::path::Path;
use hrnet::HrNet;
use mobilenet::MobileNetV2;
use resnet::{BlockKind, Plan, ResNet};
use tch::Tensor;

/// The encoders of the reference, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    ResNet(Plan),
    MobileNetV2Dilated,
    HrNetV2,
}

/// Every name MODEL.arch_encoder may have.
pub const NAMES: [&str; 11] = [
    "mobilenetv2dilated",
    "resnet18",
    "resnet18dilated",
    "resnet34",
    "resnet34dilated",
    "resnet50",
    "resnet50dilated",
    "resnet101",
    "resnet101dilated",
    "resnext101",
    "hrnetv2",
];

impl Architecture {
    /// Takes any case, as the reference does.
    pub fn parse(name: &str) -> Result<Self, ModelError> {
        let resnet = |block, depths, dilated| Ok(Architecture::ResNet(Plan { block, depths, dilated }));
        match name.to_lowercase().as_str() {
            "resnet18" => resnet(BlockKind::Basic, [2, 2, 2, 2], false),
            "resnet18dilated" => resnet(BlockKind::Basic, [2, 2, 2, 2], true),
            "resnet34" => resnet(BlockKind::Basic, [3, 4, 6, 3], false),
            "resnet34dilated" => resnet(BlockKind::Basic, [3, 4, 6, 3], true),
            "resnet50" => resnet(BlockKind::Bottleneck, [3, 4, 6, 3], false),
            "resnet50dilated" => resnet(BlockKind::Bottleneck, [3, 4, 6, 3], true),
            "resnet101" => resnet(BlockKind::Bottleneck, [3, 4, 23, 3], false),
            "resnet101dilated" => resnet(BlockKind::Bottleneck, [3, 4, 23, 3], true),
            "resnext101" => resnet(BlockKind::Grouped, [3, 4, 23, 3], false),
            "mobilenetv2dilated" => Ok(Architecture::MobileNetV2Dilated),
            "hrnetv2" => Ok(Architecture::HrNetV2),
            _ => Err(ModelError::unknown("MODEL.arch_encoder", name, &NAMES)),
        }
    }

    /// Channels of the feature maps, finest first.
    pub fn widths(&self) -> Vec<i64> {
        match self {
            Architecture::ResNet(plan) => plan.widths(),
            Architecture::MobileNetV2Dilated => mobilenet::WIDTHS.to_vec(),
            Architecture::HrNetV2 => vec![hrnet::WIDTH],
        }
    }

    /// Input pixels per pixel of each feature map, one direction.
    pub fn strides(&self) -> Vec<u32> {
        match self {
            Architecture::ResNet(plan) => plan.strides(),
            Architecture::MobileNetV2Dilated => mobilenet::STRIDES.to_vec(),
            Architecture::HrNetV2 => vec![hrnet::STRIDE],
        }
    }

    /// The rule for its first values.
    pub fn initial(&self) -> Initial {
        match self {
            Architecture::ResNet(Plan { block: BlockKind::Grouped, .. }) => Initial::FanOutOfGroup,
            Architecture::ResNet(_) | Architecture::MobileNetV2Dilated => Initial::FanOut,
            Architecture::HrNetV2 => Initial::Uniform,
        }
    }
}

/// An encoder's layers.
pub(super) enum Encoder {
    ResNet(ResNet),
    MobileNetV2(MobileNetV2),
    HrNet(HrNet),
}

impl Encoder {
    pub fn new(path: &Path, architecture: &Architecture) -> Self {
        match architecture {
            Architecture::ResNet(plan) => Encoder::ResNet(ResNet::new(path, plan)),
            Architecture::MobileNetV2Dilated => Encoder::MobileNetV2(MobileNetV2::new(path)),
            Architecture::HrNetV2 => Encoder::HrNet(HrNet::new(path)),
        }
    }

    /// Feature maps (n, width, h, w) of `images` (n, 3, h, w), finest first.
    pub fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        match self {
            Encoder::ResNet(network) => network.forward(images, context),
            Encoder::MobileNetV2(network) => network.forward(images, context),
            Encoder::HrNet(network) => network.forward(images, context),
        }
    }
}
