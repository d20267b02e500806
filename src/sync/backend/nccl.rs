//! Sums by kernels of GPUs, beside those of backward.

use super::{GradientBackend, Turn};
use crate::comm::{Comm, CommError};
use crate::torch::nccl::Nccl;
use crate::torch::stream::Event;
use std::sync::Arc;
use tch::Tensor;

/// NCCL, one GPU for each rank.
pub struct NcclBackend(pub Arc<Nccl>);

impl GradientBackend for NcclBackend {
    fn name(&self) -> String {
        self.0.to_string()
    }

    fn sum(&self, bucket: &mut Tensor, turn: &Turn) -> Result<(), CommError> {
        self.0.sum(bucket, turn.stream)
    }

    fn wait(&self, last: &Event, _: &dyn Comm) -> Result<(), CommError> {
        self.0.wait(last)
    }

    fn is_nccl(&self) -> bool {
        true
    }

    fn abort(&self) {
        self.0.abort();
    }
}
