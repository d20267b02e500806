//! Which weights eval and predict use: the first that applies is taken, and said.
//!
//! `--checkpoint`; the newest checkpoint in DIR; the reference's pair of files in DIR; MODEL.weights_encoder and
//! _decoder. Of a checkpoint with an average (TRAIN.ema) that is taken; its model.safetensors is a file like any other.
//! Rank 0 alone looks and reads, and sends what it read to the others, so all ranks have the same.

use crate::bad_input;
use crate::checkpoint::{self, State};
use crate::comm::{Comm, agree};
use crate::fault::{self, BadInput};
use crate::model::weights::{self, Part};
use crate::model::{ModelConfig, Network};
use crate::run_dir::RunDir;
use crate::sync::replicas;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where to look.
pub struct Choice<'a> {
    /// DIR.
    pub dir: &'a Path,
    /// VAL.checkpoint or TEST.checkpoint: the end of the names of the reference's files in DIR.
    pub suffix: &'a str,
    /// `--checkpoint`: latest, best, weights, or a path.
    pub requested: Option<&'a str>,
}

/// Where the weights came from, and what was kept with them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// In words.
    pub text: String,
    /// The checkpoint, if it is one.
    pub checkpoint: Option<PathBuf>,
    /// Class names; empty where unknown.
    pub names: Vec<String>,
    /// Class colours; empty where unknown.
    pub palette: Vec<[u8; 3]>,
}

impl Origin {
    /// Whether these are the weights of a checkpoint in this run's folder.
    pub fn is_of(&self, run: &RunDir) -> bool {
        self.checkpoint.as_ref().is_some_and(|path| path.parent() == Some(&run.checkpoints()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What was found.
enum Weights {
    Checkpoint(PathBuf),
    /// One file, or folder of Hugging Face's, with both parts.
    File(PathBuf),
    Pair {
        encoder: PathBuf,
        decoder: PathBuf,
    },
}

/// Finds and loads weights into `network`, on every rank. A collective.
pub fn load(choice: &Choice, model: &ModelConfig, network: &Network, comm: &dyn Comm) -> anyhow::Result<Origin> {
    let text = agree::from_root(comm, || Ok(serde_json::to_vec(&fill(&find(choice, model)?, model, network)?)?))?;
    let tensors = network.store.variables.iter().map(|variable| &variable.tensor);
    replicas::broadcast(comm, tensors)?;
    Ok(serde_json::from_slice(&text)?)
}

fn find(choice: &Choice, model: &ModelConfig) -> anyhow::Result<Weights> {
    match choice.requested {
        Some("latest") => match newest(choice.dir)? {
            Some(path) => Ok(Weights::Checkpoint(path)),
            None => bad_input!("--checkpoint latest: {} holds no checkpoint", choice.dir.display()),
        },
        Some("best") => match checkpoint::best(choice.dir).map_err(fault::classified)? {
            Some(found) => Ok(Weights::Checkpoint(found.path)),
            None => bad_input!("--checkpoint best: {} holds no evaluated checkpoint", choice.dir.display()),
        },
        Some("weights") => match named(model) {
            Some(pair) => Ok(pair),
            None => bad_input!("--checkpoint weights: set MODEL.weights_encoder and MODEL.weights_decoder"),
        },
        Some(path) => at(Path::new(path)),
        None => first_that_applies(choice, model),
    }
}

fn first_that_applies(choice: &Choice, model: &ModelConfig) -> anyhow::Result<Weights> {
    if let Some(path) = newest(choice.dir)? {
        return Ok(Weights::Checkpoint(path));
    }
    let part = |part: &str| choice.dir.join(format!("{part}_{}", choice.suffix));
    let (encoder, decoder) = (part("encoder"), part("decoder"));
    if encoder.is_file() && decoder.is_file() {
        return Ok(Weights::Pair { encoder, decoder });
    }
    match named(model) {
        Some(pair) => Ok(pair),
        None => bad_input!(
            "no weights: {} holds neither a checkpoint nor {} and {}; set DIR, --checkpoint, or MODEL.weights_encoder and \
             MODEL.weights_decoder",
            choice.dir.display(),
            encoder.file_name().unwrap_or_default().to_string_lossy(),
            decoder.file_name().unwrap_or_default().to_string_lossy(),
        ),
    }
}

fn newest(dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let found = checkpoint::newest(dir).map_err(fault::classified)?;
    Ok(found.map(|found| {
        found.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        found.path
    }))
}

fn named(model: &ModelConfig) -> Option<Weights> {
    let (encoder, decoder) = (&model.weights_encoder, &model.weights_decoder);
    let both = !encoder.is_empty() && !decoder.is_empty();
    both.then(|| Weights::Pair { encoder: encoder.into(), decoder: decoder.into() })
}

/// Where the weights are that a path means: a checkpoint's folder, a run's (its newest checkpoint), a file, or Hugging
/// Face's folder.
pub fn locate(path: &Path) -> anyhow::Result<PathBuf> {
    if path.is_file() || weights::is_folder(path) {
        return Ok(path.into());
    }
    match newest(path)? {
        Some(checkpoint) => Ok(checkpoint),
        None => bad_input!("{}: neither a checkpoint, nor a run with one, nor a file of weights", path.display()),
    }
}

fn at(path: &Path) -> anyhow::Result<Weights> {
    if !path.exists() {
        bad_input!(
            "--checkpoint {}: neither latest, best nor weights, nor a checkpoint, nor a file of weights",
            path.display()
        );
    }
    let path = locate(path)?;
    Ok(if path.join("state.json").is_file() { Weights::Checkpoint(path) } else { Weights::File(path) })
}

fn fill(weights: &Weights, model: &ModelConfig, network: &Network) -> anyhow::Result<Origin> {
    let skip = model.skip_mismatched;
    match weights {
        Weights::Checkpoint(path) => {
            let loaded = checkpoint::load(path).map_err(fault::classified)?;
            let (mut tensors, which) = match loaded.average.is_empty() {
                true => (loaded.model, ""),
                false => (loaded.average, ", the average"),
            };
            let state = loaded.state;
            if loaded.statistics.is_empty() {
                warn_of_lag(path, &state, network);
            }
            weights::put_in_place(&mut tensors, loaded.statistics)?;
            both_parts(network, &tensors, path, skip)?;
            let text = format!("checkpoint {}, step {}{which}", path.display(), state.step);
            let checkpoint = Some(path.clone());
            Ok(Origin { text, checkpoint, names: state.class_names, palette: state.palette })
        }
        Weights::File(path) => {
            both_parts(network, &weights::read(path).map_err(fault::classified)?, path, skip)?;
            Ok(Origin { text: path.display().to_string(), ..Origin::default() })
        }
        Weights::Pair { encoder, decoder } => {
            for (part, path) in [(Part::Encoder, encoder), (Part::Decoder, decoder)] {
                for line in weights::load_file(&network.store, part, path, skip).map_err(fault::classified)? {
                    log::info!("{line}");
                }
            }
            Ok(Origin { text: format!("{} and {}", encoder.display(), decoder.display()), ..Origin::default() })
        }
    }
}

/// Says so where a short run's running statistics are evaluated, which remember weights long gone.
fn warn_of_lag(path: &Path, state: &State, network: &Network) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    #[allow(non_snake_case)]
    struct Config {
        MODEL: ModelConfig,
        TRAIN: Train,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Train {
        fix_bn: bool,
        num_epoch: u64,
        epoch_iters: u64,
    }
    let Config { MODEL: model, TRAIN: train } = serde_yaml::from_str(&state.config).unwrap_or_default();
    let total = train.num_epoch.saturating_mul(train.epoch_iters);
    let memory = network.statistics_memory().filter(|memory| (total as f64) < *memory);
    if let Some(memory) = memory.filter(|_| total > 0 && !train.fix_bn && model.bn_recalibrate != Some(0)) {
        log::warn!(
            "{}: its batch norm statistics remember {memory:.0} steps; the checkpoints of steps that training evaluated \
             (VAL.every_epochs), and the last one, have statistics that fit",
            path.display()
        );
    }
}

/// Loads tensors whose names begin with `encoder.` and `decoder.`.
fn both_parts(network: &Network, tensors: &[(String, tch::Tensor)], path: &Path, skip: bool) -> anyhow::Result<()> {
    for part in [Part::Encoder, Part::Decoder] {
        let named = |problem| BadInput(format!("{}: {problem}", path.display()));
        let report = weights::load_into(&network.store, part, tensors, skip).map_err(named)?;
        report.lines(part, &path.display().to_string()).iter().for_each(|line| log::info!("{line}"));
    }
    Ok(())
}
