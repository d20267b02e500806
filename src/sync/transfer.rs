//! The buckets' ways over the ranks and back: through the memory of the host, or from GPU to GPU.

use super::Wire;
use crate::comm::{Comm, CommError};
use crate::torch::memory::{device_values, f32_slice};
use crate::torch::nccl::Nccl;
use crate::torch::stream::{Event, Stream};
use crate::torch::upload::pinned;
use crate::torch::{TorchError, failed};
use half::bf16;
use std::fmt::{self, Display};
use std::sync::Arc;
use tch::{Device, Kind, TchError, Tensor};

/// Values in what all ranks send at once: MPI counts bytes in 31 bits.
const MESSAGE: usize = 1 << 28;

/// How gradients go from rank to rank; [`super::transport::choose`] finds the best.
#[derive(Clone)]
pub enum Backend {
    /// Through the memory of the host, which a GPU copies to and from.
    Host,
    /// By an MPI that reads and writes the memory of GPUs.
    CudaMpi,
    /// By kernels of GPUs, beside those of backward.
    Nccl(Arc<Nccl>),
}

impl Display for Backend {
    fn fmt(&self, text: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Backend::Host => text.write_str("host memory"),
            Backend::CudaMpi => text.write_str("CUDA-aware MPI"),
            Backend::Nccl(nccl) => nccl.fmt(text),
        }
    }
}

/// All buckets of a network on their way. One thread uses it, and on a GPU a stream of its own.
pub struct Transfers {
    comm: Arc<dyn Comm>,
    backend: Backend,
    wire: Wire,
    device: Device,
    stream: Stream,
    buckets: Vec<Bucket>,
    /// Of this step's buckets so far.
    squares: Vec<Squares>,
}

/// A bucket and, where a GPU's goes through the memory of the host, its pinned place there.
struct Bucket {
    values: Tensor,
    staging: Option<Tensor>,
}

/// Σ squares of a sum: a number, or on the GPU until somebody reads it.
enum Squares {
    Known(f64),
    OnDevice(Tensor),
}

impl Transfers {
    /// `buckets`: one-dimensional, f32, all on one device; their memory is shared.
    pub fn new(buckets: &[Tensor], comm: Arc<dyn Comm>, backend: Backend, wire: Wire) -> Result<Transfers, TorchError> {
        let device = buckets.first().map_or(Device::Cpu, Tensor::device);
        let staged = device.is_cuda() && matches!(backend, Backend::Host);
        let bucket = |values: &Tensor| {
            let room = || pinned(&Tensor::zeros(values.size(), (Kind::Float, Device::Cpu)));
            Ok(Bucket { values: values.shallow_clone(), staging: staged.then(room).transpose()? })
        };
        let buckets = buckets.iter().map(bucket).collect::<Result<_, TorchError>>()?;
        Ok(Transfers { comm, backend, wire, device, stream: Stream::new(device)?, buckets, squares: Vec::new() })
    }

    /// What this rank sends of a bucket.
    pub fn bytes(&self, bucket: usize) -> u64 {
        let of_a_value = if self.wire == Wire::F32 { 4 } else { 2 };
        (self.buckets[bucket].values.numel() * of_a_value) as u64
    }

    /// Replaces a bucket, full when `filled` is reached, by its sum over ranks. They go in order, 0 first.
    ///
    /// On a GPU the sum may be under way when this returns. With the last one all are done: the squared norm of the
    /// whole, the same on every rank.
    pub fn sum(&mut self, bucket: usize, filled: &Event) -> Result<Option<f64>, CommError> {
        let squares = self.start(bucket, filled)?;
        self.squares.push(squares);
        (bucket + 1 == self.buckets.len()).then(|| self.finish()).transpose()
    }

    fn start(&mut self, bucket: usize, filled: &Event) -> Result<Squares, CommError> {
        let (comm, rank) = (self.comm.as_ref(), self.comm.rank());
        let Bucket { values, staging } = &mut self.buckets[bucket];
        self.stream.enter().map_err(failed("cudaSetDevice", rank))?;
        filled.hold(&self.stream).map_err(failed("cudaStreamWaitEvent", rank))?;
        match (&self.backend, staging) {
            (Backend::Host, None) => {
                sum_host(values, self.wire, comm)?;
                return Ok(Squares::Known(squared_norm(values)));
            }
            (Backend::Host, Some(staging)) => {
                // Both copies are done when they return.
                staging.copy_(values);
                sum_host(staging, self.wire, comm)?;
                values.copy_(staging);
                return Ok(Squares::Known(squared_norm(staging)));
            }
            (Backend::CudaMpi, _) => {
                // MPI knows nothing of streams.
                filled.wait().map_err(failed("cudaEventQuery", rank))?;
                comm.all_reduce_device(device_values(values))?;
            }
            (Backend::Nccl(nccl), _) => nccl.sum(values, &self.stream)?,
        }
        squares_on_device(values).map(Squares::OnDevice).map_err(failed("squared norm", rank))
    }

    fn finish(&mut self) -> Result<f64, CommError> {
        if let Backend::Nccl(nccl) = &self.backend {
            let all = Event::record(self.device).map_err(failed("cudaEventRecord", self.comm.rank()))?;
            nccl.wait(&all)?;
        }
        let number = |squares| match squares {
            Squares::Known(number) => number,
            Squares::OnDevice(number) => number.double_value(&[]),
        };
        let squared_norm: f64 = self.squares.drain(..).map(number).sum();
        if matches!(self.backend, Backend::Host) {
            return Ok(squared_norm);
        }
        // GPUs of two kinds may add up in two orders: rank 0's is everyone's.
        let mut bytes = squared_norm.to_le_bytes();
        self.comm.broadcast(0, &mut bytes)?;
        Ok(f64::from_le_bytes(bytes))
    }

    /// After a failure: has the GPU wait for no other rank any more.
    pub fn abort(&self) {
        if let Backend::Nccl(nccl) = &self.backend {
            nccl.abort();
        }
    }
}

fn sum_host(values: &mut Tensor, wire: Wire, comm: &dyn Comm) -> Result<(), CommError> {
    for chunk in f32_slice(values).chunks_mut(MESSAGE / comm.size()) {
        match wire {
            Wire::F32 => comm.all_reduce_f32(chunk)?,
            Wire::Bf16 => sum_bf16(chunk, comm)?,
        }
    }
    Ok(())
}

/// Sums values that travel as bf16 and are added up as f32, in rank order.
///
/// Every rank sums one part of the values and sends it to all: two times the values travel over each rank's network,
/// whatever the number of ranks. The sum is rounded to bf16 once more.
fn sum_bf16(values: &mut [f32], comm: &dyn Comm) -> Result<(), CommError> {
    let part = 2 * values.len().div_ceil(comm.size());
    let mut bytes = to_bf16(values);
    bytes.resize(part * comm.size(), 0);
    let received = comm.all_to_all(&bytes)?;
    let mut sum = vec![0f32; part / 2];
    for bytes in received.chunks_exact(part) {
        sum.iter_mut().zip(from_bf16(bytes)).for_each(|(sum, value)| *sum += value);
    }
    let parts = comm.all_gather(&to_bf16(&sum))?;
    values.iter_mut().zip(parts.iter().flat_map(|bytes| from_bf16(bytes))).for_each(|(value, sum)| *value = sum);
    Ok(())
}

fn to_bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
}

fn from_bf16(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(2).map(|bytes| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32())
}

/// Σ squares, added up in an order that depends on nothing but the length and the kind of device.
pub fn squared_norm(values: &mut Tensor) -> f64 {
    if values.device() != Device::Cpu {
        // What cannot be computed is as good as not finite.
        return squares_on_device(values).map_or(f64::NAN, |squares| squares.double_value(&[]));
    }
    const LANES: usize = 16;
    let values = f32_slice(values);
    let mut lanes = [0f64; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f64 = chunks.remainder().iter().map(|value| f64::from(*value).powi(2)).sum();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// The same as one f64 on the device, where it is computed in its turn.
fn squares_on_device(values: &Tensor) -> Result<Tensor, TchError> {
    values.f_to_kind(Kind::Double)?.f_square_()?.f_sum(Kind::Double)
}
