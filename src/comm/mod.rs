//! Ranks and the few collective operations that everything above is built from.
//!
//! [`Comm`] is the whole interface: modules above never learn whether the ranks are one process ([`Solo`]),
//! threads of a test ([`threads`]) or MPI processes ([`mpi`], which alone names MPI).
//! Every operation is a collective: all ranks call it in the same order, or the job is wrong.

pub mod agree;
pub mod device;
pub mod handshake;
pub mod journal;
pub mod mpi;
pub mod threads;
pub mod trace;
mod ulfm;
pub mod watchdog;

use crate::fault::{Failure, Kind};
use device::DeviceValues;
use std::sync::Arc;

/// What can go wrong between ranks. Any of these ends the job.
#[derive(Debug, thiserror::Error)]
pub enum CommError {
    /// The MPI library reported a failure.
    #[error("{call} failed on rank {rank}: {cause}")]
    Failed {
        /// The library's function.
        call: &'static str,
        /// The rank that reports it.
        rank: usize,
        /// What the library says.
        cause: String,
    },
    /// Another rank has died, in a group that outlives it: the way on is [`Comm::shrink`].
    #[error("another rank has died during {call} ({cause})")]
    Died {
        /// The library's function.
        call: &'static str,
        /// What the library says.
        cause: String,
    },
    /// Another rank could not finish what was voted on; the way on is [`Comm::shrink`].
    #[error("another rank has died, and a living one could not finish its part")]
    Outvoted,
}

impl Failure for CommError {
    fn kind(&self) -> Kind {
        Kind::Passing
    }
}

/// A group of ranks that call the same operations in the same order.
///
/// Sums are taken in an order that depends only on the number of ranks, so a run repeated on the same ranks
/// gives the same bits.
pub trait Comm: Send + Sync {
    /// This process's number, 0-based.
    fn rank(&self) -> usize;
    /// How many ranks there are.
    fn size(&self) -> usize;
    /// Replaces `values` by their element-wise sum over ranks.
    fn all_reduce_f32(&self, values: &mut [f32]) -> Result<(), CommError>;
    /// Replaces `values` by their element-wise sum over ranks.
    fn all_reduce_f64(&self, values: &mut [f64]) -> Result<(), CommError>;
    /// Replaces `values` by their element-wise sum over ranks.
    fn all_reduce_i64(&self, values: &mut [i64]) -> Result<(), CommError>;
    /// Replaces values in the memory of a GPU by their element-wise sum over ranks.
    ///
    /// # Errors
    /// Where these ranks cannot reach that memory: [`device::cuda_aware`] says so beforehand.
    fn all_reduce_device(&self, _: DeviceValues) -> Result<(), CommError> {
        let cause = "these ranks cannot reach the memory of a GPU".into();
        Err(CommError::Failed { call: "all_reduce_device", rank: self.rank(), cause })
    }
    /// Copies `bytes` of rank `root` over everyone's; the lengths must agree.
    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<(), CommError>;
    /// Everyone's `bytes`, of any length, ordered by rank, on every rank.
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError>;
    /// Sends the i-th of `size` equal parts of `bytes` to rank i; what all ranks sent here, ordered by rank.
    fn all_to_all(&self, bytes: &[u8]) -> Result<Vec<u8>, CommError>;
    /// Returns when every rank has arrived.
    fn barrier(&self) -> Result<(), CommError>;
    /// A second channel among the same ranks, whose operations never mix with this one's.
    fn duplicate(&self) -> Result<Arc<dyn Comm>, CommError>;
    /// From now on this group, and those duplicated from it later, outlive the death of ranks; the reason where they
    /// cannot. To be called by every rank.
    fn survive(&self) -> Result<(), String> {
        match self.size() {
            1 => Ok(()),
            _ => Err("these ranks share one process".into()),
        }
    }
    /// Whether every living rank says yes, the same answer on all of them, whoever dies meanwhile. In a group that does
    /// not survive a death nobody is asked: who still lives says yes.
    fn vote(&self, yes: bool) -> Result<bool, CommError> {
        Ok(yes)
    }
    /// Leaves out the ranks that have died; the others keep their order. Duplicates made before are of no use any more,
    /// and no thread may be in one of their operations.
    fn shrink(&self) -> Result<(), CommError> {
        Err(CommError::Failed { call: "shrink", rank: self.rank(), cause: "nothing here outlives a death".into() })
    }
    /// Ends the whole job at once, every rank, with this exit code.
    fn abort(&self, code: i32) -> !;

    /// Whether this rank writes the files and the log.
    fn is_root(&self) -> bool {
        self.rank() == 0
    }
}

/// Sends a byte string of any length from rank 0 to everyone: rank 0 passes `Some`, the others `None`.
pub fn broadcast_bytes(comm: &dyn Comm, bytes: Option<Vec<u8>>) -> Result<Vec<u8>, CommError> {
    let mut length = (bytes.as_ref().map_or(0, Vec::len) as u64).to_le_bytes();
    comm.broadcast(0, &mut length)?;
    let mut bytes = bytes.unwrap_or_default();
    bytes.resize(u64::from_le_bytes(length) as usize, 0);
    comm.broadcast(0, &mut bytes)?;
    Ok(bytes)
}

/// One process alone: every collective is the identity.
pub struct Solo;

impl Comm for Solo {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn all_reduce_f32(&self, _: &mut [f32]) -> Result<(), CommError> {
        Ok(())
    }
    fn all_reduce_f64(&self, _: &mut [f64]) -> Result<(), CommError> {
        Ok(())
    }
    fn all_reduce_i64(&self, _: &mut [i64]) -> Result<(), CommError> {
        Ok(())
    }
    fn broadcast(&self, _: usize, _: &mut [u8]) -> Result<(), CommError> {
        Ok(())
    }
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError> {
        Ok(vec![bytes.to_vec()])
    }
    fn all_to_all(&self, bytes: &[u8]) -> Result<Vec<u8>, CommError> {
        Ok(bytes.to_vec())
    }
    fn barrier(&self) -> Result<(), CommError> {
        Ok(())
    }
    fn duplicate(&self) -> Result<Arc<dyn Comm>, CommError> {
        Ok(Arc::new(Solo))
    }
    fn abort(&self, code: i32) -> ! {
        mpi::end_process(code)
    }
}

/// This rank's place on its own host: its number there, and how many ranks the host has.
pub fn local_place(comm: &dyn Comm) -> Result<(usize, usize), CommError> {
    let host = hostname();
    let hosts = comm.all_gather(host.as_bytes())?;
    let same = |name: &&Vec<u8>| name.as_slice() == host.as_bytes();
    Ok((hosts[..comm.rank()].iter().filter(same).count(), hosts.iter().filter(same).count()))
}

/// The cores that this process may run on; launchers bind ranks to some of the host's.
pub fn cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect(),
        Err(_) => vec![0],
    }
}

/// Lets this process open as many files and connections as the system grants it; many shells grant 1,024 at first.
pub fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // What cannot be raised stays: whoever runs out of it says so.
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
}

/// The name of this machine.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
