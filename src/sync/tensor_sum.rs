//! Small sums over ranks of values that live on the device: batch statistics, which a layer waits for.

use super::DistConfig;
use super::backend::Backend;
use super::transport::join_nccl;
use crate::comm::{Comm, CommError};
use crate::torch::failed;
use crate::torch::nccl::Nccl;
use crate::torch::stream::Stream;
use std::sync::Arc;
use tch::{Device, Tensor};

/// Sums small tensors over ranks. Every call is a collective.
pub trait TensorSum: Send + Sync {
    /// How many ranks take part.
    fn ranks(&self) -> usize;

    /// Replaces `values`, one-dimensional and f64, by their element-wise sum over ranks, the same bits on all of them.
    /// What the caller hands over to the device afterwards sees the sum.
    fn all_reduce(&self, values: &mut Tensor) -> Result<(), CommError>;
}

/// Batch statistics take the way of the gradients: by NCCL where those do, over a communicator of their own, else through
/// the memory of the host over `comm`. A collective; nothing else may use `comm`.
pub fn beside(
    backend: &Backend,
    comm: Arc<dyn Comm>,
    device: Device,
    dist: &DistConfig,
) -> anyhow::Result<Arc<dyn TensorSum>> {
    if !backend.is_nccl() {
        return Ok(Arc::new(HostSum(comm)));
    }
    let nccl = join_nccl(&*comm, device, dist.start_timeout_s)?;
    Ok(Arc::new(NcclSum::new(nccl, device, &*comm)))
}

/// By way of the memory of the host.
pub struct HostSum(pub Arc<dyn Comm>);

impl TensorSum for HostSum {
    fn ranks(&self) -> usize {
        self.0.size()
    }

    fn all_reduce(&self, values: &mut Tensor) -> Result<(), CommError> {
        if self.0.size() == 1 {
            return Ok(());
        }
        let mut sums = Vec::<f64>::try_from(&*values).expect("the contract: one-dimensional, f64");
        self.0.all_reduce_f64(&mut sums)?;
        values.copy_(&Tensor::from_slice(&sums));
        Ok(())
    }
}

/// By NCCL, in the stream that the layer computes in: the host waits for nothing.
///
/// The communicator must be another one than that of the gradients, whose sums take other streams in another order.
pub struct NcclSum {
    nccl: Arc<Nccl>,
    device: Device,
    rank: usize,
    ranks: usize,
}

impl NcclSum {
    /// Over the ranks of `nccl`, whose GPU here is `device`; `comm`: the same ranks.
    pub fn new(nccl: Arc<Nccl>, device: Device, comm: &dyn Comm) -> NcclSum {
        NcclSum { nccl, device, rank: comm.rank(), ranks: comm.size() }
    }
}

impl TensorSum for NcclSum {
    fn ranks(&self) -> usize {
        self.ranks
    }

    fn all_reduce(&self, values: &mut Tensor) -> Result<(), CommError> {
        let stream = Stream::current(self.device).map_err(failed("cudaGetDevice", self.rank))?;
        self.nccl.sum(values, &stream)
    }
}
