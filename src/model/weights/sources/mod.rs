//! The files that people have: one table for each package or family of networks, the parts of which others use as well.

pub mod convnext;
pub mod mit;
pub mod mmsegmentation;
pub mod reference;
pub mod smp;
pub mod timm;
pub mod torchvision;
pub mod transformers;
pub mod vit;

use super::source::Source;

/// Every source. Where a file's names fit several, the first counts.
pub const SOURCES: &[&Source] = &[
    &transformers::SEGFORMER,
    &transformers::SEGFORMER_IN_MEMORY,
    &transformers::UPERNET,
    &transformers::CONVNEXT,
    &transformers::DINOV2,
    &transformers::DINOV3,
    &torchvision::RESNET,
    &torchvision::OTHER_STEM,
    &torchvision::MOBILENET,
    &torchvision::CONVNEXT,
    &reference::COMBINED,
    &smp::SMP,
    &smp::SMP_MIT,
    &smp::SMP_SEGFORMER,
    &timm::CONVNEXT,
    &timm::CONVNEXT_META,
    &timm::DINOV3_META,
    &mit::NVIDIA,
    &mit::NVIDIA_BACKBONE,
    &mmsegmentation::MIT,
    &mmsegmentation::CONVNEXT,
    &mmsegmentation::BACKBONE,
    &reference::PART,
];
