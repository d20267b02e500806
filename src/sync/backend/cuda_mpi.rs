//! Sums by an MPI that reads and writes the memory of GPUs.

use super::{GradientBackend, Turn};
use crate::comm::CommError;
use crate::torch::failed;
use crate::torch::memory::device_values;
use tch::Tensor;

/// CUDA-aware MPI.
pub struct CudaMpi;

impl GradientBackend for CudaMpi {
    fn name(&self) -> String {
        "CUDA-aware MPI".into()
    }

    fn sum(&self, bucket: &mut Tensor, turn: &Turn) -> Result<(), CommError> {
        // MPI knows nothing of streams.
        turn.filled.wait().map_err(failed("cudaEventQuery", turn.comm.rank()))?;
        turn.comm.all_reduce_device(device_values(bucket))
    }
}
