//! A confusion matrix of integers, and every measure as a pure function of it.
//!
//! Integers add up in any order, so a matrix summed over ranks and threads is the same whatever their number.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What keeps the reference's IoU of an absent class finite: it divides by union + 1e-10 (eval.py).
const REFERENCE_EPS: f64 = 1e-10;

/// How classes that are in neither truth nor prediction enter the mean IoU (VAL.iou).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Iou {
    /// They count 0, as in the reference's eval.py.
    Reference,
    /// They are left out.
    Present,
}

/// Counts of (truth, prediction) pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// Number of classes.
    pub classes: usize,
    /// Row = truth, column = prediction; classes · classes.
    pub counts: Vec<i64>,
}

/// A pair of classes that are taken for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confused {
    /// The class that is there.
    pub truth: usize,
    /// The class that was predicted.
    pub prediction: usize,
    /// Pixels.
    pub count: i64,
}

impl Confusion {
    /// All zero.
    pub fn new(classes: usize) -> Self {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Counts pixel by pixel. Pixels whose truth is negative are ignored, and so is whatever is no class at all.
    pub fn add<T: Copy + Into<i64>, P: Copy + Into<i64>>(&mut self, truth: &[T], prediction: &[P]) {
        let classes = self.classes as i64;
        for (&truth, &prediction) in truth.iter().zip(prediction) {
            let (truth, prediction) = (truth.into(), prediction.into());
            if (0..classes).contains(&truth) && (0..classes).contains(&prediction) {
                self.counts[(truth * classes + prediction) as usize] += 1;
            }
        }
    }

    /// Adds the counts of a matrix over the same classes.
    pub fn merge(&mut self, other: &Confusion) {
        assert_eq!(self.classes, other.classes, "matrices over different classes");
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    /// Pixels counted.
    pub fn pixels(&self) -> i64 {
        self.counts.iter().sum()
    }

    /// Pixels of `class` that were predicted as it.
    pub fn intersection(&self, class: usize) -> i64 {
        self.counts[class * self.classes + class]
    }

    /// Pixels whose truth is `class`.
    pub fn truth(&self, class: usize) -> i64 {
        self.counts[class * self.classes..(class + 1) * self.classes].iter().sum()
    }

    /// Counted pixels that were predicted as `class`.
    pub fn prediction(&self, class: usize) -> i64 {
        self.counts.iter().skip(class).step_by(self.classes).sum()
    }

    /// Pixels of `class` in truth or prediction.
    pub fn union(&self, class: usize) -> i64 {
        self.truth(class) + self.prediction(class) - self.intersection(class)
    }

    /// Intersection over union per class; None where the class is in neither truth nor prediction.
    pub fn iou(&self) -> Vec<Option<f64>> {
        self.per_class(|class| ratio(self.intersection(class), self.union(class)))
    }

    /// Share of each class's pixels that were found (recall); None where the truth has none.
    pub fn accuracy(&self) -> Vec<Option<f64>> {
        self.per_class(|class| ratio(self.intersection(class), self.truth(class)))
    }

    /// Dice coefficient (F1) per class; None where the class is in neither truth nor prediction.
    pub fn dice(&self) -> Vec<Option<f64>> {
        self.per_class(|class| ratio(2 * self.intersection(class), self.truth(class) + self.prediction(class)))
    }

    /// Mean IoU; 0 where nothing was counted.
    pub fn mean_iou(&self, rule: Iou) -> f64 {
        match rule {
            Iou::Present => mean_of_some(&self.iou()),
            Iou::Reference => {
                let iou = |class| self.intersection(class) as f64 / (self.union(class) as f64 + REFERENCE_EPS);
                (0..self.classes).map(iou).sum::<f64>() / self.classes.max(1) as f64
            }
        }
    }

    /// Share of all counted pixels that are right; 0 where nothing was counted.
    pub fn pixel_accuracy(&self) -> f64 {
        ratio((0..self.classes).map(|class| self.intersection(class)).sum(), self.pixels()).unwrap_or(0.0)
    }

    /// Mean of the accuracies of the classes that the truth has.
    pub fn mean_accuracy(&self) -> f64 {
        mean_of_some(&self.accuracy())
    }

    /// Mean Dice coefficient of the classes in truth or prediction.
    pub fn mean_dice(&self) -> f64 {
        mean_of_some(&self.dice())
    }

    /// IoU weighted by each class's share of the truth.
    pub fn frequency_weighted_iou(&self) -> f64 {
        let weighted = |(class, iou): (usize, &Option<f64>)| iou.unwrap_or(0.0) * self.truth(class) as f64;
        self.iou().iter().enumerate().map(weighted).sum::<f64>() / self.pixels().max(1) as f64
    }

    /// The `most` largest counts off the diagonal, largest first; equal counts in order of class.
    pub fn most_confused(&self, most: usize) -> Vec<Confused> {
        let pair = |(at, &count)| Confused { truth: at / self.classes, prediction: at % self.classes, count };
        let mut pairs: Vec<Confused> = self.counts.iter().enumerate().map(pair).collect();
        pairs.retain(|pair| pair.truth != pair.prediction && pair.count > 0);
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        pairs.truncate(most);
        pairs
    }

    fn per_class(&self, measure: impl Fn(usize) -> Option<f64>) -> Vec<Option<f64>> {
        (0..self.classes).map(measure).collect()
    }
}

fn ratio(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean_of_some(values: &[Option<f64>]) -> f64 {
    let present: Vec<f64> = values.iter().copied().flatten().collect();
    present.iter().sum::<f64>() / present.len().max(1) as f64
}
