//! Where this rank computes: its device and its share of the host's cores.

use crate::comm::{self, Comm, agree};
use crate::sync::{DeviceKind, DistConfig};
use crate::torch::{self, Gpus, stream};
use crate::{bad_input, fault::BadInput};
use tch::Device;

/// A rank's place on its host.
#[derive(Clone, Debug)]
pub struct Place {
    /// The host's name.
    pub host: String,
    /// A GPU that no other rank of the host has, or the CPU.
    pub device: Device,
    /// Threads for computing, and at most as many for loading.
    pub threads: usize,
}

impl Place {
    /// Finds this rank's device and cores, and makes the device that of the calling thread. A collective.
    pub fn find(comm: &dyn Comm, dist: &DistConfig) -> anyhow::Result<Place> {
        let threads = threads(comm)?;
        tch::set_num_threads(threads as i32);
        let host = comm::hostname();
        let gpus = agree::agree(comm, visible(&host, dist.device))?;
        let mine = serde_json::to_vec(&(&host, &gpus))?;
        let seen: Vec<(String, Vec<String>)> =
            comm.all_gather(&mine)?.iter().map(|bytes| serde_json::from_slice(bytes)).collect::<Result<_, _>>()?;
        let local: Vec<&[String]> =
            seen.iter().filter(|(other, _)| *other == host).map(|(_, gpus)| gpus.as_slice()).collect();
        let before = seen[..comm.rank()].iter().filter(|(other, _)| *other == host).count();
        let device = if gpus.is_empty() {
            Device::Cpu
        } else {
            let taken = assign(&local, dist.share_gpu).map_err(|cause| BadInput(format!("{host}: {cause}")))?;
            Device::Cuda(taken[before])
        };
        stream::enter_device(device)?;
        Ok(Place { host, device, threads })
    }
}

/// What the GPUs are that DIST.device lets this rank use; none for the CPU.
fn visible(host: &str, wanted: DeviceKind) -> anyhow::Result<Vec<String>> {
    if wanted == DeviceKind::Cpu {
        return Ok(Vec::new());
    }
    let Gpus { identities, trouble } = torch::load_cuda();
    if let Some(trouble) = trouble {
        bad_input!("{host} has an NVIDIA driver, but no GPU can be used: {trouble}; or set DIST.device cpu");
    }
    if wanted == DeviceKind::Cuda && identities.is_empty() {
        bad_input!("DIST.device cuda: {host} has no NVIDIA driver; set DIST.device auto to compute on its CPU");
    }
    Ok(identities.clone())
}

/// For each rank of a host, by what GPUs it sees: the index among them of the one it takes. Launchers show all ranks the
/// same ones, or each rank its own as number 0.
fn assign(visible: &[&[String]], share: bool) -> Result<Vec<usize>, String> {
    let mut taken: Vec<&String> = Vec::new();
    for gpus in visible {
        let users = |gpu: &String| taken.iter().filter(|other| **other == gpu).count();
        let best = gpus.iter().min_by_key(|gpu| users(gpu)).ok_or("one rank sees GPUs and another none")?;
        if users(best) > 0 && !share {
            let mut all: Vec<&String> = visible.iter().flat_map(|gpus| gpus.iter()).collect();
            all.sort();
            all.dedup();
            let (ranks, gpus) = (visible.len(), all.len());
            return Err(format!(
                "{ranks} ranks for {gpus} GPUs: start at most {gpus} ranks a node, or set DIST.share_gpu True"
            ));
        }
        taken.push(best);
    }
    let index = |(gpus, gpu): (&&[String], &String)| gpus.iter().position(|other| other == gpu).unwrap_or(0);
    Ok(visible.iter().zip(taken).map(index).collect())
}

/// OMP_NUM_THREADS where it is set; else this process's cores, divided among the ranks that have the same ones.
fn threads(comm: &dyn Comm) -> anyhow::Result<usize> {
    let cores = comm::cores();
    let mine = format!("{} {cores:?}", comm::hostname());
    let sharers = comm.all_gather(mine.as_bytes())?.iter().filter(|other| other.as_slice() == mine.as_bytes()).count();
    let wished = std::env::var("OMP_NUM_THREADS").ok().and_then(|text| text.parse().ok()).filter(|&count| count > 0);
    Ok(wished.unwrap_or((cores.len() / sharers).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(visible: &[&[&str]], share: bool) -> Result<Vec<usize>, String> {
        let owned: Vec<Vec<String>> =
            visible.iter().map(|gpus| gpus.iter().map(ToString::to_string).collect()).collect();
        assign(&owned.iter().map(Vec::as_slice).collect::<Vec<_>>(), share)
    }

    #[test]
    fn ranks_that_see_the_same_gpus_take_one_each() {
        assert_eq!(assigned(&[&["a", "b", "c"], &["a", "b", "c"]], false), Ok(vec![0, 1]));
    }

    #[test]
    fn a_rank_that_sees_one_gpu_of_its_own_takes_it() {
        assert_eq!(assigned(&[&["a"], &["b"], &["c"]], false), Ok(vec![0, 0, 0]));
        // Two jobs' views of one host, the numbers of one of them turned round.
        assert_eq!(assigned(&[&["b", "a"], &["a", "b"]], false), Ok(vec![0, 0]));
    }

    #[test]
    fn more_ranks_than_gpus_are_refused_or_share_them_evenly() {
        let cause = assigned(&[&["a"], &["a"], &["b"]], false).unwrap_err();
        assert!(cause.starts_with("3 ranks for 2 GPUs"), "{cause}");
        assert_eq!(assigned(&[&["a", "b"][..]; 5], true), Ok(vec![0, 1, 0, 1, 0]));
    }
}
