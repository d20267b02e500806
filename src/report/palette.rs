//! Names and colours of the classes.

use crate::data::layout;

/// The golden ratio's fractional part: multiples of it spread over a circle as evenly as any count allows.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Name and colour of every class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// One per class.
    pub names: Vec<String>,
    /// RGB, one per class.
    pub colours: Vec<[u8; 3]>,
}

impl Classes {
    /// Names and colours for `count` classes: the given ones as far as they go, ADE20K's where there are 150 classes
    /// and nothing is given, else `class 7` and a generated colour.
    pub fn new(count: usize, names: Option<&[String]>, colours: Option<&[[u8; 3]]>) -> Classes {
        let (mut known_names, mut known_colours) = layout::ade20k();
        if count != known_names.len() || names.is_some_and(|names| !names.is_empty()) {
            known_names.clear();
            known_colours.clear();
        }
        let given_or_known = |class| names.and_then(|names| names.get(class)).or(known_names.get(class));
        let name = |class| given_or_known(class).cloned().unwrap_or_else(|| format!("class {class}"));
        let given_or_known = |class| colours.and_then(|colours| colours.get(class)).or(known_colours.get(class));
        let colour = |class| given_or_known(class).copied().unwrap_or_else(|| generated(class));
        Classes { names: (0..count).map(name).collect(), colours: (0..count).map(colour).collect() }
    }

    /// The class's name as pictures show it, cut where it is longer than any has to be.
    pub fn label(&self, class: usize) -> String {
        const MOST: usize = 40;
        let name = &self.names[class];
        if name.chars().count() <= MOST {
            name.clone()
        } else {
            name.chars().take(MOST - 2).chain("..".chars()).collect()
        }
    }

    /// Number of classes.
    pub fn count(&self) -> usize {
        self.names.len()
    }
}

/// A colour for class `class` of a set that has none of its own: hues a golden angle apart, three lightnesses.
pub fn generated(class: usize) -> [u8; 3] {
    let hue = (class as f64 * GOLDEN).fract() * 6.0;
    let (low, high) = [(0.12, 0.86), (0.35, 1.0), (0.0, 0.6)][class % 3];
    let channel = |offset: f64| {
        let distance = ((hue + offset) % 6.0 - 3.0).abs();
        let level = low + (high - low) * (distance - 1.0).clamp(0.0, 1.0);
        (level * 255.0).round() as u8
    };
    [channel(0.0), channel(4.0), channel(2.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn generated_colours_are_all_different() {
        let colours: HashSet<_> = (0..255).map(generated).collect();
        assert_eq!(colours.len(), 255);
    }

    #[test]
    fn given_names_and_colours_come_first_then_ade20k_then_generated_ones() {
        let names = ["sky".to_string()];
        let classes = Classes::new(2, Some(&names), Some(&[[1, 2, 3]]));
        assert_eq!(classes.names, ["sky", "class 1"]);
        assert_eq!(classes.colours, [[1, 2, 3], generated(1)]);
        let ade = Classes::new(150, None, None);
        assert_eq!((ade.names[12].as_str(), ade.colours[12]), ("person", [150, 5, 61]));
    }
}
