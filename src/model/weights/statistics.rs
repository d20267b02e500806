//! The debiased running statistics of a batch norm, where a file lacks them.

use std::collections::BTreeMap;

use tch::{Tensor, no_grad};

use super::load::copy;
use crate::model::layers::Variable;

/// Makes tmp ÷ iter the running value where the file's are absent or disagree (single-process training of the
/// reference moves the running values alone). Whether anything had to be done.
pub(super) fn rebuild(
    norm: &str,
    targets: &BTreeMap<&str, &Variable>,
    sources: &BTreeMap<String, Tensor>,
) -> Result<bool, tch::TchError> {
    let target = |buffer: &str| targets.get(format!("{norm}{buffer}").as_str()).map(|variable| &variable.tensor);
    let source = |buffer: &str| sources.get(&format!("{norm}{buffer}"));
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
