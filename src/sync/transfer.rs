//! All buckets of a network on their way over a backend, and the squared norm of the sums.

use super::backend::{Backend, Turn};
use crate::comm::{Comm, CommError};
use crate::torch::memory::f32_slice;
use crate::torch::stream::{Event, Stream};
use crate::torch::{TorchError, failed};
use std::sync::Arc;
use tch::{Device, Kind, TchError, Tensor};

/// The buckets of one rank. One thread uses them, and on a GPU a stream of its own.
pub struct Transfers {
    comm: Arc<dyn Comm>,
    backend: Backend,
    device: Device,
    stream: Stream,
    buckets: Vec<Tensor>,
    /// Of this step's buckets so far.
    squares: Vec<Squares>,
}

/// Σ squares of a sum: a number, or on the GPU until somebody reads it.
enum Squares {
    Known(f64),
    OnDevice(Tensor),
}

impl Transfers {
    /// `buckets`: one-dimensional, f32, all on one device; their memory is shared.
    pub fn new(buckets: &[Tensor], comm: Arc<dyn Comm>, backend: Backend) -> Result<Transfers, TorchError> {
        let device = buckets.first().map_or(Device::Cpu, Tensor::device);
        let buckets = buckets.iter().map(Tensor::shallow_clone).collect();
        Ok(Transfers { comm, backend, device, stream: Stream::new(device)?, buckets, squares: Vec::new() })
    }

    /// What this rank sends of a bucket.
    pub fn bytes(&self, bucket: usize) -> u64 {
        self.buckets[bucket].numel() as u64 * self.backend.bytes_a_value()
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
        let values = &mut self.buckets[bucket];
        self.stream.enter().map_err(failed("cudaSetDevice", rank))?;
        filled.hold(&self.stream).map_err(failed("cudaStreamWaitEvent", rank))?;
        self.backend.sum(values, &Turn { comm, stream: &self.stream, filled })?;
        if self.device == Device::Cpu {
            return Ok(Squares::Known(squared_norm(values)));
        }
        squares_on_device(values).map(Squares::OnDevice).map_err(failed("squared norm", rank))
    }

    fn finish(&mut self) -> Result<f64, CommError> {
        let comm = self.comm.as_ref();
        let last = Event::record(self.device).map_err(failed("cudaEventRecord", comm.rank()))?;
        self.backend.wait(&last, comm)?;
        let number = |squares| match squares {
            Squares::Known(number) => number,
            Squares::OnDevice(number) => number.double_value(&[]),
        };
        let squared_norm: f64 = self.squares.drain(..).map(number).sum();
        if self.device == Device::Cpu {
            return Ok(squared_norm);
        }
        // GPUs of two kinds may add up in two orders: rank 0's is everyone's.
        let mut bytes = squared_norm.to_le_bytes();
        comm.broadcast(0, &mut bytes)?;
        Ok(f64::from_le_bytes(bytes))
    }

    /// After a failure: has the GPU wait for no other rank any more.
    pub fn abort(&self) {
        self.backend.abort();
    }
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
