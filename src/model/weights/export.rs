//! Our tensors under the names of another package, so that it loads them.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::assemble::pieces;
use super::source::{Direction, Source, Translator};
use super::sources::{smp, torchvision, transformers};
use super::{WeightsError, is_optional};

/// A package whose networks take our weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// Hugging Face's transformers.
    Transformers,
    /// torchvision; its names of encoders are timm's, too, for ResNets.
    Torchvision,
    /// segmentation_models_pytorch.
    Smp,
}

impl Package {
    /// Whether it has names for decoders.
    pub fn has_decoders(self) -> bool {
        self != Package::Torchvision
    }

    /// What it calls networks, the most particular first.
    fn sources(self) -> &'static [&'static Source] {
        match self {
            Package::Transformers => &[&transformers::SEGFORMER, &transformers::UPERNET],
            Package::Torchvision => &[&torchvision::RESNET, &torchvision::MOBILENET],
            Package::Smp => &[&smp::SMP_SEGFORMER, &smp::SMP_MIT, &smp::SMP],
        }
    }

    fn takes(self) -> &'static str {
        match self {
            Package::Transformers => "transformers takes mit_* with segformer and convnext_* with uperhead",
            Package::Torchvision => "torchvision takes encoders: ResNets with MODEL.stem plain, MobileNetV2",
            Package::Smp => {
                "segmentation_models_pytorch takes ResNets with MODEL.stem plain, MobileNetV2 and mit_* with unet or \
                 deeplabv3plus, and mit_* with segformer_smp"
            }
        }
    }
}

/// Tensors under another package's names.
pub struct Exported {
    /// What the names are of.
    pub source: &'static str,
    /// The tensors, with the counters that PyTorch's batch norms have.
    pub tensors: Vec<(String, Tensor)>,
}

/// `tensors`, whose names begin with `encoder.` and `decoder.`, under the names of `package`. What only training needs
/// (debiased statistics) is left out.
///
/// # Errors
/// Where the package has no network with these tensors.
pub fn export(tensors: &[(String, Tensor)], package: Package) -> Result<Exported, WeightsError> {
    let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).filter(|name| !is_optional(name)).collect();
    let by_name: BTreeMap<&str, &Tensor> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let given: Vec<(String, Tensor)> =
        names.iter().map(|&name| (name.to_string(), by_name[name].shallow_clone())).collect();
    let mut strangers = names.clone();
    for source in package.sources() {
        let (groups, unknown) = Translator::new(source, Direction::Out, "encoder").translate(&names);
        if unknown.is_empty() && !names.is_empty() {
            let mut renamed = Vec::new();
            for group in &groups {
                let failed = |problem| WeightsError::Mismatch(format!("a tensor cannot be joined or split: {problem}"));
                let parts = pieces(group, &given).map_err(failed)?;
                renamed.extend(group.to.iter().zip(parts).filter_map(|(name, tensor)| Some((name.clone()?, tensor))));
            }
            return Ok(Exported { source: source.name, tensors: with_counters(renamed) });
        }
        if unknown.len() < strangers.len() {
            strangers = unknown.into_iter().map(|index| names[index]).collect();
        }
    }
    let (count, first, takes) = (strangers.len(), strangers.first().unwrap_or(&"nothing"), package.takes());
    Err(WeightsError::Mismatch(format!("{count} tensors, {first} the first, have no name there: {takes}")))
}

/// Every batch norm of PyTorch counts its batches, which matters only where no momentum is given.
fn with_counters(tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let mut all = Vec::new();
    for (name, tensor) in tensors {
        let norm = name.strip_suffix("running_var").map(|norm| format!("{norm}num_batches_tracked"));
        all.push((name, tensor));
        all.extend(norm.map(|name| (name, Tensor::zeros([0; 0], (Kind::Int64, Device::Cpu)))));
    }
    all
}
