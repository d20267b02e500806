//! What the labels of a set look like, from a sample of them: how much is ignored, and which classes do not occur.

use super::DatasetConfig;
use super::dataset::Dataset;
use super::label_map::IGNORED;
use super::source::DataError;

/// Labels that are looked at; spread over the list, they take a fraction of a second.
const LOOKED_AT: usize = 64;

/// Counts over some labels of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Labels that were looked at.
    pub images: usize,
    /// Labels that there are.
    pub of: usize,
    /// Pixels of each class.
    pub classes: Vec<u64>,
    /// Pixels of no class.
    pub ignored: u64,
    /// Pixels of the stored value 0.
    pub zero: u64,
}

impl Census {
    /// Looks at up to 64 labels, evenly spread.
    pub fn take(dataset: &Dataset, config: &DatasetConfig) -> Result<Census, DataError> {
        let of = dataset.len();
        let images = of.min(LOOKED_AT);
        let mut counts = [0u64; 256];
        let mut label = Vec::new();
        for number in 0..images {
            dataset.read_label(number * of / images, &mut label)?;
            label.iter().for_each(|&value| counts[usize::from(value)] += 1);
        }
        let mut census = Census { images, of, classes: vec![0; config.num_class], ignored: 0, zero: counts[0] };
        for (value, count) in (0..=255u8).zip(counts).filter(|(_, count)| *count > 0) {
            match dataset.label_map().class(value) {
                Some(class) if class != IGNORED => census.classes[class as usize] += count,
                _ => census.ignored += count,
            }
        }
        Ok(census)
    }

    /// One line.
    pub fn text(&self, names: &[String]) -> String {
        let name = |class: usize| names.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        let absent: Vec<String> = (0..self.classes.len()).filter(|&class| self.classes[class] == 0).map(name).collect();
        let mut text = format!("{:.1} % ignored", 100.0 * self.ignored as f64 / self.pixels() as f64);
        const LISTED: usize = 6;
        if !absent.is_empty() {
            let more = absent.len().saturating_sub(LISTED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            text += &format!("; not seen: {}{more}", absent[..absent.len().min(LISTED)].join(", "));
        }
        let least =
            (0..self.classes.len()).filter(|&class| self.classes[class] > 0).min_by_key(|&class| self.classes[class]);
        if let Some(class) = least {
            let share = 100.0 * self.classes[class] as f64 / (self.pixels() - self.ignored).max(1) as f64;
            text += &format!("; least: {} with {share:.2} %", name(class));
        }
        if self.images < self.of {
            text += &format!(" (in {} labels)", self.images);
        }
        text
    }

    /// Whether the value 0, which the reference's rule ignores, is most of what was labelled.
    pub fn is_mostly_zero(&self) -> bool {
        self.zero * 2 > self.pixels()
    }

    fn pixels(&self) -> u64 {
        (self.ignored + self.classes.iter().sum::<u64>()).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_what_is_missing_and_what_is_rare() {
        let census = Census { images: 2, of: 9, classes: vec![60, 0, 20, 0], ignored: 20, zero: 20 };
        let names = ["a".to_string(), "b".into()];
        assert_eq!(
            census.text(&names),
            "20.0 % ignored; not seen: b, class 3; least: class 2 with 25.00 % (in 2 labels)"
        );
        assert!(!census.is_mostly_zero());
        assert!(Census { zero: 51, ..census }.is_mostly_zero());
    }
}
