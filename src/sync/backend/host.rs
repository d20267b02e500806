//! Sums through the memory of the host, which a GPU copies to and from.

use super::{GradientBackend, Turn};
use crate::comm::{Comm, CommError};
use crate::sync::Wire;
use crate::torch::failed;
use crate::torch::memory::f32_slice;
use crate::torch::upload::pinned;
use half::bf16;
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// Values in what all ranks send at once: MPI counts bytes in 31 bits.
const MESSAGE: usize = 1 << 28;

/// Plain MPI.
pub struct Host {
    wire: Wire,
    /// Pinned memory as large as the largest bucket of a GPU so far.
    staging: Mutex<Option<Tensor>>,
}

impl Host {
    /// Values travel as `wire`.
    pub fn new(wire: Wire) -> Host {
        Host { wire, staging: Mutex::default() }
    }
}

impl GradientBackend for Host {
    fn name(&self) -> String {
        "host memory".into()
    }

    fn sum(&self, bucket: &mut Tensor, turn: &Turn) -> Result<(), CommError> {
        if bucket.device() == Device::Cpu {
            return sum(bucket, self.wire, turn.comm);
        }
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let length = bucket.numel() as i64;
        if staging.as_ref().is_none_or(|staging| staging.size()[0] < length) {
            let room = pinned(&Tensor::zeros([length], (Kind::Float, Device::Cpu)));
            *staging = Some(room.map_err(failed("pinned memory", turn.comm.rank()))?);
        }
        let staging = staging.as_ref().expect("made above");
        // Both copies are done when they return.
        let mut values = staging.narrow(0, 0, length);
        values.copy_(bucket);
        sum(&mut values, self.wire, turn.comm)?;
        bucket.copy_(&values);
        Ok(())
    }

    fn bytes_a_value(&self) -> u64 {
        match self.wire {
            Wire::F32 => 4,
            Wire::Bf16 => 2,
        }
    }
}

fn sum(values: &mut Tensor, wire: Wire, comm: &dyn Comm) -> Result<(), CommError> {
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
