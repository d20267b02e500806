//! The tensors of a file, joined, split and reshaped into those of the network.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::WeightsError;
use super::recognise::{Recognised, bare_name};
use super::source::Group;

/// The tensors by the network's names without the part in front, on the CPU; views of the file's where possible.
pub(super) fn assemble(
    recognised: &Recognised,
    part: &str,
    file: &[(String, Tensor)],
) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let mut tensors = BTreeMap::new();
    for group in &recognised.groups {
        let names = || group.from.iter().flatten().map(|&index| file[index].0.as_str()).collect::<Vec<_>>().join(", ");
        let pieces = pieces(group, file)
            .map_err(|problem| WeightsError::Mismatch(format!("{}: cannot be joined or split: {problem}", names())))?;
        for (name, tensor) in group.to.iter().zip(pieces) {
            let Some(name) = name.as_deref().and_then(|name| bare_name(part, name)) else { continue };
            if tensors.insert(name.to_string(), tensor).is_some() {
                return Err(WeightsError::Mismatch(format!("{}: another tensor stands for {name}, too", names())));
            }
        }
    }
    Ok(tensors)
}

/// One tensor for each of the group's names on the other side: the given ones, one below the other, cut into equal parts.
pub(super) fn pieces(group: &Group, given: &[(String, Tensor)]) -> Result<Vec<Tensor>, tch::TchError> {
    let some = |index: &Option<usize>| index.map(|index| given[index].1.shallow_clone());
    if let ([Some(index)], [_]) = (group.from.as_slice(), group.to.as_slice()) {
        return Ok(vec![given[*index].1.shallow_clone()]);
    }
    let present: Vec<Tensor> = group.from.iter().filter_map(some).collect();
    let zeros = present[0].f_zeros_like()?;
    let all: Vec<Tensor> =
        group.from.iter().map(|index| some(index).unwrap_or_else(|| zeros.shallow_clone())).collect();
    let joined = if all.len() == 1 { all[0].shallow_clone() } else { Tensor::f_cat(&all, 0)? };
    let (rows, parts) = (joined.size().first().copied().unwrap_or(0), group.to.len() as i64);
    if rows % parts != 0 {
        return Err(tch::TchError::Shape(format!("{rows} rows are not {parts} equal parts")));
    }
    (0..parts).map(|part| joined.f_narrow(0, part * (rows / parts), rows / parts)).collect()
}

/// How a tensor fits where it belongs.
pub(super) enum Fit {
    /// As this.
    As(Tensor),
    /// As this, resized from one grid to another.
    Resized(Tensor, String),
    /// Not at all.
    Not,
}

/// `tensor` in the shape `size`. Dimensions of 1 do not matter: a linear layer is a 1 × 1 convolution. Position embeddings
/// (1, tokens, channels) of another square grid are resized by timm's rule (timm/layers/pos_embed.py,
/// resample_abs_pos_embed): bicubic with antialiasing; tokens in front of the grid stay.
pub(super) fn fit(name: &str, tensor: &Tensor, size: &[i64]) -> Result<Fit, tch::TchError> {
    let own = tensor.size();
    let without_ones = |size: &[i64]| size.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
    if without_ones(&own) == without_ones(size) {
        return Ok(Fit::As(tensor.f_reshape(size)?));
    }
    let (&[1, from, width], &[1, to, same]) = (own.as_slice(), size) else { return Ok(Fit::Not) };
    let grids = [0, 1].into_iter().find_map(|front| Some((front, side(from - front)?, side(to - front)?)));
    let Some((front, from, to)) = grids.filter(|_| name.ends_with("pos_embed") && width == same) else {
        return Ok(Fit::Not);
    };
    let grid = tensor.f_narrow(1, front, from * from)?.f_to_kind(Kind::Float)?;
    let grid = grid.f_reshape([1, from, from, width])?.f_permute([0, 3, 1, 2])?;
    let grid = grid.f_internal_upsample_bicubic2d_aa([to, to], false, None, None)?;
    let grid = grid.f_permute([0, 2, 3, 1])?.f_reshape([1, to * to, width])?;
    let resized = Tensor::f_cat(&[tensor.f_narrow(1, 0, front)?.f_to_kind(Kind::Float)?, grid], 1)?;
    Ok(Fit::Resized(resized, format!("{name} ({from} x {from} in the file, {to} x {to} here)")))
}

/// The side of a square of `count`, of at least one.
fn side(count: i64) -> Option<i64> {
    let side = count.max(0).isqrt();
    (side > 0 && side * side == count).then_some(side)
}
