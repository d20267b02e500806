//! One bucket's way over the ranks and back: f32 or bf16 on the wire, from CPU or GPU memory.

use super::Wire;
use crate::comm::{Comm, CommError};
use crate::torch::memory::f32_slice;
use half::bf16;
use tch::{Device, Kind, Tensor};

/// Values in what all ranks send at once: MPI counts bytes in 31 bits.
const MESSAGE: usize = 1 << 28;

/// A bucket and, for a GPU, the pinned host memory it passes through.
pub struct Transfer {
    bucket: Tensor,
    staging: Option<Tensor>,
    wire: Wire,
}

impl Transfer {
    /// `bucket`: one-dimensional, f32; its memory is shared.
    pub fn new(bucket: &Tensor, wire: Wire) -> Transfer {
        let pinned = || Tensor::zeros(bucket.size(), (Kind::Float, Device::Cpu)).pin_memory(bucket.device());
        let staging = bucket.device().is_cuda().then(pinned);
        Transfer { bucket: bucket.shallow_clone(), staging, wire }
    }

    /// What this rank sends of it.
    pub fn bytes(&self) -> u64 {
        let of_a_value = if self.wire == Wire::F32 { 4 } else { 2 };
        (self.bucket.numel() * of_a_value) as u64
    }

    /// Replaces the bucket by its sum over ranks, and returns the sum's squared norm.
    pub fn sum(&mut self, comm: &dyn Comm) -> Result<f64, CommError> {
        let Some(staging) = &mut self.staging else {
            sum_host(&mut self.bucket, self.wire, comm)?;
            return Ok(squared_norm(&mut self.bucket));
        };
        // A copy to the host waits for the kernels before it; one to the device is ordered before those after it.
        staging.copy_(&self.bucket);
        sum_host(staging, self.wire, comm)?;
        self.bucket.copy_(staging);
        Ok(squared_norm(staging))
    }
}

fn sum_host(values: &mut Tensor, wire: Wire, comm: &dyn Comm) -> Result<(), CommError> {
    for chunk in f32_slice(values).chunks_mut(MESSAGE / comm.size()) {
        match wire {
            Wire::F32 => comm.sum_f32(chunk)?,
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
    let received = comm.exchange(&bytes)?;
    let mut sum = vec![0f32; part / 2];
    for bytes in received.chunks_exact(part) {
        sum.iter_mut().zip(from_bf16(bytes)).for_each(|(sum, value)| *sum += value);
    }
    let parts = comm.gather(&to_bf16(&sum))?;
    values.iter_mut().zip(parts.iter().flat_map(|bytes| from_bf16(bytes))).for_each(|(value, sum)| *value = sum);
    Ok(())
}

fn to_bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()
}

fn from_bf16(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(2).map(|bytes| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32())
}

/// Σ squares, added up in an order that depends on nothing but the length. Moves a GPU's values to the host.
pub fn squared_norm(values: &mut Tensor) -> f64 {
    if values.device() != Device::Cpu {
        return squared_norm(&mut values.to_device(Device::Cpu));
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
