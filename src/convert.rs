//! `segdist convert`: weights from one form to another.
//!
//! A network is two parts, encoder and decoder. The reference keeps them in two .pth files without a prefix; a
//! safetensors file holds both, under `encoder.` and `decoder.`. Other packages have names of their own.

mod hugging_face;
mod torchscript;

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tch::{Device, Tensor};

pub use torchscript::export;

use crate::bad_input;
use crate::durable::Unfinished;
use crate::fault::{self, BadInput};
use crate::model::weights::{self, Package, Part, load_into, read, write_pth, write_safetensors};
use crate::model::{ModelConfig, Network};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// PyTorch's, one file for each part.
    Pth,
    /// One file.
    Safetensors,
    /// A folder for `from_pretrained` of transformers.
    HuggingFace,
    /// A state dict under another package's names, .pth.
    StateDict(Package),
}

impl FromStr for Format {
    type Err = BadInput;

    fn from_str(name: &str) -> Result<Self, BadInput> {
        match name {
            "pth" => Ok(Format::Pth),
            "safetensors" => Ok(Format::Safetensors),
            "hf" => Ok(Format::HuggingFace),
            "torchvision" => Ok(Format::StateDict(Package::Torchvision)),
            "smp" => Ok(Format::StateDict(Package::Smp)),
            _ => Err(BadInput(format!(
                "--to {name}: unknown form of weights; use pth, safetensors, hf, torchvision, smp or torchscript"
            ))),
        }
    }
}

/// Named tensors; those of a known part carry its prefix.
type Weights = Vec<(String, Tensor)>;

/// A form of file.
#[derive(Clone, Copy)]
enum Container {
    Pth,
    Safetensors,
}

/// The network that inputs belong to.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// MODEL.
    pub model: &'a ModelConfig,
    /// DATASET.num_class.
    pub num_class: usize,
}

/// Converts `inputs` (.pth, .safetensors, or folders of checkpoints) and prints what was written.
///
/// With `network`, inputs may be under the names of any known package; they are translated to ours.
///
/// The form is `to`, or else what `output`'s extension says; an output without one is a folder for .pth files. Where
/// encoder and decoder are both there, `DIR/epoch_20.pth` stands for the pair `DIR/encoder_epoch_20.pth` and
/// `DIR/decoder_epoch_20.pth`, as VAL.checkpoint does.
///
/// # Errors
/// [`BadInput`] for inputs that are not weights or name a tensor twice; others when the output cannot be written.
pub fn run(inputs: &[PathBuf], output: &Path, to: Option<Format>, network: Option<Target>) -> anyhow::Result<()> {
    let weights = match network {
        Some(network) => own_names(&load(inputs, network)?),
        None => gather(inputs)?,
    };
    let extension = output.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let to = match to {
        Some(to) => to,
        None => by_ending(output, extension)?,
    };
    match to {
        Format::Safetensors => save_tensors(output, Container::Safetensors, &weights),
        Format::HuggingFace => hugging_face::write_folder(inputs, &weights, output),
        Format::StateDict(package) => save_state_dict(output, weights, package),
        Format::Pth => {
            let folder = output.is_dir() || !matches!(extension, "pth" | "pt" | "tar");
            let target = if folder { output.join(format!("{}.pth", stem(&inputs[0]))) } else { output.to_path_buf() };
            save_pth(&target, weights)
        }
    }
}

/// What an output's name says.
fn by_ending(output: &Path, extension: &str) -> anyhow::Result<Format> {
    match extension {
        "safetensors" => Ok(Format::Safetensors),
        "" | "pth" | "pt" | "tar" => Ok(Format::Pth),
        _ if output.is_dir() => Ok(Format::Pth),
        _ => bad_input!(
            "{}: .{extension} is no ending of weights; use .pth, .safetensors, .torchscript or a folder, or say --to",
            output.display()
        ),
    }
}

/// A network with the weights of all inputs.
fn load(inputs: &[PathBuf], target: Target) -> anyhow::Result<Network> {
    let network = Network::build(target.model, target.num_class, Device::Cpu, 0).map_err(fault::classified)?;
    let weights = gather(inputs)?;
    for part in [Part::Encoder, Part::Decoder] {
        let named = |problem| {
            let names: Vec<String> = inputs.iter().map(|input| input.display().to_string()).collect();
            BadInput(format!("{}: {problem}", names.join(", ")))
        };
        let report = load_into(&network.store, part, &weights, false).map_err(named)?;
        report.lines(part, "the input").iter().for_each(|line| log::info!("{line}"));
    }
    Ok(network)
}

fn own_names(network: &Network) -> Weights {
    network.store.variables.iter().map(|variable| (variable.name.clone(), variable.tensor.detach())).collect()
}

/// The tensors of all inputs.
fn gather(inputs: &[PathBuf]) -> anyhow::Result<Weights> {
    let mut weights = Weights::new();
    let mut seen = BTreeSet::new();
    for (position, path) in inputs.iter().enumerate() {
        let mut tensors = read(path).map_err(fault::classified)?;
        if tensors.iter().all(|(name, _)| name.starts_with("module.")) {
            tensors.iter_mut().for_each(|(name, _)| *name = name["module.".len()..].to_string());
        }
        let part = if tensors.iter().any(|(name, _)| part_of(name).is_some()) {
            None
        } else {
            part_of_file(path, position, inputs.len())
        };
        for (name, tensor) in tensors {
            let name = format!("{}{name}", part.map_or("", Part::prefix));
            if !seen.insert(name.clone()) {
                bad_input!(
                    "{}: gives {name}, which another input gives already; name one encoder and one decoder",
                    path.display()
                );
            }
            weights.push((name, tensor));
        }
    }
    Ok(weights)
}

fn part_of(name: &str) -> Option<Part> {
    [Part::Encoder, Part::Decoder].into_iter().find(|part| name.starts_with(part.prefix()))
}

/// The part that a file without prefixes holds: by its name, or else by its place among two.
fn part_of_file(path: &Path, position: usize, inputs: usize) -> Option<Part> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let named = [Part::Encoder, Part::Decoder].into_iter().find(|part| name.starts_with(part.name()));
    let placed = [Part::Encoder, Part::Decoder].get(position).copied().filter(|_| inputs == 2);
    named.or(placed)
}

/// What the output is called after an input: `epoch_20` for encoder_epoch_20.pth, `step-00005000` for a checkpoint.
fn stem(input: &Path) -> String {
    let stem = if input.is_dir() { input.file_name() } else { input.file_stem() };
    let stem = stem.unwrap_or_default().to_string_lossy();
    stem.trim_start_matches("encoder_").trim_start_matches("decoder_").to_string()
}

/// One .pth file, or two where both parts are there.
fn save_pth(target: &Path, weights: Weights) -> anyhow::Result<()> {
    let (mut encoder, mut decoder, mut rest) = (Weights::new(), Weights::new(), Weights::new());
    for (name, tensor) in weights {
        match part_of(&name) {
            Some(Part::Encoder) => encoder.push((name[Part::Encoder.prefix().len()..].to_string(), tensor)),
            Some(Part::Decoder) => decoder.push((name[Part::Decoder.prefix().len()..].to_string(), tensor)),
            None => rest.push((name, tensor)),
        }
    }
    let file = target.file_name().unwrap_or_default().to_string_lossy();
    let pair = !encoder.is_empty() && !decoder.is_empty();
    for (prefix, tensors) in [("encoder_", encoder), ("decoder_", decoder), ("", rest)] {
        let path = if pair { target.with_file_name(format!("{prefix}{file}")) } else { target.to_path_buf() };
        if !tensors.is_empty() {
            save_tensors(&path, Container::Pth, &tensors)?;
        }
    }
    Ok(())
}

/// One file under the names of `package`.
fn save_state_dict(path: &Path, weights: Weights, package: Package) -> anyhow::Result<()> {
    let has_place = |(name, _): &(String, Tensor)| package.has_decoders() || !name.starts_with(Part::Decoder.prefix());
    let (kept, left): (Weights, Weights) = weights.into_iter().partition(has_place);
    let exported = weights::export(&kept, package).map_err(fault::classified)?;
    save_tensors(path, Container::Pth, &exported.tensors)?;
    if !left.is_empty() {
        println!(
            "{}: without the {} tensors of the decoder, which {} lacks",
            path.display(),
            left.len(),
            exported.source
        );
    }
    Ok(())
}

/// Writes a file that appears whole or not at all.
fn save_file(path: &Path, write: impl FnOnce(&mut Unfinished) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if path.file_name().is_none() {
        bad_input!("{}: not a name for a file", path.display());
    }
    let attempt = || -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut unfinished = Unfinished::create(path)?;
        write(&mut unfinished)?;
        Ok(unfinished.publish()?)
    };
    attempt().map_err(|cause| fault::unwritable(path, cause))
}

/// Writes named tensors and says so.
fn save_tensors(path: &Path, container: Container, tensors: &[(String, Tensor)]) -> anyhow::Result<()> {
    save_file(path, |unfinished| {
        let mut file = BufWriter::new(unfinished.file());
        match container {
            Container::Pth => write_pth(tensors, &mut file)?,
            Container::Safetensors => write_safetensors(tensors, &mut file)?,
        }
        Ok(file.flush()?)
    })?;
    println!("{}: {} tensors, {:.1} MB", path.display(), tensors.len(), std::fs::metadata(path)?.len() as f64 / 1e6);
    Ok(())
}
