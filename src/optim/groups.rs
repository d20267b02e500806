//! Which parameters share learning rate and decay, by rules over their names and depths.
//!
//! A factor of the rate comes from two rules: patterns of names (mmengine's `custom_keys`), and the layers between a
//! parameter and the decoder (mmsegmentation's `LearningRateDecayOptimizerConstructor`; Clark et al. 2020,
//! arXiv:2003.10555). Decay is decided where a layer is built: weights of convolutions and linear layers have it.

use crate::model::layers::{Role, Store, Variable};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Parameters that share learning rate and weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Whether it belongs to the decoder.
    pub decoder: bool,
    /// Whether weight decay applies.
    pub decays: bool,
    /// What its learning rate is multiplied by.
    pub factor: f64,
}

impl Eq for Group {}

impl Ord for Group {
    fn cmp(&self, other: &Group) -> Ordering {
        (self.decoder, self.decays).cmp(&(other.decoder, other.decays)).then(self.factor.total_cmp(&other.factor))
    }
}

impl PartialOrd for Group {
    fn partial_cmp(&self, other: &Group) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The factors of learning rates.
#[derive(Clone, Debug)]
pub struct Factors {
    /// TRAIN.lr_factors: of the patterns that match a name the longest counts.
    pub patterns: BTreeMap<String, f64>,
    /// TRAIN.layer_decay: one factor more for every layer between a parameter and the decoder.
    pub layer_decay: f64,
}

impl Default for Factors {
    fn default() -> Self {
        Factors { patterns: BTreeMap::new(), layer_decay: 1.0 }
    }
}

impl Factors {
    /// The group of a trained tensor.
    pub fn group(&self, variable: &Variable) -> Group {
        let matching = self.patterns.iter().filter(|(pattern, _)| matches(pattern, &variable.name));
        let named = matching.max_by_key(|(pattern, _)| pattern.len()).map_or(1.0, |(_, factor)| *factor);
        Group {
            decoder: variable.name.starts_with("decoder."),
            decays: variable.role == Role::Weight,
            factor: named * self.layer_decay.powi(variable.above as i32),
        }
    }

    /// The first rule that no tensor of `store` follows, in one line that names its key.
    pub fn check(&self, store: &Store) -> Result<(), String> {
        if let Some(pattern) = self.patterns.keys().find(|pattern| !names_some(pattern, store)) {
            return Err(unmatched("TRAIN.lr_factors", pattern, store));
        }
        if self.layer_decay != 1.0 && store.variables.iter().all(|variable| variable.above == 0) {
            return Err("TRAIN.layer_decay: this encoder does not say how deep its layers lie; set it to 1".into());
        }
        Ok(())
    }
}

/// Stops the training of all tensors that match a pattern of TRAIN.freeze; the error is one line.
pub fn freeze(store: &Store, patterns: &[String]) -> Result<(), String> {
    if let Some(pattern) = patterns.iter().find(|pattern| !names_some(pattern, store)) {
        return Err(unmatched("TRAIN.freeze", pattern, store));
    }
    let is_frozen = |variable: &&Variable| patterns.iter().any(|pattern| matches(pattern, &variable.name));
    for variable in store.variables.iter().filter(is_frozen) {
        let _ = variable.tensor.set_requires_grad(false);
    }
    match store.variables.iter().any(|variable| variable.tensor.requires_grad()) {
        true => Ok(()),
        false => Err("TRAIN.freeze leaves nothing to train: name less".into()),
    }
}

fn names_some(pattern: &str, store: &Store) -> bool {
    store.variables.iter().any(|variable| matches(pattern, &variable.name))
}

fn unmatched(key: &str, pattern: &str, store: &Store) -> String {
    let names: Vec<&str> = store.variables.iter().map(|variable| variable.name.as_str()).collect();
    let nearest = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, pattern)).unwrap_or(&"encoder");
    format!("{key}: no tensor is named \"{pattern}\" or lies below that; there is {nearest}, for one")
}

/// Whether `pattern`, in which `*` stands for anything, is `name` or leading parts of it: `encoder.block.0` is that of
/// `encoder.block.0.norm.weight`, and so is `*norm`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let name = name.as_bytes();
    // Up to where in the name the pattern so far may reach.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for sign in pattern.bytes() {
        if sign == b'*' {
            let first = reached.iter().position(|&reached| reached).unwrap_or(reached.len());
            reached[first..].fill(true);
        } else {
            reached = (0..=name.len()).map(|at| at > 0 && reached[at - 1] && name[at - 1] == sign).collect();
        }
    }
    (0..=name.len()).any(|at| reached[at] && name.get(at).is_none_or(|sign| *sign == b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_is_a_name_or_its_leading_parts() {
        for pattern in ["encoder", "encoder.block.0", "encoder.*.norm", "*norm", "*", "encoder.block.0.norm.weight"] {
            assert!(matches(pattern, "encoder.block.0.norm.weight"), "{pattern}");
        }
        for pattern in ["", "enc", "encoder.block.0.nor", "block", "encoder.block.0.norm.weight.x", "*bias"] {
            assert!(!matches(pattern, "encoder.block.0.norm.weight"), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn a_name_with_stars_in_place_of_letters_matches(name in "[a-c.]{1,12}", stars in prop::collection::vec(any::<bool>(), 12)) {
            let pattern: String =
                name.chars().zip(stars).map(|(letter, star)| if star { '*' } else { letter }).collect();
            prop_assert!(matches(&pattern, &name));
            prop_assert!(!matches(&(pattern + "x"), &name));
        }
    }
}
