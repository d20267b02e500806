//! What one rank sees of itself, its launcher and its host.

use super::machine::{self, Mount};
use crate::comm;
use crate::torch::nccl::Library;
use crate::torch::{self, Gpus};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What one rank knows without asking another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub host: String,
    /// Version of this program and the first digits of its file's hash.
    pub program: String,
    /// The libtorch that was loaded: its file.
    pub libtorch: Option<String>,
    pub mpi: Option<String>,
    /// Who started this process, in words.
    pub launcher: String,
    /// How many processes the launcher says it started.
    pub launched: Option<usize>,
    pub container: Option<String>,
    /// Cores that this process may run on, and all of the host.
    pub cores: Vec<usize>,
    pub host_cores: usize,
    /// OMP_NUM_THREADS, where set.
    pub omp_threads: Option<usize>,
    /// GPUs that libtorch sees, and whether the host has an NVIDIA driver.
    pub gpus: usize,
    pub nvidia_driver: bool,
    /// What they are, and why none can be used where there is a driver.
    pub gpu_identities: Vec<String>,
    pub gpu_trouble: Option<String>,
    /// NCCL's version, or why it cannot be loaded; looked for where there are GPUs.
    pub nccl: Option<Result<String, String>>,
    /// InfiniBand or RoCE adapters.
    pub fabrics: Vec<String>,
    /// Whether memory may be locked without limit, which those adapters need.
    pub locks_memory: bool,
    pub shm_bytes: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub mount: Option<Mount>,
}

impl Facts {
    /// Looks around; asks no other rank.
    pub fn collect(folder: &Path) -> Facts {
        let Gpus { identities, trouble } = torch::load_cuda().clone();
        let gpus = identities.len();
        Facts {
            host: comm::hostname(),
            program: program(),
            libtorch: machine::loaded_library("libtorch_cpu.so"),
            mpi: comm::mpi::library_version(),
            launcher: launcher(|name| std::env::var(name).ok()),
            launched: number("OMPI_COMM_WORLD_SIZE")
                .or_else(|| number("SLURM_STEP_NUM_TASKS"))
                .or_else(|| number("PMI_SIZE")),
            container: machine::container(),
            cores: comm::cores(),
            host_cores: machine::host_cores(),
            omp_threads: number("OMP_NUM_THREADS"),
            gpus,
            nvidia_driver: torch::driver::is_present(),
            gpu_identities: identities,
            gpu_trouble: trouble,
            nccl: (gpus > 0).then(|| Library::load().map(|library| library.version())),
            fabrics: machine::names_in("/sys/class/infiniband"),
            locks_memory: machine::locks_memory(),
            shm_bytes: machine::file_system_bytes(Path::new("/dev/shm")).map(|(total, _)| total),
            memory_bytes: machine::memory_bytes(),
            mount: Mount::of(folder),
        }
    }
}

/// Version, and enough of the file's hash to tell two builds apart.
fn program() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match std::env::current_exe().and_then(std::fs::read) {
        Ok(bytes) => format!("{version} ({})", &blake3::hash(&bytes).to_hex()[..12]),
        Err(_) => version.to_owned(),
    }
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.trim().parse().ok()
}

/// Who started this process, by the variables that each launcher leaves.
fn launcher(variable: impl Fn(&str) -> Option<String>) -> String {
    let set = |name: &str| variable(name).is_some();
    let job = variable("SLURM_JOB_ID").map_or(String::new(), |id| format!(" in Slurm job {id}"));
    let name = if set("OMPI_COMM_WORLD_SIZE") && !set("SLURM_STEP_NUM_TASKS") || set("PRTE_LAUNCHED") {
        "mpirun (Open MPI)"
    } else if set("SLURM_STEP_ID") && set("PMIX_RANK") {
        "srun --mpi=pmix"
    } else if set("SLURM_STEP_ID") && set("PMI_RANK") {
        "srun --mpi=pmi2"
    } else if set("OMPI_COMM_WORLD_SIZE") {
        "mpirun (Open MPI)"
    } else if set("PMI_RANK") {
        "mpiexec (Hydra)"
    } else if set("SLURM_STEP_ID") {
        "srun without an MPI plugin"
    } else {
        "none: one process alone"
    };
    format!("{name}{job}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched_with(variables: &[&str]) -> String {
        launcher(|name| variables.contains(&name).then(|| "7".to_owned()))
    }

    #[test]
    fn launchers_are_told_apart() {
        assert_eq!(launched_with(&[]), "none: one process alone");
        assert_eq!(launched_with(&["OMPI_COMM_WORLD_SIZE", "PMIX_RANK"]), "mpirun (Open MPI)");
        assert_eq!(launched_with(&["SLURM_JOB_ID", "OMPI_COMM_WORLD_SIZE"]), "mpirun (Open MPI) in Slurm job 7");
        let step = ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"];
        assert_eq!(launched_with(&[&step[..], &["PMIX_RANK"]].concat()), "srun --mpi=pmix in Slurm job 7");
        assert_eq!(launched_with(&step), "srun without an MPI plugin in Slurm job 7");
    }
}
