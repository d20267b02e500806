//! A round of micro-batches, one on each rank, between its forward and its backward pass.

use crate::model::Kept;
use tch::Tensor;

/// A round between its forward and its backward pass.
pub struct Round {
    /// Where backward starts.
    pub root: Root,
    /// With MODEL.recompute, what the encoder's backward needs.
    pub kept: Option<Kept>,
    /// Index of its first image in the global batch.
    pub first: u64,
}

/// What backward starts from.
pub enum Root {
    /// The sums of a micro-batch.
    Sums(Tensor),
    /// All scores of no images, to take part in what ranks exchange in backward.
    NoImages(Tensor),
    /// No forward pass was made.
    Nothing,
}
