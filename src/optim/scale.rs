//! The loss scale of fp16: gradients too small for 16 bits are computed as multiples of themselves.
//!
//! The rule of torch.amp.GradScaler (Micikevicius et al. 2017, arXiv 1710.03740): a step whose summed gradients are not
//! finite is left out and halves the scale, 2000 good steps in a row double it. It sees nothing but the sums over
//! ranks, so it is the same on all. A scale of 1 is no help any more: what is not finite then is an error.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Good steps after which the scale doubles.
const PATIENCE: u64 = 2000;

/// TRAIN.amp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Amp {
    Off,
    Bf16,
    Fp16,
}

impl Amp {
    /// The type that convolutions and matrix products compute in, where it is not f32.
    pub fn kind(self) -> Option<tch::Kind> {
        match self {
            Amp::Off => None,
            Amp::Bf16 => Some(tch::Kind::BFloat16),
            Amp::Fp16 => Some(tch::Kind::Half),
        }
    }
}

/// What the loss is multiplied by before backward; always 1 but with fp16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    value: f64,
    good: u64,
    dynamic: bool,
}

impl LossScale {
    /// `first` at the first step, where the precision needs one.
    pub fn new(amp: Amp, first: f64) -> LossScale {
        let dynamic = amp == Amp::Fp16;
        LossScale { value: if dynamic { first } else { 1.0 }, good: 0, dynamic }
    }

    /// As it was when [`LossScale::value`] and [`LossScale::good`] were saved.
    pub fn restored(self, value: f64, good: u64) -> LossScale {
        if self.dynamic { LossScale { value, good, ..self } } else { self }
    }

    /// What this step's gradients are multiplied by.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Good steps since the scale changed.
    pub fn good(&self) -> u64 {
        self.good
    }

    /// After a step: were the summed gradients finite? Returns whether a smaller scale may mend what was not.
    pub fn update(&mut self, finite: bool) -> bool {
        let mends = !finite && self.value > 1.0;
        if mends {
            (self.value, self.good) = ((self.value / 2.0).max(1.0), 0);
        } else if finite && self.dynamic {
            self.good += 1;
            if self.good == PATIENCE {
                (self.value, self.good) = (self.value * 2.0, 0);
            }
        }
        mends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(amp: Amp) -> LossScale {
        LossScale::new(amp, 65536.0)
    }

    fn good(scale: &mut LossScale, steps: usize) {
        for _ in 0..steps {
            scale.update(true);
        }
    }

    #[test]
    fn it_doubles_after_2000_good_steps_in_a_row() {
        let mut scale = scale(Amp::Fp16);
        good(&mut scale, 1999);
        assert!(scale.update(false));
        assert_eq!(scale.value(), 32768.0);
        good(&mut scale, 1999);
        assert_eq!(scale.value(), 32768.0);
        scale.update(true);
        assert_eq!((scale.value(), scale.good()), (65536.0, 0));
    }

    #[test]
    fn at_1_there_is_nothing_left_to_halve() {
        let mut scale = scale(Amp::Fp16);
        assert_eq!((0..20).filter(|_| scale.update(false)).count(), 16);
        assert_eq!(scale.value(), 1.0);
    }

    #[test]
    fn without_fp16_it_stays_1() {
        let mut scale = scale(Amp::Bf16);
        assert!(!scale.update(false));
        good(&mut scale, 3000);
        assert_eq!(scale.restored(4.0, 1).value(), 1.0);
    }
}
