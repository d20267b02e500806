//! Where a rank's part of every step comes from: the one thing a trainer asks of its data.
//!
//! The [`super::loader::Loader`] reads it from a data set, [`super::synthetic::Synthetic`] draws it. Another source
//! implements one method:
//!
//! ```
//! use segdist::data::batch::HostBatch;
//! use segdist::data::batch_source::{BatchSource, StepBatch};
//!
//! /// One black image of 64 × 64 pixels a step, all of it class 0.
//! struct Black(u64);
//!
//! impl BatchSource for Black {
//!     fn next(&mut self) -> anyhow::Result<StepBatch> {
//!         let pixels = (vec![0; 64 * 64 * 3], vec![0; 8 * 8]);
//!         let batch = HostBatch::new(0, vec![0], (64, 64), 8, pixels);
//!         self.0 += 1;
//!         Ok(StepBatch { step: self.0 - 1, pass: 0, rounds: vec![Some(batch)], substituted: 0 })
//!     }
//! }
//! assert_eq!(Black(0).next().unwrap().rounds[0].as_ref().unwrap().valid, 64);
//! ```

use super::batch::HostBatch;

/// Which part of each global batch a rank runs: micro-batch r·ranks + rank in round r.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// This rank.
    pub rank: usize,
    /// Number of ranks.
    pub ranks: usize,
}

/// One rank's part of one step.
pub struct StepBatch {
    /// The step, 0-based.
    pub step: u64,
    /// Which pass over the list.
    pub pass: u64,
    /// One entry a round, as many on every rank; None where this rank has no micro-batch left.
    pub rounds: Vec<Option<HostBatch>>,
    /// Corrupt samples of this rank that were replaced (DATASET.on_corrupt substitute).
    pub substituted: usize,
}

/// A stream of steps.
pub trait BatchSource {
    /// This rank's part of the next step; waits for it if need be.
    ///
    /// # Errors
    /// Why there is none. The trainer then ends the job on all ranks, with this reason.
    fn next(&mut self) -> anyhow::Result<StepBatch>;
}
