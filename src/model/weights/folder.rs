//! Folders of weights, as Hugging Face's `save_pretrained` writes them and as checkpoints are: one file, or an index that
//! says which of several files holds which tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use tch::Tensor;

use super::statistics::put_in_place;
use super::{MAX_FILE, WeightsError, content, read_file};

/// Beside a checkpoint's model: its average with TRAIN.ema, which is what that run evaluates.
pub const AVERAGE_FILE: &str = "average.safetensors";

/// Names of weights in a folder; the first that is there counts. safetensors come before pickles, as in transformers.
const FILES: [&str; 5] = [
    AVERAGE_FILE,
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Beside a checkpoint's model: batch norm statistics that were taken anew, which evaluation wants in the place of the
/// running ones.
pub const STATISTICS_FILE: &str = "statistics.safetensors";

/// Longer indices are refused; one of 1,000 tensors takes 0.1 MB.
const MAX_INDEX: u64 = 64 << 20;

#[derive(Deserialize)]
struct Index {
    /// The file of each tensor, by its name.
    weight_map: BTreeMap<String, String>,
}

/// Whether `folder` holds weights of itself.
pub fn is_folder(folder: &Path) -> bool {
    FILES.iter().any(|name| folder.join(name).is_file())
}

/// The named tensors of the weights in `folder`, with the statistics that fit them.
pub(super) fn read(folder: &Path) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let Some(path) = FILES.iter().map(|name| folder.join(name)).find(|path| path.exists()) else {
        return content(folder, format!("the folder holds none of {}", FILES.join(", ")));
    };
    let parts = path.extension().is_some_and(|extension| extension == "json");
    let mut tensors = if parts { read_parts(folder, &path)? } else { read_file(&path)? };
    let statistics = folder.join(STATISTICS_FILE);
    if statistics.is_file() {
        log::info!("{}: batch norm statistics of these weights, for the running ones", statistics.display());
        let taken = read_file(&statistics)?;
        put_in_place(&mut tensors, taken).or_else(|problem| content(&statistics, problem.to_string()))?;
    }
    Ok(tensors)
}

/// The tensors of all files that the index at `path` names, which must be those that it promises.
fn read_parts(folder: &Path, path: &Path) -> Result<Vec<(String, Tensor)>, WeightsError> {
    let open = |source| WeightsError::Open { path: path.into(), source };
    if std::fs::metadata(path).map_err(open)?.len() > MAX_INDEX {
        return content(path, "it is too large to be an index");
    }
    let text = std::fs::read(path).map_err(open)?;
    let index: Index = match serde_json::from_slice(&text) {
        Ok(index) => index,
        Err(problem) => return content(path, format!("it is not an index: {problem}")),
    };
    let files: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    let (mut tensors, mut seen, mut size) = (Vec::new(), BTreeMap::new(), 0);
    for file in files {
        // A name that is a path could lead out of the folder.
        let foreign = |c: char| c == '\\' || c.is_control();
        if Path::new(file).file_name().is_none_or(|name| name != file) || file.contains(foreign) {
            return content(path, format!("it names {file:?}, which is not a file beside it"));
        }
        let part = folder.join(file);
        size += std::fs::metadata(&part).map_err(|source| WeightsError::Open { path: part.clone(), source })?.len();
        if size > MAX_FILE {
            return content(path, "the files it names are too large to be weights");
        }
        for (name, tensor) in read_file(&part)? {
            if let Some(other) = seen.insert(name.clone(), file) {
                return content(path, format!("{other} and {file} both hold {name}"));
            }
            tensors.push((name, tensor));
        }
    }
    match index.weight_map.iter().find(|(name, file)| seen.get(*name) != Some(&file.as_str())) {
        Some((name, file)) => content(path, format!("it promises {name} in {file}, which does not hold it")),
        None => Ok(tensors),
    }
}
