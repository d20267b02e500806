//! The values a training run starts from.

use std::path::Path;

use super::{Part, WeightsError, load_file};
use crate::model::layers::Store;
use crate::model::{Init, ModelConfig};

/// Name of the reference's ImageNet weights for an encoder (`model_urls` in mit_semseg/models), where it has any.
pub fn pretrained_file(arch_encoder: &str) -> Option<&'static str> {
    Some(match arch_encoder.trim_end_matches("dilated") {
        "resnet18" => "resnet18-imagenet.pth",
        "resnet50" => "resnet50-imagenet.pth",
        "resnet101" => "resnet101-imagenet.pth",
        "resnext101" => "resnext101-imagenet.pth",
        "mobilenetv2" => "mobilenet_v2.pth.tar",
        "hrnetv2" => "hrnetv2_w48-imagenet.pth",
        _ => return None,
    })
}

/// Loads the weights that `config` names into a network fresh from its initialisers; lines for the log.
///
/// The encoder's come from weights_encoder, else from the ImageNet file in pretrained_dir; the decoder's from
/// weights_decoder, else they stay random.
///
/// # Errors
/// When a file cannot be used, and when no encoder weights are named but `init` is not random.
pub fn initialize(store: &Store, config: &ModelConfig) -> Result<Vec<String>, WeightsError> {
    let mut lines = Vec::new();
    let imagenet;
    let encoder = if !config.weights_encoder.is_empty() {
        Some(Path::new(&config.weights_encoder))
    } else if config.init == Init::Random {
        None
    } else {
        imagenet = Path::new(&config.pretrained_dir).join(imagenet_file(config)?);
        Some(imagenet.as_path())
    };
    let decoder = Some(Path::new(&config.weights_decoder)).filter(|path| !path.as_os_str().is_empty());
    for (part, path) in [(Part::Encoder, encoder), (Part::Decoder, decoder)] {
        match path {
            Some(path) => lines.extend(load_file(store, part, path, config.skip_mismatched)?),
            None => lines.push(format!("{} random initial values", part.prefix().replace('.', ":"))),
        }
    }
    Ok(lines)
}

fn imagenet_file(config: &ModelConfig) -> Result<&'static str, WeightsError> {
    let arch = &config.arch_encoder;
    let ways = "set MODEL.weights_encoder to a file, or MODEL.init to random to train from random values";
    let Some(file) = pretrained_file(arch) else {
        return Err(WeightsError::Nothing(format!(
            "there are no ImageNet weights of the reference for {arch}: {ways}"
        )));
    };
    if config.pretrained_dir.is_empty() {
        return Err(WeightsError::Nothing(format!(
            "MODEL.weights_encoder is empty and no ImageNet weights are at hand: set MODEL.pretrained_dir to a folder that holds {file}, or MODEL.init to random if none are wanted"
        )));
    }
    if !Path::new(&config.pretrained_dir).join(file).exists() {
        return Err(WeightsError::Nothing(format!(
            "MODEL.pretrained_dir {} holds no {file}: put it there, {ways}",
            config.pretrained_dir
        )));
    }
    Ok(file)
}
