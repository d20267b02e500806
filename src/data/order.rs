//! Which samples make which step: a pure function of (list, seed, global batch, step).

use super::{OrderKind, SizePer};

/// Version of the function below; stored in checkpoints, since a resumed run must keep its order.
pub const ORDER_VERSION: u32 = 1;

/// What the order is a function of, besides the step.
pub struct OrderSpec {
    pub kind: OrderKind,
    pub size_per: SizePer,
    pub seed: u64,
    pub global_batch: usize,
    pub micro_batch: usize,
    /// DATASET.imgSizes.
    pub short_edges: Vec<u32>,
}

/// One micro-batch: what a rank runs at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatch {
    /// Index in the global batch of the first sample.
    pub first: usize,
    /// Indices into the list.
    pub samples: Vec<u32>,
    /// Short edge that the samples are resized to.
    pub short_edge: u32,
}

/// One global batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which pass over the list.
    pub pass: u64,
    /// In the order in which they are dealt to ranks: rank k of R runs micro-batch r·R + k in round r.
    pub micro_batches: Vec<MicroBatch>,
}

/// The order of a list.
pub struct Order {}

impl Order {
    /// `sizes`: (width, height) of every sample.
    pub fn new(sizes: &[(u32, u32)], spec: OrderSpec) -> Order {
        todo!()
    }
    /// Global batches in one pass.
    pub fn steps_per_pass(&self) -> u64 {
        todo!()
    }
    /// The global batch of step `step`, 0-based, found without walking through earlier ones.
    pub fn step(&self, step: u64) -> Step {
        todo!()
    }
}
