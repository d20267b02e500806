//! Weights in files: PyTorch's .pth in all its forms, safetensors; found by content, never by name.

mod initialize;
mod keys;
mod load;
mod machine;
mod pickle;
mod pth;
mod pth_writer;
mod safetensors;
mod storage;
mod tar;
mod zip;

use crate::fault::{Failure, Kind};
use std::path::{Path, PathBuf};

use tch::Tensor;

pub use initialize::{initialize, named};
pub use load::{Part, Report, load_file, load_into};
pub use pth_writer::write_pth;
pub use safetensors::{dtype, read as read_safetensors, write_safetensors};

/// Files larger than this are refused before anything is allocated; the largest network here takes 0.6 GB.
const MAX_FILE: u64 = 16 << 30;

/// Why weights are not loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Its content is not weights, is damaged, or asks for something to be run.
    #[error("{}: not loaded: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Its tensors are not those of the network.
    #[error("{0}")]
    Mismatch(String),
    /// No initial values were named.
    #[error("{0}")]
    Nothing(String),
}

impl Failure for WeightsError {
    fn kind(&self) -> Kind {
        match self {
            WeightsError::Open { source, .. } => Kind::of(source),
            WeightsError::Content { .. } | WeightsError::Mismatch(_) | WeightsError::Nothing(_) => Kind::Input,
        }
    }
}

/// The named tensors of a file, on the CPU, in the file's order: .pth in any form, .safetensors, or the
/// `model.safetensors` of a checkpoint's folder. Tensors may be views that share a storage.
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let path = if path.is_dir() { path.join("model.safetensors") } else { path.to_path_buf() };
    let open = |source| WeightsError::Open { path: path.clone(), source };
    let about = std::fs::metadata(&path).map_err(open)?;
    if !about.is_file() || about.len() > MAX_FILE {
        let problem = if about.is_file() { "it is too large to be weights" } else { "it is not a file" };
        return Err(WeightsError::Content { path, problem: problem.into() });
    }
    let input = std::fs::read(&path).map_err(open)?;
    let tensors = if safetensors::is_safetensors(&input) {
        safetensors::read(&input)
    } else {
        pth::read(&input).map_err(|problem| problem.to_string())
    };
    let tensors =
        tensors.map_err(|problem| WeightsError::Content { path: path.clone(), problem: printable(&problem) })?;
    match tensors.iter().find(|(name, _)| name.contains(|c: char| c.is_control())) {
        Some((name, _)) => {
            let problem = printable(&format!("the name of a tensor holds control characters: {name}"));
            Err(WeightsError::Content { path, problem })
        }
        None => Ok(tensors),
    }
}

/// A problem that quotes from a file, as one line for a terminal: no control characters, and an end.
fn printable(problem: &str) -> String {
    problem.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(600).collect()
}

/// A tensor's elements in row-major order, as bytes.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>, tch::TchError> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}
