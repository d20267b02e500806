//! The values a training run starts from.

use std::path::{Path, PathBuf};

use super::{Part, WeightsError, load_file};
use crate::model::layers::Store;
use crate::model::shape::pretrained_file;
use crate::model::{Init, ModelConfig};

/// Checks that initial values are named, and their files there, without reading them.
///
/// # Errors
/// When a file is absent, and when no encoder weights are named but `init` is not random.
pub fn named(config: &ModelConfig) -> Result<(), WeightsError> {
    for (path, key) in sources(config)?.into_iter().zip(["MODEL.weights_encoder", "MODEL.weights_decoder"]) {
        let Some(path) = path else { continue };
        std::fs::metadata(&path).map_err(|source| WeightsError::Named { key, path, source })?;
    }
    Ok(())
}

/// Loads the weights that `config` names into a network fresh from its initialisers; lines for the log.
///
/// The encoder's come from weights_encoder, else from the ImageNet file in pretrained_dir; the decoder's from
/// weights_decoder, else they stay random.
///
/// # Errors
/// As [`named`], and when a file cannot be used.
pub fn initialize(store: &Store, config: &ModelConfig) -> Result<Vec<String>, WeightsError> {
    let mut lines = Vec::new();
    for (part, path) in [Part::Encoder, Part::Decoder].into_iter().zip(sources(config)?) {
        match path {
            Some(path) => lines.extend(load_file(store, part, &path, config.skip_mismatched)?),
            None => lines.push(format!("{}: random initial values", part.name())),
        }
    }
    Ok(lines)
}

/// The files of the encoder's and the decoder's first values; None: random ones.
fn sources(config: &ModelConfig) -> Result<[Option<PathBuf>; 2], WeightsError> {
    let given = |path: &str| Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
    let encoder = match given(&config.weights_encoder) {
        None if config.init == Init::Pretrained => Some(imagenet_file(config)?),
        encoder => encoder,
    };
    Ok([encoder, given(&config.weights_decoder)])
}

fn imagenet_file(config: &ModelConfig) -> Result<PathBuf, WeightsError> {
    let ways = "set MODEL.weights_encoder to a file, or MODEL.init to random to start from random values";
    let (arch, file) = pretrained_file(config).map_err(|problem| WeightsError::Nothing(problem.to_string()))?;
    let Some(file) = file else {
        return Err(WeightsError::Nothing(format!("no file with ImageNet weights for {arch} is known: {ways}")));
    };
    if config.pretrained_dir.is_empty() {
        return Err(WeightsError::Nothing(format!(
            "no initial weights: set MODEL.pretrained_dir to a folder that holds {file} (ImageNet), {ways}"
        )));
    }
    let path = Path::new(&config.pretrained_dir).join(file);
    if !path.exists() {
        return Err(WeightsError::Nothing(format!(
            "{}: no such file: put the ImageNet weights there, {ways}",
            path.display()
        )));
    }
    Ok(path)
}
