//! MPI processes as ranks; only this file, `ulfm` and `device` name MPI.
//!
//! Collectives are started non-blocking and then waited for with short sleeps: Open MPI's blocking calls spin, and a
//! spinning communication thread takes the core that computes (two ranks on two cores lose a third of their speed).
//! Every call's return code is checked, since the errors of a communicator return instead of ending the process.
//!
//! A job that survives the death of a rank ([`Comm::survive`]) revokes all its communicators at the first error, so that
//! no rank waits for one that is gone, votes, and shrinks to the living ones.

use super::device::DeviceValues;
use super::ulfm::Ulfm;
use super::{Comm, CommError};
use mpi::environment::Universe;
use mpi::ffi;
use mpi::traits::AsRaw;
use std::ffi::{c_int, c_void};
use std::io::Write;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn segdist_mpi_in_place() -> *mut c_void;
}

/// Longest message of one call, in elements: counts are C ints, and 2^28 four-byte values are 1 GiB.
const CHUNK: usize = 1 << 28;

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

    /// Leaves MPI; every rank calls it, and nothing may be in flight. `code` is the process's exit code.
    pub fn finish(self, code: u8) {
        if self.comm.family.has_lost_ranks() {
            // MPI_Finalize may wait for the dead (with Open MPI 5.0 it did in 4 of 18 runs).
            let _ = self.comm.barrier();
            end_process(code.into());
        }
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

/// Waits until the launcher has taken the message that tells why the job ends, at most a second: MPICH's, once it hears
/// of the end, throws away what it has not read.
fn let_launcher_read_stderr() {
    let start = Instant::now();
    let unread = || rustix::io::ioctl_fionread(std::io::stderr()).is_ok_and(|bytes| bytes > 0);
    while unread() && start.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Polls that only yield the core: small messages between ranks of one host arrive within them.
const YIELDS: u64 = 200;

/// Sleeps for a 64th of the time waited so far, 10 µs to 1 ms: what takes long is looked at seldom, for each look takes
/// time from the thread that computes. By default the kernel may sleep 50 µs longer, which doubles a message's time.
fn nap(waited: Duration) {
    thread_local!(static PRECISE: () = {
        // The default slack is only slower.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    });
    let time = (waited / 64).clamp(Duration::from_micros(10), Duration::from_millis(1));
    PRECISE.with(|()| std::thread::sleep(time));
}

/// One communicator.
struct MpiComm {
    /// Changes when it shrinks.
    group: RwLock<Group>,
    family: Arc<Family>,
}

/// A communicator's handle, and this process's place in it.
#[derive(Clone, Copy)]
struct Group {
    raw: ffi::MPI_Comm,
    rank: usize,
    size: usize,
}

// SAFETY: a communicator is a handle; the library was initialised with MPI_THREAD_MULTIPLE, so any thread may use it.
unsafe impl Send for Group {}
// SAFETY: as above; collectives on one communicator are called by one thread at a time (the contract of `Comm`).
unsafe impl Sync for Group {}

/// A communicator and its duplicates: they fail together.
#[derive(Default)]
struct Family {
    /// How to go on after a death; unset where a failure ends the job.
    ulfm: OnceLock<Ulfm>,
    /// Those in use.
    members: Mutex<Vec<Group>>,
    lost_ranks: OnceLock<()>,
}

impl Family {
    fn has_lost_ranks(&self) -> bool {
        self.lost_ranks.get().is_some()
    }

    /// Makes every operation of the family fail, on all ranks.
    fn revoke(&self, ulfm: &Ulfm) {
        for member in self.members().iter() {
            // One that cannot be revoked has failed already.
            ulfm.revoke(member.raw);
        }
    }

    fn members(&self) -> std::sync::MutexGuard<'_, Vec<Group>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns a return code into a result, with the library's own text for the cause.
fn check(call: &'static str, rank: usize, code: c_int) -> Result<(), CommError> {
    if code == 0 { Ok(()) } else { Err(CommError::Failed { call, rank, cause: cause(code) }) }
}

fn cause(code: c_int) -> String {
    let mut text = [0u8; 1024];
    let mut length = 0;
    // SAFETY: the buffer is longer than MPI_MAX_ERROR_STRING (256 in Open MPI, 512 or 1024 in MPICH).
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
    String::from_utf8_lossy(&text[..length.clamp(0, 1024) as usize]).into_owned()
}

impl Group {
    fn new(raw: ffi::MPI_Comm) -> Result<Self, CommError> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: `raw` is a live communicator and the pointers are valid for the calls.
        unsafe {
            check("MPI_Comm_set_errhandler", 0, ffi::MPI_Comm_set_errhandler(raw, ffi::RSMPI_ERRORS_RETURN))?;
            check("MPI_Comm_rank", 0, ffi::MPI_Comm_rank(raw, &mut rank))?;
            check("MPI_Comm_size", 0, ffi::MPI_Comm_size(raw, &mut size))?;
        }
        Ok(Group { raw, rank: rank as usize, size: size as usize })
    }
}

impl MpiComm {
    fn new(raw: ffi::MPI_Comm, family: Arc<Family>) -> Result<Self, CommError> {
        let group = Group::new(raw)?;
        family.members().push(group);
        Ok(MpiComm { group: RwLock::new(group), family })
    }

    fn group(&self) -> Group {
        *self.group.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns a return code into a result; in a family that survives deaths, an error ends what others wait for.
    fn check(&self, call: &'static str, code: c_int) -> Result<(), CommError> {
        let Some(ulfm) = self.family.ulfm.get().filter(|_| code != 0) else {
            return check(call, self.rank(), code);
        };
        self.family.revoke(ulfm);
        Err(CommError::Died { call, cause: cause(code) })
    }

    /// Starts an operation with `start` and sleeps until it is complete.
    fn complete(
        &self,
        call: &'static str,
        start: impl FnOnce(ffi::MPI_Comm, *mut ffi::MPI_Request) -> c_int,
    ) -> Result<(), CommError> {
        let mut request = MaybeUninit::uninit();
        self.check(call, start(self.group().raw, request.as_mut_ptr()))?;
        // SAFETY: the start call succeeded, so it has written the request.
        let mut request = unsafe { request.assume_init() };
        let start = Instant::now();
        for poll in 0u64.. {
            let mut done = 0;
            // SAFETY: `request` is the one just started; the status may be ignored.
            let code = unsafe { ffi::MPI_Test(&mut request, &mut done, ffi::RSMPI_STATUS_IGNORE) };
            self.check(call, code)?;
            match (done != 0, poll) {
                (true, _) => break,
                (_, 0..YIELDS) => std::thread::yield_now(),
                _ => nap(start.elapsed()),
            }
        }
        Ok(())
    }

    fn sum<T>(&self, values: &mut [T], kind: ffi::MPI_Datatype) -> Result<(), CommError> {
        for chunk in values.chunks_mut(CHUNK) {
            let (data, count) = (chunk.as_mut_ptr().cast(), chunk.len() as c_int);
            // SAFETY: `data` holds `count` values of the type that `kind` names, and outlives the operation.
            self.complete("MPI_Iallreduce", |comm, request| unsafe {
                ffi::MPI_Iallreduce(segdist_mpi_in_place(), data, count, kind, ffi::RSMPI_SUM, comm, request)
            })?;
        }
        Ok(())
    }
}

impl Comm for MpiComm {
    fn rank(&self) -> usize {
        self.group().rank
    }

    fn size(&self) -> usize {
        self.group().size
    }

    fn all_reduce_f32(&self, values: &mut [f32]) -> Result<(), CommError> {
        // SAFETY: the constant is set when the library is loaded.
        self.sum(values, unsafe { ffi::RSMPI_FLOAT })
    }

    fn all_reduce_f64(&self, values: &mut [f64]) -> Result<(), CommError> {
        // SAFETY: as above.
        self.sum(values, unsafe { ffi::RSMPI_DOUBLE })
    }

    fn all_reduce_i64(&self, values: &mut [i64]) -> Result<(), CommError> {
        // SAFETY: as above.
        self.sum(values, unsafe { ffi::RSMPI_INT64_T })
    }

    /// Blocking: Open MPI reduces non-blocking sums on the processor, which cannot read these addresses, and crashes.
    fn all_reduce_device(&self, values: DeviceValues) -> Result<(), CommError> {
        let raw = self.group().raw;
        for (data, count) in values.parts(CHUNK) {
            // SAFETY: `count` f32 lie at `data` in a GPU's memory, which the caller has asked the library about.
            let code = unsafe {
                let in_place = segdist_mpi_in_place();
                ffi::MPI_Allreduce(in_place, data, count as c_int, ffi::RSMPI_FLOAT, ffi::RSMPI_SUM, raw)
            };
            self.check("MPI_Allreduce", code)?;
        }
        Ok(())
    }

    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        for chunk in bytes.chunks_mut(CHUNK) {
            let (data, count) = (chunk.as_mut_ptr().cast(), chunk.len() as c_int);
            // SAFETY: `data` holds `count` bytes and outlives the operation.
            self.complete("MPI_Ibcast", |comm, request| unsafe {
                ffi::MPI_Ibcast(data, count, ffi::RSMPI_UINT8_T, root as c_int, comm, request)
            })?;
        }
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError> {
        let Group { rank, size, .. } = self.group();
        let mut lengths = vec![0i64; size];
        lengths[rank] = bytes.len() as i64;
        self.all_reduce_i64(&mut lengths)?;
        let total: i64 = lengths.iter().sum();
        if total > c_int::MAX as i64 {
            let cause = format!("{total} bytes are more than one message can carry");
            return Err(CommError::Failed { call: "MPI_Iallgatherv", rank, cause });
        }
        if total == 0 {
            return Ok(vec![Vec::new(); size]);
        }
        // An empty slice's pointer may have the value that Open MPI calls MPI_IN_PLACE.
        let (mine, sent) = (if bytes.is_empty() { [0].as_ptr() } else { bytes.as_ptr() }, bytes.len() as c_int);
        let counts: Vec<c_int> = lengths.iter().map(|&length| length as c_int).collect();
        let offsets: Vec<c_int> =
            counts.iter().scan(0, |end, count| Some(std::mem::replace(end, *end + count))).collect();
        let mut all = vec![0u8; total as usize];
        // SAFETY: the constant is set when the library is loaded.
        let (data, byte) = (all.as_mut_ptr().cast(), unsafe { ffi::RSMPI_UINT8_T });
        // SAFETY: `all` has room for the sum of `counts` at `offsets`; all buffers outlive the operation.
        self.complete("MPI_Iallgatherv", |comm, request| unsafe {
            let (counts, offsets) = (counts.as_ptr(), offsets.as_ptr());
            ffi::MPI_Iallgatherv(mine.cast(), sent, byte, data, counts, offsets, byte, comm, request)
        })?;
        let mut rest = &all[..];
        Ok(lengths.iter().map(|&length| rest.split_off(..length as usize).unwrap_or_default().to_vec()).collect())
    }

    fn all_to_all(&self, bytes: &[u8]) -> Result<Vec<u8>, CommError> {
        let mut all = vec![0u8; bytes.len()];
        let (mine, data, part) = (bytes.as_ptr().cast(), all.as_mut_ptr().cast(), (bytes.len() / self.size()) as c_int);
        // SAFETY: the constant is set when the library is loaded.
        let byte = unsafe { ffi::RSMPI_UINT8_T };
        // SAFETY: both buffers hold `size` parts and outlive the operation.
        self.complete("MPI_Ialltoall", |comm, request| unsafe {
            ffi::MPI_Ialltoall(mine, part, byte, data, part, byte, comm, request)
        })?;
        Ok(all)
    }

    fn barrier(&self) -> Result<(), CommError> {
        // SAFETY: the communicator is live.
        self.complete("MPI_Ibarrier", |comm, request| unsafe { ffi::MPI_Ibarrier(comm, request) })
    }

    fn duplicate(&self) -> Result<Arc<dyn Comm>, CommError> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the communicator is live and the pointer valid; on success the new one is written.
        let raw = unsafe {
            self.check("MPI_Comm_dup", ffi::MPI_Comm_dup(self.group().raw, raw.as_mut_ptr()))?;
            raw.assume_init()
        };
        Ok(Arc::new(MpiComm::new(raw, self.family.clone())?))
    }

    fn survive(&self) -> Result<(), String> {
        let ulfm = Ulfm::find()?;
        self.family.ulfm.get_or_init(|| ulfm);
        Ok(())
    }

    fn vote(&self, yes: bool) -> Result<bool, CommError> {
        let Some(ulfm) = self.family.ulfm.get() else { return Ok(yes) };
        let failed = |code| CommError::Failed { call: "MPIX_Comm_agree", rank: self.rank(), cause: cause(code) };
        ulfm.agree(self.group().raw, yes).map_err(failed)
    }

    fn shrink(&self) -> Result<(), CommError> {
        let failed = |cause: String| CommError::Failed { call: "MPIX_Comm_shrink", rank: self.rank(), cause };
        let ulfm = self.family.ulfm.get().ok_or_else(|| failed("this job does not survive deaths".into()))?;
        self.family.revoke(ulfm);
        let new = Group::new(ulfm.shrink(self.group().raw).map_err(|code| failed(cause(code)))?)?;
        if new.size == self.size() {
            return Err(failed("communication fails, though every rank lives".into()));
        }
        // The handles of the old ones are kept: freeing them would be a collective of ranks that are gone.
        *self.family.members() = vec![new];
        *self.group.write().unwrap_or_else(PoisonError::into_inner) = new;
        let _ = self.family.lost_ranks.set(());
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        let_launcher_read_stderr();
        // SAFETY: may be called at any time between initialisation and finalisation, from any thread.
        unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, code) };
        end_process(code)
    }
}
