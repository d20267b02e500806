//! From named tensors into a network: every tensor accounted for, nothing changed unless all is well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tch::{Tensor, no_grad};

use super::{WeightsError, keys, read};
use crate::model::layers::{Store, Variable};

/// The half of a network that a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Image to feature maps.
    Encoder,
    /// Feature maps to scores.
    Decoder,
}

impl Part {
    /// encoder or decoder.
    pub fn name(self) -> &'static str {
        self.prefix().trim_end_matches('.')
    }

    /// What the part's tensors are called by, with the dot: `encoder.` or `decoder.`.
    pub fn prefix(self) -> &'static str {
        match self {
            Part::Encoder => "encoder.",
            Part::Decoder => "decoder.",
        }
    }
}

/// What became of every tensor.
#[derive(Debug, Default)]
pub struct Report {
    /// The network's tensors that the file gave.
    pub loaded: Vec<String>,
    /// The network's that the file lacks.
    pub missing: Vec<String>,
    /// The file's that the network has no use for.
    pub unused: Vec<String>,
    /// Those of both with different shapes, the shapes included.
    pub mismatched: Vec<String>,
    /// The network's that keep their initial values because a torchvision ResNet has another stem.
    pub own_stem: Vec<String>,
    /// Batch norms whose debiased statistics were derived from the running values.
    pub rebuilt_statistics: usize,
}

impl Report {
    /// Lines for the log, about `part` loaded from `source`.
    pub fn lines(&self, part: Part, source: &str) -> Vec<String> {
        let part = part.name();
        let mut lines = vec![format!("{part}: {} tensors from {source}", self.loaded.len())];
        let lists = [
            ("in the file, unused", &self.unused),
            ("of another shape, left at their initial values", &self.mismatched),
            (
                "without a counterpart in torchvision's stem (one 7x7 convolution, here three 3x3), left at their initial values",
                &self.own_stem,
            ),
        ];
        for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            lines.push(format!("{part}: {} {what}: {}", list.len(), list.join(", ")));
        }
        if self.rebuilt_statistics > 0 {
            lines.push(format!(
                "{part}: {} batch norms came without debiased statistics that agree with their running values: _tmp_running_* = running_* x _running_iter",
                self.rebuilt_statistics
            ));
        }
        lines
    }
}

/// Reads `path` into `part` of the network; lines for the log.
pub fn load_file(store: &Store, part: Part, path: &Path, skip_mismatched: bool) -> Result<Vec<String>, WeightsError> {
    let source = path.display().to_string();
    let report = load_into(store, part, &read(path)?, skip_mismatched).map_err(|problem| match problem {
        WeightsError::Mismatch(problem) => WeightsError::Mismatch(format!("{source}: {problem}")),
        other => other,
    })?;
    Ok(report.lines(part, &source))
}

/// Copies `tensors` into `part` of the network, after translating their names (see `keys`).
///
/// Missing tensors are an error, and mis-shaped ones unless `skip_mismatched`; the network is unchanged then. The
/// buffers of debiased statistics (`_tmp_running_mean`, `_tmp_running_var`, `_running_iter`) and num_batches_tracked
/// may be missing.
pub fn load_into(
    store: &Store,
    part: Part,
    tensors: &[(String, Tensor)],
    skip_mismatched: bool,
) -> Result<Report, WeightsError> {
    let targets: BTreeMap<&str, &Variable> = store
        .variables
        .iter()
        .filter_map(|variable| Some((variable.name.strip_prefix(part.prefix())?, variable)))
        .collect();
    let shapes: Vec<(&str, Vec<i64>)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.size())).collect();
    let keys = keys::translate(part.prefix(), &shapes, &targets.keys().copied().collect::<BTreeSet<_>>());

    let mut report = Report::default();
    let mut sources: BTreeMap<&str, &Tensor> = BTreeMap::new();
    for (name, (_, tensor)) in
        keys.names.iter().zip(tensors).filter_map(|(name, tensor)| Some((name.as_deref()?, tensor)))
    {
        let Some(target) = targets.get(name) else {
            if !is_optional(name) {
                report.unused.push(name.to_string());
            }
            continue;
        };
        if target.tensor.size() == tensor.size() {
            sources.insert(name, tensor);
        } else {
            report.mismatched.push(format!(
                "{name} ({:?} in the file, {:?} here)",
                tensor.size(),
                target.tensor.size()
            ));
        }
    }
    let mismatched: BTreeSet<&str> = report.mismatched.iter().filter_map(|line| line.split(' ').next()).collect();
    // In the network's order, not the alphabet's.
    for name in store.variables.iter().filter_map(|variable| variable.name.strip_prefix(part.prefix())) {
        if sources.contains_key(name) {
            report.loaded.push(name.to_string());
        } else if keys.own_stem.iter().any(|start| name.starts_with(start)) {
            report.own_stem.push(name.to_string());
        } else if !is_optional(name) && !mismatched.contains(name) {
            report.missing.push(name.to_string());
        }
    }
    refuse(&report, skip_mismatched)?;

    let failed = |problem: tch::TchError| WeightsError::Mismatch(format!("a tensor cannot be copied: {problem}"));
    for (name, tensor) in &sources {
        copy(&targets[name].tensor, tensor).map_err(failed)?;
    }
    for (name, _) in targets.iter().filter(|(name, _)| name.ends_with("_running_iter")) {
        let norm = name.trim_end_matches("_running_iter");
        report.rebuilt_statistics += usize::from(rebuild_statistics(norm, &targets, &sources).map_err(failed)?);
    }
    Ok(report)
}

fn refuse(report: &Report, skip_mismatched: bool) -> Result<(), WeightsError> {
    let mut problems = Vec::new();
    if !report.missing.is_empty() {
        problems.push(format!("{} tensors are missing: {}", report.missing.len(), report.missing.join(", ")));
    }
    if !report.mismatched.is_empty() && !skip_mismatched {
        let (count, list) = (report.mismatched.len(), report.mismatched.join(", "));
        problems.push(format!("{count} tensors have another shape: {list}; MODEL.skip_mismatched True leaves these at their initial values"));
    }
    if problems.is_empty() {
        return Ok(());
    }
    if !report.unused.is_empty() {
        problems.push(format!("{} of the file are unused: {}", report.unused.len(), report.unused.join(", ")));
    }
    Err(WeightsError::Mismatch(problems.join("; ")))
}

/// Buffers that files of plain batch norm lack, or that plain files have and nothing here needs.
fn is_optional(name: &str) -> bool {
    let buffer = name.rsplit('.').next().unwrap_or_default();
    matches!(buffer, "num_batches_tracked" | "_tmp_running_mean" | "_tmp_running_var" | "_running_iter")
}

fn copy(target: &Tensor, source: &Tensor) -> Result<(), tch::TchError> {
    no_grad(|| target.shallow_clone().f_copy_(source).map(|_| ()))
}

/// Makes tmp ÷ iter the running value where the file's are absent or disagree (single-process training of the
/// reference moves the running values alone). Whether anything had to be done.
fn rebuild_statistics(
    norm: &str,
    targets: &BTreeMap<&str, &Variable>,
    sources: &BTreeMap<&str, &Tensor>,
) -> Result<bool, tch::TchError> {
    let target = |buffer: &str| targets.get(format!("{norm}{buffer}").as_str()).map(|variable| &variable.tensor);
    let source = |buffer: &str| sources.get(format!("{norm}{buffer}").as_str()).copied();
    let pairs = [("running_mean", "_tmp_running_mean"), ("running_var", "_tmp_running_var")];
    // A norm that was not loaded at all keeps its own.
    if pairs.iter().any(|(running, _)| source(running).is_none()) {
        return Ok(false);
    }
    let iter = source("_running_iter")
        .map(|iter| iter.f_double_value(&[0]))
        .transpose()?
        .filter(|iter| iter.is_finite() && *iter > 0.0);
    let agrees = |(running, tmp): &(&str, &str)| match (source(running), source(tmp), iter) {
        (Some(running), Some(tmp), Some(iter)) => (tmp / iter).f_allclose(running, 1e-4, 1e-6, false),
        _ => Ok(false),
    };
    if agrees(&pairs[0])? && agrees(&pairs[1])? {
        return Ok(false);
    }
    let iter = iter.unwrap_or(1.0);
    for (running, tmp) in pairs {
        if let (Some(running), Some(tmp)) = (source(running), target(tmp)) {
            copy(tmp, &(running * iter))?;
        }
    }
    if let Some(target) = target("_running_iter") {
        no_grad(|| target.shallow_clone().f_fill_(iter).map(|_| ()))?;
    }
    Ok(true)
}
