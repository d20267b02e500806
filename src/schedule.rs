//! How the learning rate moves: a factor of its base, a pure function of the number of finished updates.
//!
//! # How to add a schedule
//!
//! Implement [`Schedule`], here with a line in [`of`] and a name in [`Curve`] if a configuration is to ask for it, or
//! anywhere for [`crate::train::Trainer::with_schedule`]. It is asked for every step, in any order, by every rank, and
//! has to give the same answer each time: a run that is resumed asks again from the middle. Closures are schedules.
//!
//! ```
//! use segdist::schedule::{Schedule, warmed_up};
//!
//! /// A tenth of the rate after every `every` updates (He et al. 2016, arXiv 1512.03385).
//! struct Stairs { every: u64 }
//!
//! impl Schedule for Stairs {
//!     fn factor(&self, step: u64) -> f64 {
//!         0.1f64.powi((step / self.every) as i32)
//!     }
//! }
//! let schedule = warmed_up(Box::new(Stairs { every: 30 }), 10, 0.0);
//! assert_eq!([0, 5, 10, 31].map(|step| schedule.factor(step)), [0.0, 0.5, 1.0, 0.1]);
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The factor of the base learning rate, step by step.
pub trait Schedule: Send + Sync {
    /// The factor of the update that follows `step` finished ones: 0 or more.
    fn factor(&self, step: u64) -> f64;
}

impl<F: Fn(u64) -> f64 + Send + Sync> Schedule for F {
    fn factor(&self, step: u64) -> f64 {
        self(step)
    }
}

/// TRAIN.schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Curve {
    Poly,
    Cosine,
    Constant,
}

/// The schedule with this name over `total` updates; `power` is poly's.
pub fn of(curve: Curve, total: u64, power: f64) -> Box<dyn Schedule> {
    match curve {
        Curve::Poly => Box::new(move |step| poly(step, total, power)),
        Curve::Cosine => Box::new(move |step| cosine(step, total)),
        Curve::Constant => Box::new(|_| 1.0),
    }
}

/// (1 − step ÷ total)^power.
///
/// train.py `adjust_learning_rate` of the reference; the poly policy of DeepLab (arXiv 1606.00915).
pub fn poly(step: u64, total: u64, power: f64) -> f64 {
    (1.0 - step as f64 / total.max(1) as f64).max(0.0).powf(power)
}

/// (1 + cos(π·step ÷ total)) ÷ 2, half a period without restarts (Loshchilov & Hutter 2017, arXiv 1608.03983).
pub fn cosine(step: u64, total: u64) -> f64 {
    (1.0 + (std::f64::consts::PI * (step as f64 / total.max(1) as f64).min(1.0)).cos()) / 2.0
}

/// `schedule` times a factor that rises in a straight line from `first` at step 0 to 1 at step `steps`
/// (Goyal et al. 2017, arXiv 1706.02677, section 2.2).
pub fn warmed_up(schedule: Box<dyn Schedule>, steps: u64, first: f64) -> Box<dyn Schedule> {
    if steps == 0 {
        return schedule;
    }
    Box::new(move |step: u64| {
        let risen = (step as f64 / steps as f64).min(1.0);
        (first + (1.0 - first) * risen) * schedule.factor(step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn poly_falls_from_1_to_0() {
        assert_eq!(poly(0, 100, 0.9), 1.0);
        assert_eq!(poly(100, 100, 0.9), 0.0);
        assert!((poly(50, 100, 0.9) - 0.5f64.powf(0.9)).abs() < 1e-15);
    }

    #[test]
    fn cosine_falls_from_1_over_a_half_to_0() {
        let values = [0, 25, 50, 100, 200].map(|step| cosine(step, 100));
        let expected = [1.0, 0.5 + 0.125f64.sqrt(), 0.5, 0.0, 0.0];
        assert!(values.iter().zip(expected).all(|(value, expected)| (value - expected).abs() < 1e-15), "{values:?}");
    }

    #[test]
    fn a_warm_up_rises_in_a_straight_line_and_leaves_the_rest_alone() {
        let constant = warmed_up(of(Curve::Constant, 100, 0.9), 10, 0.2);
        let factors = [0, 5, 10, 50].map(|step| constant.factor(step));
        assert!(factors.iter().zip([0.2, 0.6, 1.0, 1.0]).all(|(own, due)| (own - due).abs() < 1e-15), "{factors:?}");
        let poly = warmed_up(of(Curve::Poly, 100, 0.9), 10, 0.2);
        assert!((poly.factor(5) - 0.6 * super::poly(5, 100, 0.9)).abs() < 1e-15);
        assert_eq!(poly.factor(10), super::poly(10, 100, 0.9));
        assert_eq!(warmed_up(of(Curve::Poly, 100, 0.9), 0, 0.2).factor(0), 1.0);
    }

    proptest! {
        #[test]
        fn every_factor_lies_between_0_and_1(
            step: u64, total: u64, power in 0.0f64..10.0, steps: u64, first in 0.0f64..=1.0,
        ) {
            for curve in [Curve::Poly, Curve::Cosine, Curve::Constant] {
                let factor = warmed_up(of(curve, total, power), steps, first).factor(step);
                prop_assert!((0.0..=1.0).contains(&factor), "{curve:?}: {factor}");
            }
        }
    }
}
