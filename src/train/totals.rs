//! The sums of a step, on this rank and over all.

use crate::comm::{Comm, CommError};
use tch::{Kind, Tensor};

/// This rank's sums; tensors stay on the device until someone reads them.
pub struct Local {
    loss: Option<Tensor>,
    length: usize,
    correct: Option<Tensor>,
    labelled: u64,
    shown: bool,
    /// Reads tried again, reads given up and samples replaced since the last step that was shown.
    pub reading: [u64; 3],
}

impl Local {
    /// All 0: `length` sums of the loss, and the correctly labelled pixels where they are to be `shown`.
    pub fn new(length: usize, shown: bool) -> Local {
        Local { loss: None, length, correct: None, labelled: 0, shown, reading: [0; 3] }
    }

    /// Adds a micro-batch's sums and labelled pixels; `correct` is asked where it is wanted.
    pub fn add(&mut self, loss: &Tensor, labelled: u64, correct: impl FnOnce() -> Tensor) {
        let loss = loss.detach();
        self.loss = Some(self.loss.take().map_or_else(|| loss.shallow_clone(), |sum| sum + &loss));
        self.labelled += labelled;
        if self.shown {
            let correct = correct();
            self.correct = Some(self.correct.take().map_or_else(|| correct.shallow_clone(), |sum| sum + &correct));
        }
    }

    /// The sums of the loss.
    pub fn loss(&self) -> Vec<f64> {
        let mut values = vec![0.0; self.length];
        if let Some(loss) = &self.loss {
            loss.to_kind(Kind::Double).copy_data(&mut values, self.length);
        }
        values
    }

    fn correct(&self) -> i64 {
        self.correct.as_ref().map_or(0, |correct| correct.int64_value(&[]))
    }
}

/// The same of all ranks.
pub struct Totals {
    /// What the loss is a function of.
    pub loss: Vec<f64>,
    /// Correctly labelled pixels, where they are shown.
    pub correct: Option<f64>,
    /// Labelled pixels.
    pub labelled: f64,
    /// As in [`Local::reading`].
    pub reading: [u64; 3],
    /// Whether this rank's own sums of the loss are finite.
    pub own_are_finite: bool,
    /// Whether a rank asks to stop.
    pub stop: bool,
    /// Whether a rank has no next batch.
    pub missing: bool,
}

impl Totals {
    /// One collective for all of them. Counts are exact in f64.
    pub fn sum(comm: &dyn Comm, local: &Local, stop: bool, missing: bool) -> Result<Totals, CommError> {
        let number = |holds: bool| f64::from(u8::from(holds));
        let mut all = local.loss();
        let own_are_finite = all.iter().all(|sum| sum.is_finite());
        all.extend([local.correct() as f64, local.labelled as f64, number(stop), number(missing)]);
        all.extend(local.reading.map(|count| count as f64));
        comm.all_reduce_f64(&mut all)?;
        let (loss, rest) = all.split_at(local.length);
        Ok(Totals {
            loss: loss.to_vec(),
            correct: local.shown.then_some(rest[0]),
            labelled: rest[1],
            reading: [4, 5, 6].map(|at| rest[at] as u64),
            own_are_finite,
            stop: rest[2] > 0.0,
            missing: rest[3] > 0.0,
        })
    }
}
