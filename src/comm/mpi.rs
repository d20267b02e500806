//! MPI processes as ranks; the only file that names MPI.
//!
//! Collectives are started non-blocking and then waited for with short sleeps: Open MPI's blocking calls spin, and a
//! spinning communication thread takes the core that computes (two ranks on two cores lose a third of their speed).
//! Every call's return code is checked, since the errors of a communicator return instead of ending the process.

use super::{Comm, CommError};
use mpi::environment::Universe;
use mpi::ffi;
use mpi::traits::AsRaw;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;
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
    mpi::environment::library_version().ok().map(|text| text.lines().next().unwrap_or_default().to_owned())
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
        let comm = Arc::new(MpiComm::new(universe.world().as_raw())?);
        Ok(Session { universe, comm })
    }

    /// All ranks of the job.
    pub fn world(&self) -> Arc<dyn Comm> {
        self.comm.clone()
    }

    /// Leaves MPI; every rank calls it, and nothing may be in flight.
    pub fn finish(self) {
        drop(self.comm);
        drop(self.universe);
    }
}

/// Polls that only yield the core: small messages between ranks of one host arrive within them.
const YIELDS: u64 = 200;

/// Sleeps for a 64th of the time waited so far, 10 to 200 µs: what takes long is looked at seldom, for each look takes
/// time from the thread that computes. By default the kernel may sleep 50 µs longer, which doubles a message's time.
fn nap(waited: Duration) {
    thread_local!(static PRECISE: () = {
        // The default slack is only slower.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    });
    let time = (waited / 64).clamp(Duration::from_micros(10), Duration::from_micros(200));
    PRECISE.with(|()| std::thread::sleep(time));
}

/// One communicator.
struct MpiComm {
    raw: ffi::MPI_Comm,
    rank: usize,
    size: usize,
}

// SAFETY: a communicator is a handle; the library was initialised with MPI_THREAD_MULTIPLE, so any thread may use it.
unsafe impl Send for MpiComm {}
// SAFETY: as above; collectives on one communicator are called by one thread at a time (the contract of `Comm`).
unsafe impl Sync for MpiComm {}

/// Turns a return code into a result, with the library's own text for the cause.
fn check(call: &'static str, rank: usize, code: c_int) -> Result<(), CommError> {
    if code == 0 {
        return Ok(());
    }
    let mut text = [0u8; 1024];
    let mut length = 0;
    // SAFETY: the buffer is longer than MPI_MAX_ERROR_STRING (256 in Open MPI, 512 or 1024 in MPICH).
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
    let cause = String::from_utf8_lossy(&text[..length.clamp(0, 1024) as usize]).into_owned();
    Err(CommError::Failed { call, rank, cause })
}

impl MpiComm {
    fn new(raw: ffi::MPI_Comm) -> Result<Self, CommError> {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: `raw` is a live communicator and the pointers are valid for the calls.
        unsafe {
            check("MPI_Comm_set_errhandler", 0, ffi::MPI_Comm_set_errhandler(raw, ffi::RSMPI_ERRORS_RETURN))?;
            check("MPI_Comm_rank", 0, ffi::MPI_Comm_rank(raw, &mut rank))?;
            check("MPI_Comm_size", 0, ffi::MPI_Comm_size(raw, &mut size))?;
        }
        Ok(MpiComm { raw, rank: rank as usize, size: size as usize })
    }

    /// Starts an operation with `start` and sleeps until it is complete.
    fn complete(
        &self,
        call: &'static str,
        start: impl FnOnce(*mut ffi::MPI_Request) -> c_int,
    ) -> Result<(), CommError> {
        let mut request = MaybeUninit::uninit();
        check(call, self.rank, start(request.as_mut_ptr()))?;
        // SAFETY: the start call succeeded, so it has written the request.
        let mut request = unsafe { request.assume_init() };
        let start = Instant::now();
        for poll in 0u64.. {
            let mut done = 0;
            // SAFETY: `request` is the one just started; the status may be ignored.
            let code = unsafe { ffi::MPI_Test(&mut request, &mut done, ffi::RSMPI_STATUS_IGNORE) };
            check(call, self.rank, code)?;
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
            self.complete("MPI_Iallreduce", |request| unsafe {
                ffi::MPI_Iallreduce(segdist_mpi_in_place(), data, count, kind, ffi::RSMPI_SUM, self.raw, request)
            })?;
        }
        Ok(())
    }
}

impl Comm for MpiComm {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum_f32(&self, values: &mut [f32]) -> Result<(), CommError> {
        // SAFETY: the constant is set when the library is loaded.
        self.sum(values, unsafe { ffi::RSMPI_FLOAT })
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<(), CommError> {
        // SAFETY: as above.
        self.sum(values, unsafe { ffi::RSMPI_DOUBLE })
    }

    fn sum_i64(&self, values: &mut [i64]) -> Result<(), CommError> {
        // SAFETY: as above.
        self.sum(values, unsafe { ffi::RSMPI_INT64_T })
    }

    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        for chunk in bytes.chunks_mut(CHUNK) {
            let (data, count) = (chunk.as_mut_ptr().cast(), chunk.len() as c_int);
            // SAFETY: `data` holds `count` bytes and outlives the operation.
            self.complete("MPI_Ibcast", |request| unsafe {
                ffi::MPI_Ibcast(data, count, ffi::RSMPI_UINT8_T, root as c_int, self.raw, request)
            })?;
        }
        Ok(())
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError> {
        let mut lengths = vec![0i64; self.size];
        lengths[self.rank] = bytes.len() as i64;
        self.sum_i64(&mut lengths)?;
        let total: i64 = lengths.iter().sum();
        if total > c_int::MAX as i64 {
            let cause = format!("{total} bytes are more than one message can carry");
            return Err(CommError::Failed { call: "MPI_Iallgatherv", rank: self.rank, cause });
        }
        if total == 0 {
            return Ok(vec![Vec::new(); self.size]);
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
        self.complete("MPI_Iallgatherv", |request| unsafe {
            let (counts, offsets) = (counts.as_ptr(), offsets.as_ptr());
            ffi::MPI_Iallgatherv(mine.cast(), sent, byte, data, counts, offsets, byte, self.raw, request)
        })?;
        let mut rest = &all[..];
        Ok(lengths.iter().map(|&length| rest.split_off(..length as usize).unwrap_or_default().to_vec()).collect())
    }

    fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>, CommError> {
        let mut all = vec![0u8; bytes.len()];
        let (mine, data, part) = (bytes.as_ptr().cast(), all.as_mut_ptr().cast(), (bytes.len() / self.size) as c_int);
        // SAFETY: the constant is set when the library is loaded.
        let byte = unsafe { ffi::RSMPI_UINT8_T };
        // SAFETY: both buffers hold `size` parts and outlive the operation.
        self.complete("MPI_Ialltoall", |request| unsafe {
            ffi::MPI_Ialltoall(mine, part, byte, data, part, byte, self.raw, request)
        })?;
        Ok(all)
    }

    fn barrier(&self) -> Result<(), CommError> {
        // SAFETY: the communicator is live.
        self.complete("MPI_Ibarrier", |request| unsafe { ffi::MPI_Ibarrier(self.raw, request) })
    }

    fn duplicate(&self) -> Result<Arc<dyn Comm>, CommError> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: the communicator is live and the pointer valid; on success the new one is written.
        let raw = unsafe {
            check("MPI_Comm_dup", self.rank, ffi::MPI_Comm_dup(self.raw, raw.as_mut_ptr()))?;
            raw.assume_init()
        };
        Ok(Arc::new(MpiComm::new(raw)?))
    }

    fn abort(&self, code: i32) -> ! {
        // SAFETY: may be called at any time between initialisation and finalisation, from any thread.
        unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, code) };
        std::process::exit(code)
    }
}
