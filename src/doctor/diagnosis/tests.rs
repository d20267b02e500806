//! Each problem is found, named and given a remedy.

use super::*;
use crate::doctor::machine::Mount;
use crate::doctor::probe::Timing;

fn rank_on(host: &str) -> Facts {
    Facts {
        host: host.to_owned(),
        program: "0.1.0 (abc)".to_owned(),
        libtorch: None,
        mpi: Some("Open MPI v5.0.11".to_owned()),
        launcher: "mpirun (Open MPI)".to_owned(),
        launched: None,
        container: None,
        cores: (0..8).collect(),
        host_cores: 8,
        omp_threads: None,
        gpus: 0,
        nvidia_driver: false,
        gpu_identities: Vec::new(),
        gpu_trouble: None,
        nccl: None,
        fabrics: Vec::new(),
        locks_memory: false,
        shm_bytes: Some(8 << 30),
        memory_bytes: None,
        mount: Some(Mount { folder: "/data".to_owned(), kind: "ext4".to_owned(), network: false, free_bytes: 1 << 40 }),
    }
}

fn healthy() -> Measured {
    let allreduce = vec![Timing { bytes: 1 << 24, time_us: 1e3, busbw_gbps: 16.0 }];
    Measured { allreduce, writable: true, ..Measured::default() }
}

/// The only finding that is not ok.
fn only_problem(ranks: &[Facts], measured: &Measured) -> Finding {
    let mut problems: Vec<Finding> =
        diagnose(ranks, measured).into_iter().filter(|finding| finding.level != Level::Ok).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let problem = problems.remove(0);
    assert!(problem.remedy.is_some());
    problem
}

#[test]
fn two_good_hosts_have_no_problem() {
    let findings = diagnose(&[rank_on("a"), rank_on("b")], &healthy());
    assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:?}");
}

#[test]
fn another_build_on_one_rank_forbids_training() {
    let mut ranks = vec![rank_on("a"), rank_on("b")];
    ranks[1].program = "0.1.0 (def)".to_owned();
    let problem = only_problem(&ranks, &healthy());
    assert_eq!((problem.topic, problem.level), ("segdist", Level::Error));
    assert!(problem.found.contains("def) (rank 1)"), "{}", problem.found);
}

#[test]
fn processes_that_do_not_know_each_other_forbid_training() {
    let mut alone = rank_on("a");
    alone.launched = Some(4);
    assert_eq!(only_problem(&[alone], &healthy()).level, Level::Error);
}

#[test]
fn wrong_sums_name_their_ranks() {
    let measured = Measured { wrong_sums: vec![1], ..healthy() };
    let problem = only_problem(&[rank_on("a"), rank_on("b")], &measured);
    assert_eq!((problem.level, problem.found.ends_with("rank 1")), (Level::Error, true));
}

#[test]
fn the_way_of_gradients_is_foretold() {
    let with_gpus = |host, gpus: usize, nccl: Result<&str, &str>| Facts {
        gpus,
        gpu_identities: (0..gpus).map(|index| format!("GPU-{index}")).collect(),
        nccl: Some(nccl.map(str::to_owned).map_err(str::to_owned)),
        ..rank_on(host)
    };
    let told = |ranks: &[Facts]| transport(ranks, &healthy()).found;
    assert!(told(&[rank_on("a"), rank_on("b")]).contains("rank 0 computes on the CPU"));
    let good = with_gpus("a", 2, Ok("2.28.9"));
    assert!(told(&[good.clone(), good.clone()]).contains("NCCL 2.28.9"));
    let shared = with_gpus("a", 1, Ok("2.28.9"));
    assert!(told(&[shared.clone(), shared.clone()]).contains("share a GPU"));
    let other = Facts { gpu_identities: vec!["GPU-9".into()], ..shared.clone() };
    assert!(told(&[shared, other]).contains("NCCL 2.28.9"), "each rank sees a GPU of its own as number 0");
    let lacking = with_gpus("b", 2, Err("libnccl.so.2 cannot be loaded"));
    assert!(told(&[good, lacking]).ends_with("rank 1: libnccl.so.2 cannot be loaded"));
}

#[test]
fn a_driver_without_a_usable_gpu_forbids_training() {
    let mut rank = rank_on("a");
    rank.nvidia_driver = true;
    rank.gpu_trouble = Some("the driver serves CUDA 12.4, libtorch needs 13.0".to_owned());
    let problem = only_problem(&[rank], &healthy());
    assert_eq!((problem.topic, problem.level), ("devices", Level::Error));
    assert!(problem.found.contains("CUDA 12.4"), "{}", problem.found);
}

#[test]
fn a_rank_bound_to_one_core_of_many_is_a_warning() {
    let mut ranks = vec![rank_on("a"), rank_on("a")];
    ranks[0].cores = vec![0];
    ranks[1].cores = vec![1];
    assert_eq!(only_problem(&ranks, &healthy()).topic, "cores");
}

#[test]
fn small_shared_memory_and_slow_clocks_and_blind_hosts_are_warnings() {
    let mut ranks = vec![rank_on("a"), rank_on("a")];
    ranks[0].shm_bytes = Some(64 << 20);
    assert_eq!(only_problem(&ranks, &healthy()).topic, "memory");

    let ranks = [rank_on("a"), rank_on("b")];
    let late = Measured { clock_skew_s: 90.0, clock_rank: 1, ..healthy() };
    assert_eq!(only_problem(&ranks, &late).topic, "clocks");
    let blind = Measured { blind: vec![1], ..healthy() };
    assert!(only_problem(&ranks, &blind).found.contains("rank 1"));
}
