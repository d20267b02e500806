//! What ranks exchange during a step: gradient buckets and batch statistics.

pub mod backend;
pub mod batch_norm;
pub mod buckets;
pub mod replicas;
pub mod tensor_sum;
mod transfer;
pub mod transport;

use crate::fault::require;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How ranks talk to each other.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DistConfig {
    /// How gradients go between ranks. host: through the memory of the host; nccl: from GPU to GPU, one rank for each;
    /// cuda_mpi: by an MPI that reads the memory of GPUs. auto: nccl where it works, else host.
    pub transport: Transport,
    /// Size of a gradient bucket in MiB; the first and the last are at most 1 MiB.
    pub bucket_mb: f64,
    /// Send buckets while backward goes on; False, after it, is there to measure what that saves.
    pub overlap: bool,
    /// Type of gradients between ranks: f32 or bf16.
    pub wire: Wire,
    /// Where ranks compute. cuda: on GPUs, or not at all; cpu: on cores, whatever GPUs there are. auto: on GPUs where the
    /// host has an NVIDIA driver.
    pub device: DeviceKind,
    /// Allow more ranks than GPUs on a node.
    pub share_gpu: bool,
    /// Seconds until the first step after which a silent rank ends the job.
    pub start_timeout_s: f64,
    /// Seconds without progress of a rank, later, after which the job ends.
    pub stall_timeout_s: f64,
    /// Go on with the ranks that are left when one dies (Open MPI 5, under `mpirun --with-ft ulfm`).
    pub elastic: bool,
    /// Steps between comparisons of all parameters over ranks; 0: never.
    pub check_replicas: u64,
    /// A timeline of the first 100 steps for chrome://tracing or ui.perfetto.dev: rank 3 writes trace-3.json for
    /// trace.json. Empty: none.
    pub trace: PathBuf,
}

impl DistConfig {
    /// The first value that cannot be meant, in one line that names the key.
    pub fn validate(&self) -> Result<(), String> {
        require(self.bucket_mb > 0.0 && self.bucket_mb <= 65536.0, || {
            format!("DIST.bucket_mb is {}: set it to more than 0, at most 65536", self.bucket_mb)
        })?;
        require(self.start_timeout_s > 0.0 && self.stall_timeout_s > 0.0, || {
            "DIST.start_timeout_s and DIST.stall_timeout_s must be more than 0 seconds".into()
        })
    }

    /// `bucket_mb` in bytes.
    pub fn bucket_bytes(&self) -> usize {
        (self.bucket_mb * 1_048_576.0) as usize
    }
}

/// DIST.transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Transport {
    Auto,
    Host,
    CudaMpi,
    Nccl,
}

/// DIST.device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DeviceKind {
    Auto,
    Cpu,
    Cuda,
}

/// DIST.wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Wire {
    F32,
    Bf16,
}

impl Default for DistConfig {
    fn default() -> Self {
        DistConfig {
            transport: Transport::Auto,
            bucket_mb: 25.0,
            overlap: true,
            wire: Wire::F32,
            device: DeviceKind::Auto,
            share_gpu: false,
            start_timeout_s: 300.0,
            stall_timeout_s: 100.0,
            elastic: false,
            check_replicas: 0,
            trace: PathBuf::new(),
        }
    }
}
