//! Which source a file comes from: the one whose rows turn most of its names into names of the network.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::is_optional;
use super::source::{Direction, Group, Source, Translator};
use super::sources::{SOURCES, torchvision};

/// A file's names, understood.
pub struct Recognised {
    /// Where the file comes from.
    pub source: &'static Source,
    /// What a wrapper put before every name (`module.`, `model.`, …).
    pub wrapper: String,
    /// What the asked-for part of the network has a use for.
    pub groups: Vec<Group>,
    /// Indices of the names that neither part has a use for.
    pub unused: Vec<usize>,
    /// How many of the network's names are given.
    known: usize,
}

/// The source of `names` with their shapes, for the part (`encoder` or `decoder`) whose bare names are `expected`: the one
/// that gives most of them and leaves fewest of the file's unused. Of equals the first in the table, and the shortest
/// wrapper.
pub fn recognise(part: &'static str, names: &[(&str, Vec<i64>)], expected: &BTreeSet<&str>) -> Recognised {
    let other_stem = torchvision::has_other_stem(names, expected);
    let may_be = |source: &&&'static Source| (source.name == torchvision::OTHER_STEM.name) == other_stem;
    let wrappers = wrappers(names);
    let mut found = Vec::new();
    for source in SOURCES.iter().filter(may_be) {
        let translator = Translator::new(source, Direction::In, part);
        found.extend(wrappers.iter().map(|wrapper| read_as(source, &translator, wrapper, names, expected)));
    }
    // Of equals the first is taken.
    let score = |found: &Recognised| (Reverse(found.known), found.unused.len());
    let best = found.into_iter().min_by_key(score);
    best.expect("the table of sources is not empty, and no wrapper is one of the wrappers")
}

/// The names as `source` would have them inside `wrapper`.
fn read_as(
    source: &'static Source,
    translator: &Translator,
    wrapper: &str,
    names: &[(&str, Vec<i64>)],
    expected: &BTreeSet<&str>,
) -> Recognised {
    let bare: Vec<&str> = names.iter().map(|(name, _)| name.strip_prefix(wrapper).unwrap_or(name)).collect();
    let (all, mut unused) = translator.translate(&bare);
    let mut found = Recognised { source, wrapper: wrapper.into(), groups: Vec::new(), unused: Vec::new(), known: 0 };
    for group in all {
        let own: Vec<&str> = group.to.iter().flatten().filter_map(|name| bare_name(translator.part(), name)).collect();
        let known = own.iter().filter(|name| expected.contains(*name)).count();
        if known > 0 {
            found.known += known;
            found.groups.push(group);
        } else if !own.iter().all(|name| is_optional(name)) || group.to.iter().flatten().any(|name| !is_ours(name)) {
            unused.extend(group.from.into_iter().flatten());
        }
    }
    unused.retain(|&index| !is_optional(bare[index]));
    unused.sort_unstable();
    Recognised { unused, ..found }
}

/// The name without the part in front; None: it belongs to the other part.
pub fn bare_name<'a>(part: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix(part)?.strip_prefix('.')
}

fn is_ours(name: &str) -> bool {
    ["encoder", "decoder"].iter().any(|part| bare_name(part, name).is_some())
}

/// Beginnings, up to the second dot, that a third of the names have at least, and the empty one first.
fn wrappers(names: &[(&str, Vec<i64>)]) -> BTreeSet<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for (name, _) in names {
        for (at, _) in name.match_indices('.').take(2) {
            *counts.entry(&name[..=at]).or_default() += 1;
        }
    }
    let frequent = counts.into_iter().filter(|(_, count)| 3 * count >= names.len());
    frequent.map(|(prefix, _)| prefix.to_string()).chain([String::new()]).collect()
}
