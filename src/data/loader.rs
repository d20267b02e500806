//! Reads, decodes and augments the batches of coming steps on threads of its own, in order.

use super::{
    DatasetConfig,
    batch::HostBatch,
    order::Order,
    source::{DataError, Source},
};
use std::sync::Arc;

/// Which part of each global batch this rank runs.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub rank: usize,
    pub ranks: usize,
}

/// This rank's part of one step.
pub struct StepBatch {
    pub step: u64,
    pub pass: u64,
    /// One entry a round; None where this rank has no micro-batch left.
    pub rounds: Vec<Option<HostBatch>>,
    /// Corrupt samples that were replaced (DATASET.on_corrupt substitute).
    pub substituted: usize,
}

/// A stream of steps. What it yields depends only on (source, order, seed, share), never on the thread count.
pub struct Loader {}

impl Loader {
    /// Starts the threads; the first step is `start`. `threads`: 0 means from the affinity mask.
    pub fn start(
        source: Arc<Source>,
        order: Arc<Order>,
        config: &DatasetConfig,
        padding_label: i64,
        seed: u64,
        share: Share,
        start: u64,
        threads: usize,
    ) -> Result<Loader, DataError> {
        todo!()
    }
    /// The next step's batches; waits for them if need be.
    pub fn next(&mut self) -> Result<StepBatch, DataError> {
        todo!()
    }
}
