//! How much a pixel of each class counts.

use crate::fault::require;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

/// `class_weights` of a loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum ClassWeights {
    /// All alike: `[]`.
    #[default]
    Equal,
    /// `balanced`: w = labelled pixels of the training set ÷ (classes that occur · pixels of the class), so that every
    /// class counts as much as any other (scikit-learn's rule of that name); 0 for a class that does not occur.
    Balanced,
    /// One number a class.
    Given(Vec<f64>),
}

impl ClassWeights {
    /// One number a class, where they are not all alike; `pixels`: of each class in the training set. Balanced weights of an
    /// unknown set are alike.
    pub fn of(&self, pixels: Option<&[u64]>) -> Option<Vec<f32>> {
        let weights = match self {
            ClassWeights::Equal => return None,
            ClassWeights::Given(weights) => weights.clone(),
            ClassWeights::Balanced => balanced(pixels?),
        };
        Some(weights.into_iter().map(|weight| weight as f32).collect())
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let ClassWeights::Given(weights) = self else { return Ok(()) };
        let wrong = weights.iter().find(|weight| !(0.0..=1e6).contains(*weight));
        let wrong = wrong.map_or(Ok(()), |weight| Err(format!("{weight} is no weight of a class: set it to 0 … 1e6")));
        wrong.and(require(weights.iter().any(|&weight| weight > 0.0), || "all class_weights are 0".into()))
    }

    /// How many weights there are, where they are listed.
    pub(super) fn listed(&self) -> Option<usize> {
        match self {
            ClassWeights::Given(weights) => Some(weights.len()),
            _ => None,
        }
    }
}

fn balanced(pixels: &[u64]) -> Vec<f64> {
    let (all, classes) = (pixels.iter().sum::<u64>() as f64, pixels.iter().filter(|&&count| count > 0).count() as f64);
    pixels.iter().map(|&count| if count == 0 { 0.0 } else { all / (classes * count as f64) }).collect()
}

impl TryFrom<Value> for ClassWeights {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let weights = match &value {
            Value::String(word) if word.eq_ignore_ascii_case("balanced") => return Ok(ClassWeights::Balanced),
            Value::Sequence(items) => items.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>(),
            _ => None,
        };
        match weights {
            Some(weights) if weights.is_empty() => Ok(ClassWeights::Equal),
            Some(weights) => Ok(ClassWeights::Given(weights)),
            None => Err("class_weights are balanced, or a list of one number a class".into()),
        }
    }
}

impl From<ClassWeights> for Value {
    fn from(weights: ClassWeights) -> Value {
        match weights {
            ClassWeights::Balanced => "balanced".into(),
            ClassWeights::Equal => Value::Sequence(Vec::new()),
            ClassWeights::Given(weights) => Value::Sequence(weights.into_iter().map(Value::from).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_classes_have_equal_shares_of_all_pixels() {
        let pixels = [60, 0, 30, 10];
        let weights = balanced(&pixels);
        assert_eq!(weights[1], 0.0);
        let shares: Vec<f64> = pixels.iter().zip(&weights).map(|(&count, weight)| count as f64 * weight).collect();
        assert!([0, 2, 3].iter().all(|&class| (shares[class] - 100.0 / 3.0).abs() < 1e-9), "{shares:?}");
    }
}
