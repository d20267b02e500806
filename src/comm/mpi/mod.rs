//! MPI processes as ranks; only this module, `ulfm` and `device` name MPI.

mod communicator;

use super::{Comm, CommError};
use communicator::MpiComm;
use mpi::environment::Universe;
use mpi::traits::AsRaw;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for MPI_Finalize, once all ranks are there.
const FINALIZE: Duration = Duration::from_secs(20);

/// What Open MPI is told, unless the user has said something else.
const SETTINGS: [(&str, &str); 2] = [
    // Several ranks may share a core: let MPI's own waits (finalisation, the launcher's barrier) yield it.
    ("OMPI_MCA_mpi_yield_when_idle", "1"),
    // For sums in place it takes a binomial tree, which sends all values twice over one direction of a link at a time.
    ("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "rabenseifner"),
];

/// Variables that a launcher sets for each process it starts.
const LAUNCHERS: [&str; 5] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_ID", "MPI_LOCALNRANKS"];

/// Whether this process was started by an MPI launcher (mpirun, srun with an MPI plugin).
pub fn launched() -> bool {
    LAUNCHERS.iter().any(|name| std::env::var_os(name).is_some())
}

/// The MPI library's name and version.
pub fn library_version() -> Option<String> {
    let text = mpi::environment::library_version().ok()?;
    // MPICH puts a tab between its name and its number.
    Some(text.lines().next().unwrap_or_default().replace('\t', " "))
}

/// MPI between initialisation and finalisation.
pub struct Session {
    universe: Universe,
    comm: Arc<MpiComm>,
}

impl Session {
    /// Initialises MPI for calls from several threads.
    pub fn start() -> Result<Session, CommError> {
        for (name, value) in SETTINGS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()) {
            // SAFETY: called from main before any other thread exists.
            unsafe { std::env::set_var(name, value) };
        }
        let failed = |cause: &str| CommError::Failed { call: "MPI_Init_thread", rank: 0, cause: cause.to_owned() };
        let (universe, level) = mpi::initialize_with_threading(mpi::Threading::Multiple)
            .ok_or_else(|| failed("MPI was initialised before"))?;
        if level < mpi::Threading::Multiple {
            return Err(failed(
                "this MPI has no MPI_THREAD_MULTIPLE; use one that has, such as launch/setup.sh --mpi wheel",
            ));
        }
        let comm = Arc::new(MpiComm::new(universe.world().as_raw(), Arc::default())?);
        Ok(Session { universe, comm })
    }

    /// All ranks of the job.
    pub fn world(&self) -> Arc<dyn Comm> {
        self.comm.clone()
    }

    /// Leaves MPI, in bounded time once every rank has called it; nothing may be in flight. `code` is the process's exit
    /// code.
    pub fn finish(self, code: u8) {
        if self.comm.family.has_lost_ranks() {
            // MPI_Finalize may wait for the dead (with Open MPI 5.0 it did in 4 of 18 runs).
            let _ = self.comm.barrier();
            end_process(code.into());
        }
        // All ranks are done from here on. What may still hang is the library's own farewell.
        let _ = self.comm.barrier();
        let late = move || {
            std::thread::sleep(FINALIZE);
            log::warn!("MPI_Finalize has not returned for {} s: ending without it", FINALIZE.as_secs());
            end_process(code.into());
        };
        // Without the thread there is no bound, as in any MPI program.
        let _ = std::thread::Builder::new().name("segdist-finalize".into()).spawn(late);
        drop(self.comm);
        drop(self.universe);
    }
}

/// Ends the process while other threads may compute: without destructors of libraries, in which those would crash.
pub fn end_process(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process; stderr has no buffer, and what else had to be written is.
    unsafe { libc::_exit(code) }
}
