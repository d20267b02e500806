//! Weights in files: PyTorch's .pth in all its forms, safetensors; found by content, never by name.

mod assemble;
mod export;
mod folder;
mod initialize;
mod load;
mod lookalike;
mod machine;
mod pattern;
mod pickle;
mod pth;
mod pth_writer;
mod recognise;
mod report;
mod safetensors;
mod source;
mod sources;
mod statistics;
mod storage;
mod tar;
mod zip;

use crate::fault::{Failure, Kind};
use std::path::{Path, PathBuf};

use tch::Tensor;

pub use export::{Exported, Package, export};
pub use folder::{AVERAGE_FILE, STATISTICS_FILE, is_folder};
pub use initialize::{initialize, named};
pub use load::{Part, load_file, load_into};
pub use pth_writer::write_pth;
pub use report::Report;
pub use safetensors::{dtype, read as read_safetensors, write_safetensors};
pub use statistics::{EVALUATED, put_in_place};

/// Files larger than this are refused before anything is allocated; the largest network here takes 0.6 GB.
const MAX_FILE: u64 = 16 << 30;
/// What files of weights are, for messages about others.
const FORMS: &str = "give a .pth or .safetensors file, or a folder of a checkpoint or of Hugging Face";
/// Files with more tensors are refused; the largest network here has 3,000.
const MAX_TENSORS: usize = 50_000;

/// Why weights are not loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be opened or read.
    #[error("{}: cannot be read: {source}; {FORMS}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that a key names is not there.
    #[error("{key}: {}: cannot be read: {source}; {FORMS}", path.display())]
    Named {
        /// The key.
        key: &'static str,
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
            WeightsError::Open { source, .. } | WeightsError::Named { source, .. } => Kind::of(source),
            WeightsError::Content { .. } | WeightsError::Mismatch(_) | WeightsError::Nothing(_) => Kind::Input,
        }
    }
}

/// The named tensors of a file, on the CPU, in the file's order: .pth in any form, .safetensors, or those of a folder (a
/// checkpoint's or Hugging Face's). Tensors may be views that share a storage.
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>, WeightsError> {
    if path.is_dir() { folder::read(path) } else { read_file(path) }
}

fn read_file(path: &Path) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let open = |source| WeightsError::Open { path: path.into(), source };
    let about = std::fs::metadata(path).map_err(open)?;
    if !about.is_file() || about.len() > MAX_FILE {
        return content(path, if about.is_file() { "it is too large to be weights" } else { "it is not a file" });
    }
    let input = std::fs::read(path).map_err(open)?;
    let tensors = if safetensors::is_safetensors(&input) {
        safetensors::read(&input)
    } else {
        pth::read(&input).map_err(|problem| problem.to_string())
    };
    let tensors = tensors.or_else(|problem| content(path, problem))?;
    if tensors.len() > MAX_TENSORS {
        return content(path, format!("it holds {} tensors, far more than any network", tensors.len()));
    }
    match tensors.iter().find(|(name, _)| name.contains(|c: char| c.is_control())) {
        Some((name, _)) => content(path, format!("the name of a tensor holds control characters: {name}")),
        None => Ok(tensors),
    }
}

/// Whether a file begins as a text does, such as a configuration, a list, or a page that was downloaded instead of weights.
fn is_text(input: &[u8]) -> bool {
    let start = &input[..input.len().min(256)];
    // A character may be cut at the end.
    let is_utf8 = std::str::from_utf8(start).map_or_else(|error| error.error_len().is_none(), |_| true);
    let other = |&byte: &u8| byte < b' ' && !b"\t\r\n".contains(&byte);
    !start.is_empty() && is_utf8 && !start.iter().any(other)
}

/// The refusal of what a file holds, as one line for a terminal: quotes from the file lose control characters, and end.
fn content<T>(path: &Path, problem: impl Into<String>) -> Result<T, WeightsError> {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    Err(WeightsError::Content { path: path.into(), problem: problem.into().chars().map(printable).take(600).collect() })
}

/// Buffers that files of plain batch norm lack, or that plain files have and nothing here needs.
fn is_optional(name: &str) -> bool {
    let buffer = name.rsplit('.').next().unwrap_or_default();
    matches!(buffer, "num_batches_tracked" | "_tmp_running_mean" | "_tmp_running_var" | "_running_iter")
}

/// A tensor's elements in row-major order, as bytes.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>, tch::TchError> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}
