//! From the names in a file to the reference's names: prefixes of wrappers, torchvision's MobileNetV2 and ResNets.

use std::collections::BTreeSet;

/// The names of a file in the reference's terms.
pub struct Keys {
    /// One name for each of the file's, in their order; None: it belongs to the other part of the network.
    pub names: Vec<Option<String>>,
    /// Starts of names that keep their initial values, as the file's network has another stem.
    pub own_stem: &'static [&'static str],
}

/// Layers of the reference's ResNets that torchvision's lack: the stem is three 3x3 convolutions with 128 channels
/// instead of one 7x7 with 64, and the first block, which reads it, has other input channels.
const RESNET_STEM: &[&str] =
    &["conv1.", "bn1.", "conv2.", "bn2.", "conv3.", "bn3.", "layer1.0.conv1.", "layer1.0.bn1.", "layer1.0.downsample."];

/// Translates `names` with their shapes for the part (`encoder.` or `decoder.`) whose bare names are `expected`.
pub fn translate(part: &str, names: &[(&str, Vec<i64>)], expected: &BTreeSet<&str>) -> Keys {
    let combined = names.iter().any(|(name, _)| name.starts_with("encoder.") || name.starts_with("decoder."));
    let prefix = if combined { part } else { wrapper(names, expected) };
    let bare: Vec<Option<&str>> =
        names.iter().map(|(name, _)| name.strip_prefix(prefix).or(if combined { None } else { Some(name) })).collect();
    let seven_by_seven = |(bare, (_, shape)): (&Option<&str>, &(&str, Vec<i64>))| {
        *bare == Some("conv1.weight") && shape.ends_with(&[7, 7])
    };
    let other_stem = expected.contains("conv3.weight") && bare.iter().zip(names).any(seven_by_seven);
    let own_stem = if other_stem { RESNET_STEM } else { &[] };
    let nested = bare.iter().flatten().any(|name| mobilenet_part(name).is_some_and(|(_, inner)| inner.len() == 3));
    let rename = |name: &str| {
        if own_stem.iter().any(|start| name.starts_with(start)) {
            // Of the same name, but not the same layer: will be listed as unused.
            return format!("torchvision's {name}");
        }
        if nested { mobilenet(name).unwrap_or_else(|| name.to_string()) } else { name.to_string() }
    };
    Keys { names: bare.into_iter().map(|name| name.map(rename)).collect(), own_stem }
}

/// What a wrapper put before every name (`module.`, `module.pre.`, …): the prefix without which most names are known.
fn wrapper<'a>(names: &[(&'a str, Vec<i64>)], expected: &BTreeSet<&str>) -> &'a str {
    let mut prefixes = BTreeSet::from([""]);
    for (name, _) in names {
        prefixes.extend(name.match_indices('.').take(2).map(|(at, _)| &name[..=at]));
    }
    let known = |prefix: &str| {
        names.iter().filter(|(name, _)| name.strip_prefix(prefix).is_some_and(|bare| expected.contains(bare))).count()
    };
    // Of equals the last, thus the shortest, wins.
    prefixes.into_iter().rev().max_by_key(|prefix| known(prefix)).unwrap_or_default()
}

/// The block of a tensor inside an inverted residual, and the rest of its name.
fn mobilenet_part(name: &str) -> Option<(&str, Vec<&str>)> {
    let (block, inner) = name.strip_prefix("features.")?.split_once(".conv.")?;
    Some((block, inner.split('.').collect()))
}

/// torchvision nests convolution, norm and activation of a block (`conv.A.B.`); the reference counts them through.
/// Activations have no tensors, so that the same tensors come in the same order under both.
fn mobilenet(name: &str) -> Option<String> {
    let (block, inner) = mobilenet_part(name)?;
    // The first block does not expand: it has one nested group where the others have two.
    let groups = if block == "1" { 1 } else { 2 };
    let (index, tensor) = match inner.as_slice() {
        [outer, inner, tensor] => (3 * outer.parse::<usize>().ok()? + inner.parse::<usize>().ok()?, tensor),
        [outer, tensor] => (outer.parse::<usize>().ok()? + 2 * groups, tensor),
        _ => return None,
    };
    Some(format!("features.{block}.conv.{index}.{tensor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(part: &str, file: &[&str], expected: &[&str]) -> Vec<Option<String>> {
        let file: Vec<(&str, Vec<i64>)> = file.iter().map(|name| (*name, vec![1])).collect();
        translate(part, &file, &expected.iter().copied().collect()).names
    }

    #[test]
    fn wrappers_are_taken_off_every_name() {
        let expected = ["conv1.weight", "layer1.0.conv1.weight"];
        for wrapper in ["", "module.", "module.pre."] {
            let file: Vec<String> = expected.iter().map(|name| format!("{wrapper}{name}")).collect();
            let file: Vec<&str> = file.iter().map(String::as_str).collect();
            assert_eq!(names("encoder.", &file, &expected), expected.map(|name| Some(name.to_string())));
        }
    }

    #[test]
    fn a_combined_file_gives_each_part_its_own() {
        let file = ["encoder.a", "decoder.a"];
        assert_eq!(names("encoder.", &file, &["a"]), [Some("a".to_string()), None]);
        assert_eq!(names("decoder.", &file, &["a"]), [None, Some("a".to_string())]);
    }

    #[test]
    fn nested_mobilenet_names_are_counted_through() {
        let file = [
            "features.1.conv.0.0.w",
            "features.1.conv.1.w",
            "features.1.conv.2.w",
            "features.2.conv.1.1.w",
            "features.2.conv.2.w",
            "features.2.conv.3.w",
        ];
        let flat = [
            "features.1.conv.0.w",
            "features.1.conv.3.w",
            "features.1.conv.4.w",
            "features.2.conv.4.w",
            "features.2.conv.6.w",
            "features.2.conv.7.w",
        ];
        assert_eq!(names("encoder.", &file, &flat), flat.map(|name| Some(name.to_string())));
        assert_eq!(names("encoder.", &flat, &flat), flat.map(|name| Some(name.to_string())));
    }
}
