//! From facts to findings: pure, one function a topic, each problem with its remedy.

use super::facts::Facts;
use super::probe::Measured;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warning,
    /// Training here is impossible.
    Error,
}

/// One line of the report.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub topic: &'static str,
    pub level: Level,
    pub found: String,
    pub remedy: Option<String>,
}

const GIB: f64 = (1u64 << 30) as f64;
/// Open MPI and NCCL keep their buffers between ranks of a host in /dev/shm.
const SHM_PER_RANK: u64 = 128 << 20;

/// All topics, in the order of the report. `ranks` holds every rank's facts and is not empty.
pub fn diagnose(ranks: &[Facts], measured: &Measured) -> Vec<Finding> {
    let mut findings = vec![
        program(ranks),
        launcher(ranks),
        mpi(ranks),
        placement(ranks),
        cores(ranks),
        devices(ranks),
        libtorch(ranks),
        transport(ranks, measured),
        bandwidth(ranks, measured),
        network(ranks),
        clock(measured),
        files(ranks, measured),
    ];
    findings.extend(shared_memory(ranks));
    findings
}

fn ok(topic: &'static str, found: String) -> Finding {
    Finding { topic, level: Level::Ok, found, remedy: None }
}

fn warning(topic: &'static str, found: String, remedy: &str) -> Finding {
    Finding { topic, level: Level::Warning, found, remedy: Some(remedy.to_owned()) }
}

fn error(topic: &'static str, found: String, remedy: &str) -> Finding {
    Finding { topic, level: Level::Error, found, remedy: Some(remedy.to_owned()) }
}

/// Hosts in order of their first rank, each with its ranks.
fn hosts(ranks: &[Facts]) -> Vec<(&str, Vec<usize>)> {
    let mut hosts: Vec<(&str, Vec<usize>)> = Vec::new();
    for (rank, facts) in ranks.iter().enumerate() {
        match hosts.iter_mut().find(|(host, _)| *host == facts.host) {
            Some((_, local)) => local.push(rank),
            None => hosts.push((&facts.host, vec![rank])),
        }
    }
    hosts
}

/// Names the ranks of each value where ranks differ: `5.0.11 (ranks 0, 1), 4.1.4 (rank 2)`.
fn differing(ranks: &[Facts], value: impl Fn(&Facts) -> String) -> Option<String> {
    let mut holders: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (rank, facts) in ranks.iter().enumerate() {
        holders.entry(value(facts)).or_default().push(rank);
    }
    let describe = |(value, ranks): (&String, &Vec<usize>)| format!("{value} ({})", named(ranks));
    (holders.len() > 1).then(|| holders.iter().map(describe).collect::<Vec<_>>().join(", "))
}

/// `rank 3`, or `ranks 1, 2, ... and 9 more`.
fn named(ranks: &[usize]) -> String {
    let shown: Vec<String> = ranks.iter().take(8).map(usize::to_string).collect();
    let more = ranks.len().saturating_sub(8);
    let word = if ranks.len() == 1 { "rank" } else { "ranks" };
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{word} {}{rest}", shown.join(", "))
}

fn program(ranks: &[Facts]) -> Finding {
    match differing(ranks, |facts| facts.program.clone()) {
        None => ok("segdist", ranks[0].program.clone()),
        Some(found) => {
            error("segdist", found, "install the same program on every host, or start it from a shared folder")
        }
    }
}

fn launcher(ranks: &[Facts]) -> Finding {
    let first = &ranks[0];
    let place = first.container.as_ref().map_or(String::new(), |kind| format!(", in a container ({kind})"));
    let found = format!("{}{place}", first.launcher);
    match first.launched {
        Some(count) if count > 1 && ranks.len() == 1 => error(
            "launcher",
            format!("{found}: it started {count} processes, but each thinks that it is alone"),
            "launcher and MPI library do not fit: use the mpirun of the library named below, or srun --mpi=pmix \
             (srun --mpi=list shows what the cluster has)",
        ),
        _ => ok("launcher", found),
    }
}

fn mpi(ranks: &[Facts]) -> Finding {
    // The library's text goes on with the package and the date.
    let name = |text: &String| text.split(',').next().unwrap_or_default().to_owned();
    let text = |facts: &Facts| facts.mpi.as_ref().map_or_else(|| "unknown".to_owned(), name);
    if let Some(found) = differing(ranks, text) {
        return warning(
            "MPI",
            found,
            "use one MPI library on every host: launch/setup.sh --mpi wheel gives the same everywhere",
        );
    }
    let level = if ranks.len() > 1 { ", thread level multiple" } else { "" };
    ok("MPI", format!("{}{level}", text(&ranks[0])))
}

fn placement(ranks: &[Facts]) -> Finding {
    let hosts = hosts(ranks);
    let list: Vec<String> = hosts.iter().take(8).map(|(host, local)| format!("{host}: {}", named(local))).collect();
    let more = if hosts.len() > 8 { format!("; and {} more hosts", hosts.len() - 8) } else { String::new() };
    let found = format!("{} on {} host(s); {}{more}", ranks.len(), hosts.len(), list.join("; "));
    let counts: Vec<usize> = hosts.iter().map(|(_, local)| local.len()).collect();
    if counts.iter().min() == counts.iter().max() {
        return ok("ranks", found);
    }
    warning(
        "ranks",
        found,
        "hosts have different numbers of ranks: set equal slots= in the hosts file, or --map-by ppr:N:node",
    )
}

fn cores(ranks: &[Facts]) -> Finding {
    let first = &ranks[0];
    let bound = first.cores.len() < first.host_cores;
    let found = format!(
        "rank 0 may use {} of {}'s {} cores{}",
        first.cores.len(),
        first.host,
        first.host_cores,
        if bound { format!(": {:?}", first.cores) } else { String::new() }
    );
    for (host, local) in hosts(ranks) {
        let mut used: Vec<usize> = local.iter().flat_map(|&rank| ranks[rank].cores.clone()).collect();
        used.sort_unstable();
        used.dedup();
        let facts = &ranks[local[0]];
        let idle = facts.host_cores.saturating_sub(used.len());
        if local.len() > used.len() {
            let found = format!("{host}: {} ranks on {} core(s)", local.len(), used.len());
            return warning("cores", found, "ranks wait for one another: start fewer a host, or mpirun --bind-to none");
        }
        if idle >= used.len() && facts.container.is_none() {
            let found = format!("{host}: its ranks are bound to {} of {} cores", used.len(), facts.host_cores);
            return warning(
                "cores",
                found,
                "mpirun --bind-to none, or --map-by ppr:N:node:PE=CORES; srun --cpus-per-task=CORES",
            );
        }
        let threads: usize = local.iter().filter_map(|&rank| ranks[rank].omp_threads).sum();
        if threads > used.len() {
            let found = format!("{host}: OMP_NUM_THREADS asks for {threads} threads on {} cores", used.len());
            return warning("cores", found, "leave OMP_NUM_THREADS unset: each rank takes its share of the cores");
        }
    }
    ok("cores", found)
}

fn devices(ranks: &[Facts]) -> Finding {
    if let Some((facts, trouble)) = ranks.iter().find_map(|facts| Some((facts, facts.gpu_trouble.as_ref()?))) {
        let found = format!("{} has an NVIDIA driver, but no GPU can be used: {trouble}", facts.host);
        return error(
            "devices",
            found,
            "in a container use the image built with CUDA=1 and --gpus all; or DIST.device cpu",
        );
    }
    for (host, local) in hosts(ranks) {
        let gpus = distinct_gpus(ranks, &local);
        if gpus > 0 && local.len() > gpus {
            let found = format!("{host}: {} ranks for {gpus} GPU(s)", local.len());
            return warning("devices", found, "start one rank per GPU, or set DIST.share_gpu True");
        }
    }
    match (ranks[0].gpus, differing(ranks, |facts| format!("{} GPU(s)", facts.gpus))) {
        (_, Some(found)) => warning("devices", found, "training goes at the pace of the slowest rank"),
        (0, None) => ok("devices", "no GPU: training runs on the CPU".to_owned()),
        (gpus, None) => ok("devices", format!("{gpus} GPU(s) a host")),
    }
}

/// Launchers show the ranks of a host the same GPUs, or each its own.
fn distinct_gpus(ranks: &[Facts], local: &[usize]) -> usize {
    let all: BTreeSet<&String> = local.iter().flat_map(|&rank| &ranks[rank].gpu_identities).collect();
    all.len()
}

fn libtorch(ranks: &[Facts]) -> Finding {
    // The program refuses to load another release, so the file says all there is to say.
    let file = |facts: &Facts| facts.libtorch.clone().unwrap_or_else(|| "linked into the program".to_owned());
    ok("libtorch", format!("2.11.0, {}", file(&ranks[0])))
}

fn transport(ranks: &[Facts], measured: &Measured) -> Finding {
    if ranks.len() == 1 {
        return ok("transport", "one rank alone: nothing to exchange".to_owned());
    }
    if measured.wrong_sums.is_empty() {
        return ok("transport", format!("sums of known values are right on every rank; {}", way(ranks)));
    }
    error(
        "transport",
        format!("sums of known values are wrong on {}", named(&measured.wrong_sums)),
        "try mpirun --mca pml ob1 --mca btl self,sm,tcp; if that helps, the fabric's driver or UCX is at fault",
    )
}

/// What DIST.transport auto takes here, as far as it can be known before a training tests it.
fn way(ranks: &[Facts]) -> String {
    let host = |cause: String| format!("gradients go through the memory of the host: {cause}");
    if let Some(rank) = ranks.iter().position(|facts| facts.gpus == 0) {
        return host(format!("rank {rank} computes on the CPU"));
    }
    if let Some((name, _)) = hosts(ranks).iter().find(|(_, local)| local.len() > distinct_gpus(ranks, local)) {
        return host(format!("ranks share a GPU on {name}"));
    }
    let lacking = ranks.iter().enumerate().find_map(|(rank, facts)| Some((rank, facts.nccl.as_ref()?.as_ref().err()?)));
    match (lacking, &ranks[0].nccl) {
        (None, Some(Ok(version))) => format!("gradients go by NCCL {version}, if it passes a training's own test"),
        (Some((rank, cause)), _) => host(format!("rank {rank}: {cause}")),
        _ => host("nobody has looked for NCCL".into()),
    }
}

fn bandwidth(ranks: &[Facts], measured: &Measured) -> Finding {
    let (Some(small), Some(large)) = (measured.allreduce.first(), measured.allreduce.last()) else {
        return ok("bandwidth", "not measured".to_owned());
    };
    if ranks.len() == 1 {
        return ok("bandwidth", "one rank alone: nothing to measure".to_owned());
    }
    let (between, remedy) = if hosts(ranks).len() > 1 {
        (
            "between hosts",
            "name the fast interface (launch/mpirun.sh --interface IFACE); larger TRAIN.batch_size_per_gpu hides more \
             of it; DIST.wire bf16 halves it",
        )
    } else {
        ("within this host", "its cores are busy with something else (see top), or too many ranks share them")
    };
    let found = format!(
        "{:.2} GB/s {between} (sum of {} MiB in {:.1} ms; one value in {:.0} µs)",
        large.busbw_gbps,
        large.bytes >> 20,
        large.time_us / 1e3,
        small.time_us
    );
    // Gigabit Ethernet carries 0.12 GB/s; a step of the smallest network sends 50 MB.
    if large.busbw_gbps >= 0.1 {
        return ok("bandwidth", found);
    }
    warning("bandwidth", found, remedy)
}

fn network(ranks: &[Facts]) -> Finding {
    let fabrics = &ranks[0].fabrics;
    if fabrics.is_empty() {
        return ok("network", "TCP (no InfiniBand or RoCE adapter)".to_owned());
    }
    let found = format!("InfiniBand or RoCE adapters {}", fabrics.join(", "));
    match ranks.iter().find(|facts| !facts.locks_memory) {
        None => ok("network", found),
        Some(facts) => warning(
            "network",
            format!("{found}, but {} limits locked memory", facts.host),
            "ulimit -l unlimited (limits.conf; PropagateResourceLimitsExcept=MEMLOCK in slurm.conf; docker --ulimit memlock=-1)",
        ),
    }
}

fn clock(measured: &Measured) -> Finding {
    let found = format!("at most {:.1} ms apart", measured.clock_skew_s * 1e3);
    if measured.clock_skew_s < 1.0 {
        return ok("clocks", found);
    }
    warning(
        "clocks",
        format!("rank {} is {:.1} s off rank 0", measured.clock_rank, measured.clock_skew_s),
        "run chrony or ntpd on every host",
    )
}

fn files(ranks: &[Facts], measured: &Measured) -> Finding {
    let Some(mount) = &ranks[0].mount else {
        return warning(
            "files",
            "the folder cannot be examined on rank 0".to_owned(),
            "start where the data and DIR are",
        );
    };
    let found = format!("{} on {}, {:.0} GiB free", mount.folder, mount.kind, mount.free_bytes as f64 / GIB);
    if !measured.writable {
        return warning(
            "files",
            format!("{found}; rank 0 may not write there"),
            "set DIR to a folder that may be written",
        );
    }
    if !measured.blind.is_empty() {
        let found = format!("{found}; not the same folder on {}", named(&measured.blind));
        return warning(
            "files",
            found,
            "data must be readable on every host, at the same path; DIR must be shared or rank 0's",
        );
    }
    if mount.free_bytes < 1 << 30 {
        return warning("files", found, "less than 1 GiB is free: checkpoints need room (CHECKPOINT.keep_last)");
    }
    if mount.network {
        return ok(
            "files",
            format!("{found}; over the network: shards are read with pread, DATASET.stage copies them to a local disk"),
        );
    }
    ok("files", found)
}

fn shared_memory(ranks: &[Facts]) -> Option<Finding> {
    let short = hosts(ranks).into_iter().find_map(|(host, local)| {
        let bytes = ranks[local[0]].shm_bytes?;
        (local.len() > 1 && bytes < SHM_PER_RANK * local.len() as u64).then(|| (host.to_owned(), bytes, local.len()))
    });
    let (host, bytes, count) = short?;
    let found = format!("{host}: /dev/shm has {} MiB for {count} ranks", bytes >> 20);
    Some(warning("memory", found, "docker run --shm-size 1g (compose: shm_size), or --ipc host"))
}

#[cfg(test)]
mod tests;
