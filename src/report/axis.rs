//! An axis of a chart, whatever draws it: where a value stands, and the round numbers marked along it.

/// A range of values, the coordinates it is drawn over, and the distance of round numbers in it.
pub struct Axis {
    low: f64,
    high: f64,
    step: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// The axis over the range of `values` (0 to 1 of none), drawn between two coordinates, with at most `intervals`
    /// between its marks. Equal values stand in the middle of a range a fifth as wide as they are large, or as `least`.
    pub fn over(values: Vec<f64>, least: f64, intervals: f64, (from, to): (f64, f64)) -> Axis {
        let range = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        let (mut low, mut high) = values.into_iter().fold((f64::MAX, f64::MIN), range);
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if high - low <= low.abs() * 1e-9 {
            (low, high) = (low - 0.1 * low.abs().max(least), high + 0.1 * high.abs().max(least));
        }
        Axis { low, high, step: round_step((high - low) / intervals), from, to }
    }

    /// The smallest and the largest value on it.
    pub fn range(&self) -> [f64; 2] {
        [self.low, self.high]
    }

    /// The coordinate of a value.
    pub fn place(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// The round numbers inside the range.
    pub fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.step).ceil();
        (0..20).map(move |at| (first + f64::from(at)) * self.step).take_while(|tick| *tick <= self.high)
    }

    /// A round number with the digits that tell it from its neighbours.
    pub fn label(&self, tick: f64) -> String {
        if self.step >= 1e5 || self.step < 1e-5 {
            return format!("{tick:.1e}");
        }
        let digits = (-self.step.log10().floor()).max(0.0) as usize;
        format!("{tick:.digits$}")
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// Four significant digits.
pub fn number(value: f64) -> String {
    if value == 0.0 || (1e-3..1e5).contains(&value.abs()) {
        let digits = if value == 0.0 { 0 } else { (3 - value.abs().log10().floor() as i32).max(0) as usize };
        format!("{value:.digits$}")
    } else {
        format!("{value:.3e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_between_ticks_are_round() {
        assert_eq!([0.11, 0.9, 3.0, 70.0].map(round_step), [0.2, 1.0, 5.0, 100.0]);
    }

    #[test]
    fn numbers_have_four_digits() {
        assert_eq!([0.0, 0.25, 12.3456, 1e-5].map(number), ["0", "0.2500", "12.35", "1.000e-5"]);
    }
}
