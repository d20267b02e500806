//! The statistics of batch norms in files: the debiased sums where a file lacks them, and statistics that were taken anew.

use std::collections::BTreeMap;

use tch::{Tensor, no_grad};

use super::load::copy;
use crate::model::layers::Variable;

/// Ends of the names of what evaluation normalises with, and of the sums that stand for it.
pub const EVALUATED: [&str; 2] = [".running_mean", ".running_var"];

/// Puts statistics that were taken anew in the place of the running ones among a network's `tensors`, debiasing sums
/// included, by name.
pub fn put_in_place(tensors: &mut [(String, Tensor)], statistics: Vec<(String, Tensor)>) -> Result<(), tch::TchError> {
    let places: BTreeMap<String, usize> =
        tensors.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
    for (name, value) in statistics {
        let Some(norm) = EVALUATED.iter().find_map(|end| name.strip_suffix(end)) else { continue };
        let sum = format!("{norm}._tmp_{}", &name[norm.len() + 1..]);
        let iter = places.get(&format!("{norm}._running_iter")).map(|&place| tensors[place].1.shallow_clone());
        if let (Some(&place), Some(iter)) = (places.get(&sum), iter) {
            tensors[place].1 = value.f_mul(&iter)?;
        }
        if let Some(&place) = places.get(&name) {
            tensors[place].1 = value;
        }
    }
    Ok(())
}

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
