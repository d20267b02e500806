//! DIST.transport: the backend of gradients, chosen, tested and said at the start.
//!
//! Every rank takes the same decision, from what all of them have told each other.

use super::backend::{Backend, CudaMpi, Host, NcclBackend};
use super::{DistConfig, Transport, Wire};
use crate::comm::device::cuda_aware;
use crate::comm::{Comm, CommError, agree, hostname};
use crate::fault::{Agreed, BadInput};
use crate::torch::memory::device_values;
use crate::torch::nccl::{Library, Nccl, UniqueId};
use crate::torch::stream::{Event, Stream};
use anyhow::{Context, anyhow, bail};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Values in the sums that are tested: one, and more than fit one message of any fabric.
const LENGTHS: [i64; 2] = [1, 50_001];

/// Why GPUs do not sum among themselves: a cause that goes on after the backend's name, and what may be done about it.
struct Refusal {
    cause: String,
    remedy: &'static str,
}

/// A backend between GPUs.
struct Row {
    /// The value of DIST.transport that asks for it.
    requested: Transport,
    /// What messages call it.
    name: &'static str,
    /// What speaks against it before it is tried, from every rank's GPU.
    refusal: fn(&[String], &DistConfig) -> Option<Refusal>,
    /// Makes it ready and tests it. What fails on any rank is an [`Agreed`] error of all.
    attempt: fn(&dyn Comm, Device, &DistConfig) -> anyhow::Result<Backend>,
}

/// The backends between GPUs; `auto` tries the first, and every other case takes the host's memory.
const BETWEEN_GPUS: [Row; 2] = [
    Row { requested: Transport::Nccl, name: "nccl", refusal: nccl_refusal, attempt: nccl },
    Row { requested: Transport::CudaMpi, name: "cuda_mpi", refusal: between_gpus_refusal, attempt: cuda_mpi },
];

/// The backend that DIST.transport wants, or the best that works. A collective of ranks with one configuration.
///
/// # Errors
/// On every rank the same line, where a backend that was asked for by name does not work.
pub fn choose(comm: &dyn Comm, device: Device, dist: &DistConfig) -> anyhow::Result<Backend> {
    let host = |reason: &str| say(comm, Arc::new(Host::new(dist.wire)), reason);
    if dist.transport == Transport::Host || dist.transport == Transport::Auto && comm.size() == 1 {
        return Ok(host(""));
    }
    let named = BETWEEN_GPUS.iter().find(|row| row.requested == dist.transport);
    let Row { name, refusal, attempt, .. } = named.unwrap_or(&BETWEEN_GPUS[0]);
    let devices = devices(comm, device)?;
    let refusal = match refusal(&devices, dist) {
        Some(refusal) => refusal,
        None => match attempt(comm, device, dist) {
            Ok(backend) => return Ok(say(comm, backend, "")),
            Err(error) if error.is::<Agreed>() => {
                Refusal { cause: format!("does not work: {error}"), remedy: "see segdist doctor, or " }
            }
            Err(error) => return Err(error),
        },
    };
    let Refusal { cause, remedy } = refusal;
    if named.is_none() {
        let on_gpus = devices.iter().any(|device_name| !device_name.is_empty());
        return Ok(host(&if on_gpus { format!(": {name} {cause}") } else { String::new() }));
    }
    let message = format!("DIST.transport {name} {cause}: {remedy}set DIST.transport auto");
    agree::agree(comm, Err(BadInput(message).into()))
}

/// Tells the user, where there is anyone to send to.
fn say(comm: &dyn Comm, backend: Backend, reason: &str) -> Backend {
    if comm.is_root() && comm.size() > 1 {
        log::info!("gradients are summed by way of {}{reason}", backend.name());
    }
    backend
}

/// Every rank's GPU, by rank; empty for one that computes on the CPU.
fn devices(comm: &dyn Comm, device: Device) -> Result<Vec<String>, CommError> {
    let device_name = match device {
        Device::Cuda(index) => {
            // Launchers may show each rank another GPU as number 0: what it is counts.
            let identity = crate::torch::load_cuda().identities.get(index).cloned().unwrap_or_default();
            format!("{identity} on {}", hostname())
        }
        _ => String::new(),
    };
    Ok(comm
        .all_gather(device_name.as_bytes())?
        .iter()
        .map(|device_name| String::from_utf8_lossy(device_name).into())
        .collect())
}

/// What speaks against any backend between GPUs.
fn between_gpus_refusal(devices: &[String], dist: &DistConfig) -> Option<Refusal> {
    if let Some(rank) = devices.iter().position(String::is_empty) {
        let cause = format!("sums the memory of GPUs, and rank {rank} computes on the CPU");
        return Some(Refusal { cause, remedy: "" });
    }
    let cause = "sends f32, and DIST.wire is bf16".into();
    (dist.wire != Wire::F32).then_some(Refusal { cause, remedy: "set DIST.wire f32, or " })
}

fn nccl_refusal(devices: &[String], dist: &DistConfig) -> Option<Refusal> {
    let refusal = between_gpus_refusal(devices, dist);
    if refusal.is_some() {
        return refusal;
    }
    if dist.elastic {
        let cause = "ends with the first rank that dies, and DIST.elastic is True".into();
        return Some(Refusal { cause, remedy: "" });
    }
    (0..devices.len()).find_map(|rank| {
        let other = devices[..rank].iter().position(|device_name| *device_name == devices[rank])?;
        let cause = format!("needs a GPU for every rank, and rank {other} and rank {rank} share {}", devices[rank]);
        Some(Refusal { cause, remedy: "start one rank a GPU, or " })
    })
}

fn cuda_mpi(comm: &dyn Comm, device: Device, _: &DistConfig) -> anyhow::Result<Backend> {
    agree::agree(comm, cuda_aware().map_err(anyhow::Error::msg))?;
    let right = sums_are_right(comm.rank(), comm.size(), device, |values| {
        Event::record(device)?.wait()?;
        Ok(comm.all_reduce_device(device_values(values))?)
    });
    agree::agree(comm, right)?;
    Ok(Arc::new(CudaMpi))
}

fn nccl(comm: &dyn Comm, device: Device, dist: &DistConfig) -> anyhow::Result<Backend> {
    Ok(Arc::new(NcclBackend(join_nccl(comm, device, dist.start_timeout_s)?)))
}

/// A communicator of NCCL over the ranks of `comm`, whose sums of known values are right. A collective.
pub(super) fn join_nccl(comm: &dyn Comm, device: Device, limit_s: f64) -> anyhow::Result<Arc<Nccl>> {
    let library = agree::agree(comm, Library::load().map_err(anyhow::Error::msg))?;
    let id = agree::from_root(comm, || Ok(library.unique_id()?.as_bytes().to_vec()))?;
    let id = UniqueId::from_bytes(&id).context("rank 0 sent an id of another length")?;
    let (rank, size) = (comm.rank(), comm.size());
    let joined = within(limit_s, device, move |_| Ok(Arc::new(Nccl::join(library, id, rank, size, device)?)));
    let nccl = agree::agree(comm, joined)?;
    let tested = nccl.clone();
    let right = within(limit_s, device, move |stream| {
        sums_are_right(rank, size, device, |values| {
            tested.sum(values, stream)?;
            Ok(tested.wait(&Event::record(device)?)?)
        })
    });
    // Where it fails on one rank, the GPUs of the others may wait for it.
    agree::agree(comm, right).inspect_err(|_| nccl.abort())?;
    Ok(nccl)
}

/// What `work` comes to within `seconds` on a thread and a stream of its own. Where a rank is missing it hangs, and is
/// left behind.
fn within<T: Send + 'static>(
    seconds: f64,
    device: Device,
    work: impl FnOnce(&Stream) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (send, receive) = channel();
    let on_stream = move || {
        let stream = Stream::new(device)?;
        stream.enter()?;
        work(&stream)
    };
    std::thread::Builder::new().name("segdist-nccl".into()).spawn(move || drop(send.send(on_stream())))?;
    let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    receive.recv_timeout(limit).map_err(|_| anyhow!("no answer for {seconds} s (DIST.start_timeout_s)"))?
}

/// Sums values that every rank can predict: small integers, exact in any order of additions.
fn sums_are_right(
    rank: usize,
    size: usize,
    device: Device,
    mut sum: impl FnMut(&mut Tensor) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let factor = |rank: usize| (rank % 16 + 1) as f64;
    let total: f64 = (0..size).map(factor).sum();
    for length in LENGTHS {
        let pattern = Tensor::arange(length, (Kind::Float, device)).remainder(7.0) + 1.0;
        let mut values = &pattern * factor(rank);
        sum(&mut values)?;
        if !values.equal(&(pattern * total)) {
            bail!("sums of known values come out wrong");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;
    use crate::fault;

    fn cause(requested: Transport, devices: &[&str], dist: &DistConfig) -> Option<String> {
        let devices: Vec<String> = devices.iter().map(|device_name| device_name.to_string()).collect();
        let row = BETWEEN_GPUS.iter().find(|row| row.requested == requested).unwrap_or(&BETWEEN_GPUS[0]);
        (row.refusal)(&devices, dist).map(|refusal| refusal.cause)
    }

    #[test]
    fn nccl_is_tried_with_a_gpu_for_every_rank_and_not_otherwise() {
        let plain = DistConfig::default();
        let two = ["GPU 0 on a", "GPU 1 on a"];
        assert_eq!(cause(Transport::Auto, &two, &plain), None);
        let shared = cause(Transport::Nccl, &["GPU 0 on a", "GPU 0 on b", "GPU 0 on a"], &plain).unwrap();
        assert!(shared.ends_with("rank 0 and rank 2 share GPU 0 on a"), "{shared}");
        let elastic = DistConfig { elastic: true, ..plain.clone() };
        assert!(cause(Transport::Auto, &two, &elastic).unwrap().contains("DIST.elastic"));
        let bf16 = DistConfig { wire: Wire::Bf16, ..plain };
        assert!(cause(Transport::Nccl, &two, &bf16).unwrap().contains("DIST.wire"));
    }

    #[test]
    fn cuda_mpi_shares_gpus_and_outlives_ranks_but_sends_f32_alone() {
        let elastic = DistConfig { elastic: true, ..DistConfig::default() };
        assert_eq!(cause(Transport::CudaMpi, &["GPU 0 on a", "GPU 0 on a"], &elastic), None);
        let bf16 = DistConfig { wire: Wire::Bf16, ..elastic };
        assert!(cause(Transport::CudaMpi, &["GPU 0 on a", "GPU 1 on a"], &bf16).unwrap().contains("DIST.wire"));
    }

    #[test]
    fn on_the_cpu_auto_takes_the_host_and_a_forced_way_fails_alike_on_all_ranks() {
        let on_cpu = |transport| {
            threads::run(2, move |comm| {
                let dist = DistConfig { transport, ..DistConfig::default() };
                choose(&*comm, Device::Cpu, &dist).map(|backend| backend.name())
            })
        };
        for transport in [Transport::Auto, Transport::Host] {
            assert!(on_cpu(transport).iter().all(|backend| matches!(backend, Ok(name) if name == "host memory")));
        }
        for (transport, name) in [(Transport::Nccl, "nccl"), (Transport::CudaMpi, "cuda_mpi")] {
            let expected = format!(
                "DIST.transport {name} sums the memory of GPUs, and rank 0 computes on the CPU: set DIST.transport auto"
            );
            for error in on_cpu(transport).into_iter().map(Result::unwrap_err) {
                assert_eq!((error.to_string(), fault::exit_code(&error)), (expected.clone(), 2));
            }
        }
    }

    #[test]
    fn a_sum_that_is_wrong_in_one_value_fails_the_test_of_known_values() {
        let test = |ranks, wrong: bool| {
            threads::run(ranks, move |comm| {
                sums_are_right(comm.rank(), comm.size(), Device::Cpu, |values| {
                    comm.all_reduce_f32(&mut crate::torch::memory::f32_slice(values))?;
                    if wrong {
                        let _ = values.get(values.size()[0] - 1).fill_(-1.0);
                    }
                    Ok(())
                })
                .is_ok()
            })
        };
        assert_eq!(test(3, false), [true; 3]);
        assert_eq!(test(2, true), [false; 2]);
    }

    #[test]
    fn what_hangs_is_left_behind() {
        let slow = within(0.05, Device::Cpu, |_| {
            std::thread::sleep(Duration::from_secs(5));
            Ok(())
        });
        assert!(slow.unwrap_err().to_string().contains("DIST.start_timeout_s"));
        assert_eq!(within(5.0, Device::Cpu, |_| Ok(7)).unwrap(), 7);
    }
}
