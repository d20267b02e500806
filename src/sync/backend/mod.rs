//! How a full gradient bucket becomes its sum over ranks.
//!
//! [`super::transport`] chooses one of the backends below by a table, and [`super::buckets`] drives it from the
//! communication thread while backward fills the next bucket.
//!
//! # How to add a backend
//!
//! Implement [`GradientBackend`] in a file of this folder, with a row in [`super::transport`] if a configuration is to
//! ask for it, or anywhere for [`crate::train::Links::over`].
//!
//! ```
//! use segdist::comm::CommError;
//! use segdist::sync::backend::{GradientBackend, Turn};
//! use segdist::torch::memory::f32_slice;
//! use tch::Tensor;
//!
//! /// Sums that go to rank 0 and back.
//! struct Star;
//!
//! impl GradientBackend for Star {
//!     fn name(&self) -> String {
//!         "a star around rank 0".into()
//!     }
//!     fn sum(&self, bucket: &mut Tensor, turn: &Turn) -> Result<(), CommError> {
//!         let own: Vec<u8> = f32_slice(bucket).iter().flat_map(|value| value.to_le_bytes()).collect();
//!         let all = turn.comm.all_gather(&own)?;
//!         for (at, value) in f32_slice(bucket).iter_mut().enumerate() {
//!             let of_rank = |bytes: &Vec<u8>| f32::from_le_bytes(bytes[4 * at..][..4].try_into().unwrap());
//!             *value = all.iter().map(of_rank).sum();
//!         }
//!         Ok(())
//!     }
//! }
//! ```

mod cuda_mpi;
mod host;
mod nccl;

pub use cuda_mpi::CudaMpi;
pub use host::Host;
pub use nccl::NcclBackend;

use crate::comm::{Comm, CommError};
use crate::torch::stream::{Event, Stream};
use std::sync::Arc;
use tch::Tensor;

/// A backend that the reducer and the communication thread share.
pub type Backend = Arc<dyn GradientBackend>;

/// What a backend has at hand for one bucket.
pub struct Turn<'a> {
    /// The ranks, over a channel that is used for nothing else.
    pub comm: &'a dyn Comm,
    /// Where the communication thread's work on a GPU goes: it begins when the bucket is full. Nothing on the CPU.
    pub stream: &'a Stream,
    /// Reached when backward has filled the bucket; for who does not go by the stream.
    pub filled: &'a Event,
}

/// A way for gradients between ranks. Used by one thread, bucket after bucket in the same order on every rank.
pub trait GradientBackend: Send + Sync {
    /// What messages call it.
    fn name(&self) -> String;

    /// Replaces the values of a full bucket, contiguous f32, by their sums over ranks: the same bits on all of them.
    ///
    /// On a GPU the sum may still be under way when this returns, as long as it goes by the stream.
    fn sum(&self, bucket: &mut Tensor, turn: &Turn) -> Result<(), CommError>;

    /// Returns when the GPU has come to `last`, behind the last bucket of a step, or with what went wrong on the way.
    fn wait(&self, last: &Event, comm: &dyn Comm) -> Result<(), CommError> {
        last.wait().map_err(crate::torch::failed("cudaEventQuery", comm.rank()))
    }

    /// Whether GPUs sum by NCCL: batch statistics then go the same way.
    fn is_nccl(&self) -> bool {
        false
    }

    /// After a failure: has the GPU wait for no other rank any more.
    fn abort(&self) {}

    /// How many bytes this rank sends of a value.
    fn bytes_a_value(&self) -> u64 {
        4
    }
}
