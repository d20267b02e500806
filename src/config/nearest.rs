//! Which known key was probably meant.

use std::collections::BTreeSet;
use strsim::damerau_levenshtein;

/// How many keys are named at most.
const MOST: usize = 3;

/// The known keys, or the section, that look most like `key`: `TRAIN.lr_encoder or TRAIN.lr_decoder` for `TRAIN.lr`.
pub fn nearest(key: &str, known: &[String]) -> String {
    let sections: BTreeSet<&str> = known.iter().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    let Some((section, name)) = key.split_once('.') else { return without_section(key, known, &sections) };
    let section = closest(section, sections.iter().copied());
    let inside: Vec<&str> = known.iter().filter_map(|key| key.strip_prefix(section)?.strip_prefix('.')).collect();
    // A name that only one other section has was meant there.
    if !inside.iter().any(|inside| inside.eq_ignore_ascii_case(name))
        && let [only] = elsewhere(name, known)[..]
    {
        return only.to_owned();
    }
    let begun: Vec<String> = inside
        .iter()
        .filter(|inside| begins(inside, name))
        .take(MOST)
        .map(|name| format!("{section}.{name}"))
        .collect();
    match begun.is_empty() {
        true => format!("{section}.{}", closest(name, inside.into_iter())),
        false => begun.join(" or "),
    }
}

/// A section's name, a key that lacks its section, or DIR.
fn without_section(key: &str, known: &[String], sections: &BTreeSet<&str>) -> String {
    if let [first, ..] = elsewhere(key, known)[..] {
        return first.to_owned();
    }
    if let Some(inside) = known.iter().find(|known| known.split_once('.').is_some_and(|(section, _)| section == key)) {
        return inside.clone();
    }
    let alone = known.iter().map(String::as_str).filter(|key| !key.contains('.'));
    closest(key, sections.iter().copied().chain(alone)).to_owned()
}

/// The keys of any section that are called so.
fn elsewhere<'a>(name: &str, known: &'a [String]) -> Vec<&'a str> {
    let called = |key: &&str| key.split_once('.').is_some_and(|(_, own)| own.eq_ignore_ascii_case(name));
    known.iter().map(String::as_str).filter(called).collect()
}

/// Whether a key continues what was typed, from its beginning or from the beginning of one of its words.
fn begins(key: &str, typed: &str) -> bool {
    let (key, typed) = (key.to_lowercase(), typed.to_lowercase());
    let like = |word: &str| word == typed || typed.len() > 4 && damerau_levenshtein(word, &typed) == 1;
    typed.len() > 1 && (key.starts_with(&typed) || key.split('_').any(like))
}

fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    let distance = |known: &&str| damerau_levenshtein(&known.to_lowercase(), &word.to_lowercase());
    known.min_by_key(distance).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meant(key: &str) -> String {
        nearest(key, &crate::config::Config::keys())
    }

    #[test]
    fn a_wrong_name_is_looked_for_in_its_section_first_and_by_its_beginning() {
        assert_eq!(meant("TRAIN.lr"), "TRAIN.lr_encoder or TRAIN.lr_decoder or TRAIN.lr_pow");
        assert_eq!(meant("TRAIN.nmu_epoch"), "TRAIN.num_epoch");
        assert_eq!(meant("TRAIN.epochs"), "TRAIN.num_epoch or TRAIN.start_epoch or TRAIN.epoch_iters");
        assert_eq!(meant("DATASET.imgsizes"), "DATASET.imgSizes");
        assert_eq!(meant("MODEL.encoder"), "MODEL.arch_encoder or MODEL.weights_encoder");
    }

    #[test]
    fn a_wrong_section_suggests_the_section() {
        assert_eq!(meant("TRIAN"), "TRAIN");
        assert_eq!(meant("TRIAN.seed"), "TRAIN.seed");
        assert_eq!(meant("TRIAN.lr_encoder"), "TRAIN.lr_encoder");
        assert_eq!(meant("MODEL.imgSizes"), "DATASET.imgSizes");
        assert_eq!(meant("seed"), "TRAIN.seed");
        assert_eq!(meant("dir"), "DIR");
        assert_eq!(meant("TRAIN"), "TRAIN.batch_size_per_gpu", "a section is given a value");
    }

    proptest! {
        #[test]
        fn any_text_has_a_nearest_key(key in ".{0,20}") {
            prop_assert!(!meant(&key).is_empty());
        }
    }
}
