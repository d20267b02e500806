//! Where this rank computes: its device and its share of the host's cores.

use crate::comm::{self, Comm};
use crate::sync::DistConfig;
use crate::{bad_input, torch};
use tch::Device;

/// A rank's place on its host.
#[derive(Clone, Debug)]
pub struct Place {
    /// The host's name.
    pub host: String,
    /// GPU of this rank's number on the host, or the CPU.
    pub device: Device,
    /// Threads for computing, and at most as many for loading.
    pub threads: usize,
}

impl Place {
    /// Finds the device of this rank's number on its host, and its cores. A collective.
    pub fn find(comm: &dyn Comm, dist: &DistConfig) -> anyhow::Result<Place> {
        let (local_rank, local_size) = comm::local_place(comm)?;
        let threads = threads(comm)?;
        tch::set_num_threads(threads as i32);
        let host = comm::hostname();
        torch::load_cuda();
        let gpus = tch::Cuda::device_count().max(0) as usize;
        if gpus == 0 {
            return Ok(Place { host, device: Device::Cpu, threads });
        }
        if local_size > gpus && !dist.share_gpu {
            bad_input!(
                "{host}: {local_size} ranks for {gpus} GPUs: start at most {gpus} ranks a node, or set DIST.share_gpu True"
            );
        }
        Ok(Place { host, device: Device::Cuda(local_rank % gpus), threads })
    }
}

/// OMP_NUM_THREADS where it is set; else this process's cores, divided among the ranks that have the same ones.
fn threads(comm: &dyn Comm) -> anyhow::Result<usize> {
    let cores = comm::cores();
    let mine = format!("{} {cores:?}", comm::hostname());
    let sharers = comm.all_gather(mine.as_bytes())?.iter().filter(|other| other.as_slice() == mine.as_bytes()).count();
    let wished = std::env::var("OMP_NUM_THREADS").ok().and_then(|text| text.parse().ok()).filter(|&count| count > 0);
    Ok(wished.unwrap_or((cores.len() / sharers).max(1)))
}
