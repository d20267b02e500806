//! From named tensors into a network: every tensor accounted for, nothing changed unless all is well.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Tensor, no_grad};

use super::assemble::{Fit, assemble, fit};
use super::recognise::recognise;
use super::report::Report;
use super::{WeightsError, lookalike, read, statistics};
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

/// Reads `path` into `part` of the network; lines for the log.
pub fn load_file(store: &Store, part: Part, path: &Path, skip_mismatched: bool) -> Result<Vec<String>, WeightsError> {
    let source = path.display().to_string();
    let report = load_into(store, part, &read(path)?, skip_mismatched).map_err(|problem| match problem {
        WeightsError::Mismatch(problem) => WeightsError::Mismatch(format!("{source}: {problem}")),
        other => other,
    })?;
    Ok(report.lines(part, &source))
}

/// Copies `tensors` into `part` of the network, after finding out what they are called there (see `recognise`).
///
/// Missing tensors are an error, and mis-shaped ones unless `skip_mismatched`; the network is unchanged then. What
/// [`is_optional`] says may be missing.
pub fn load_into(
    store: &Store,
    part: Part,
    tensors: &[(String, Tensor)],
    skip_mismatched: bool,
) -> Result<Report, WeightsError> {
    let found = compare(store, part, tensors)?;
    if let Err(problem) = found.report.check(skip_mismatched) {
        return Err(found.explained(part, tensors).map_or(problem, WeightsError::Mismatch));
    }
    let Compared { mut report, sources, targets, .. } = found;
    for name in &report.loaded {
        copy(&targets[name.as_str()].tensor, &sources[name]).map_err(failed)?;
    }
    for norm in targets.keys().filter_map(|name| name.strip_suffix("_running_iter")) {
        report.rebuilt_statistics += usize::from(statistics::rebuild(norm, &targets, &sources).map_err(failed)?);
    }
    Ok(report)
}

fn failed(problem: tch::TchError) -> WeightsError {
    WeightsError::Mismatch(format!("a tensor cannot be copied: {problem}"))
}

/// A file beside a network.
pub(super) struct Compared<'a> {
    pub report: Report,
    /// The network's variables by their names in the part.
    targets: BTreeMap<&'a str, &'a Variable>,
    /// What the file gives them, by the same names.
    sources: BTreeMap<String, Tensor>,
    /// Of those with different shapes: in the file, and in the network.
    shapes: Vec<[Vec<i64>; 2]>,
}

impl Compared<'_> {
    /// The file's number of classes, where that is all that differs.
    pub fn other_classes(&self) -> Option<i64> {
        let (first, rest) = self.shapes.split_first()?;
        let classes = |[file, here]: &[Vec<i64>; 2]| match (file.split_first(), here.split_first()) {
            (Some((theirs, file)), Some((ours, here))) if file == here => Some((*theirs, *ours)),
            _ => None,
        };
        let all = classes(first)?;
        (self.report.missing.is_empty() && rest.iter().all(|shapes| classes(shapes) == Some(all))).then_some(all.0)
    }

    /// What a file that does not fit is of, and what to do, where that can be told.
    fn explained(&self, part: Part, tensors: &[(String, Tensor)]) -> Option<String> {
        match self.other_classes().filter(|_| part == Part::Decoder) {
            Some(classes) => Some(format!(
                "its decoder has {classes} classes: set DATASET.num_class to that, or MODEL.skip_mismatched True to begin \
                 with a new last layer ({} tensors have another shape)",
                self.shapes.len()
            )),
            None => lookalike::remedy(part, tensors),
        }
    }
}

/// Finds for every variable of `part` what the file gives it; changes nothing.
pub(super) fn compare<'a>(
    store: &'a Store,
    part: Part,
    tensors: &[(String, Tensor)],
) -> Result<Compared<'a>, WeightsError> {
    let targets: BTreeMap<&str, &Variable> = store
        .variables
        .iter()
        .filter_map(|variable| Some((variable.name.strip_prefix(part.prefix())?, variable)))
        .collect();
    let shapes: Vec<(&str, Vec<i64>)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.size())).collect();
    let found = recognise(part.name(), &shapes, &targets.keys().copied().collect());
    let bare = |&index: &usize| tensors[index].0.strip_prefix(&found.wrapper).unwrap_or(&tensors[index].0).to_string();
    let mut report =
        Report { source: found.source.name, unused: found.unused.iter().map(bare).collect(), ..Report::default() };
    let mut shapes = Vec::new();
    let mut sources = assemble(&found, part.name(), tensors)?;
    // In the network's order, not the alphabet's.
    for name in store.variables.iter().filter_map(|variable| variable.name.strip_prefix(part.prefix())) {
        let size = targets[name].tensor.size();
        let Some(tensor) = sources.remove(name) else {
            report.without_source(part, name, found.source);
            continue;
        };
        match fit(name, &tensor, &size).map_err(failed)? {
            Fit::As(tensor) => drop(sources.insert(name.to_string(), tensor)),
            Fit::Resized(tensor, how) => {
                report.resized.push(how);
                sources.insert(name.to_string(), tensor);
            }
            Fit::Not => {
                shapes.push([tensor.size(), size.clone()]);
                report.mismatched.push(format!("{name} ({:?} in the file, {size:?} here)", tensor.size()));
                continue;
            }
        }
        report.loaded.push(name.to_string());
    }
    Ok(Compared { report, targets, sources, shapes })
}

/// Copies numbers without recording how.
pub(super) fn copy(target: &Tensor, source: &Tensor) -> Result<(), tch::TchError> {
    no_grad(|| target.shallow_clone().f_copy_(source).map(|_| ()))
}
