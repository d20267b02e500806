//! A communicator of MPI processes.
//!
//! Collectives are started non-blocking and then waited for with short sleeps: Open MPI's blocking calls spin, and a
//! spinning communication thread takes the core that computes (two ranks on two cores lose a third of their speed).
//! Every call's return code is checked, since the errors of a communicator return instead of ending the process.
//!
//! A job that survives the death of a rank ([`Comm::survive`]) revokes all its communicators at the first error, so that
//! no rank waits for one that is gone, votes, and shrinks to the living ones. Its operations work on memory of their own:
//! one that has failed may still be under way in the library, and what it writes to is then never freed.

use super::end_process;
use crate::comm::device::DeviceValues;
use crate::comm::ulfm::Ulfm;
use crate::comm::{Comm, CommError};
use mpi::ffi;
use std::ffi::{c_int, c_void};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn segdist_mpi_in_place() -> *mut c_void;
}

/// Longest message of one call, in elements: counts are C ints, and 2^28 four-byte values are 1 GiB.
const CHUNK: usize = 1 << 28;

/// Sums of up to so many bytes cost rounds, not bandwidth.
const SMALL: usize = 16 << 10;

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
pub(super) struct MpiComm {
    /// Changes when it shrinks.
    group: RwLock<Group>,
    pub(super) family: Arc<Family>,
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
pub(super) struct Family {
    /// How to go on after a death; unset where a failure ends the job.
    ulfm: OnceLock<Ulfm>,
    /// Those in use.
    members: Mutex<Vec<Group>>,
    lost_ranks: OnceLock<()>,
}

impl Family {
    pub(super) fn has_lost_ranks(&self) -> bool {
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
    pub(super) fn new(raw: ffi::MPI_Comm, family: Arc<Family>) -> Result<Self, CommError> {
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

    /// An operation that replaces `values`, in messages that a C int can count: `start` is given each one's memory.
    fn in_place<T: Copy>(
        &self,
        call: &'static str,
        values: &mut [T],
        start: impl Fn(*mut c_void, c_int, ffi::MPI_Comm, *mut ffi::MPI_Request) -> c_int,
    ) -> Result<(), CommError> {
        for chunk in values.chunks_mut(CHUNK) {
            let count = chunk.len() as c_int;
            if self.family.ulfm.get().is_none() {
                let data = chunk.as_mut_ptr().cast();
                self.complete(call, |comm, request| start(data, count, comm, request))?;
                continue;
            }
            // Leaked by the `?`: `values` live on and change while a failed operation may still write.
            let mut own = ManuallyDrop::new(chunk.to_vec());
            let data = own.as_mut_ptr().cast();
            self.complete(call, |comm, request| start(data, count, comm, request))?;
            chunk.copy_from_slice(&own);
            drop(ManuallyDrop::into_inner(own));
        }
        Ok(())
    }

    /// Few values go up and down a binomial tree, in 2·log₂ N rounds; the way for many takes 2·(N−1).
    fn sum<T: Copy>(&self, values: &mut [T], kind: ffi::MPI_Datatype) -> Result<(), CommError> {
        if size_of_val(values) > SMALL {
            // SAFETY: `in_place` gives memory of `count` values of this kind, which outlives the operation.
            return self.in_place("MPI_Iallreduce", values, |data, count, comm, request| unsafe {
                ffi::MPI_Iallreduce(segdist_mpi_in_place(), data, count, kind, ffi::RSMPI_SUM, comm, request)
            });
        }
        let root = self.rank() == 0;
        // SAFETY: as above; rank 0's values are replaced, the others' only read.
        self.in_place("MPI_Ireduce", values, |data, count, comm, request| unsafe {
            let (own, sum) = if root { (segdist_mpi_in_place(), data) } else { (data, std::ptr::null_mut()) };
            ffi::MPI_Ireduce(own, sum, count, kind, ffi::RSMPI_SUM, 0, comm, request)
        })?;
        // SAFETY: as above.
        self.in_place("MPI_Ibcast", values, |data, count, comm, request| unsafe {
            ffi::MPI_Ibcast(data, count, kind, 0, comm, request)
        })
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
        // SAFETY: `in_place` gives memory of `count` bytes, which outlives the operation.
        self.in_place("MPI_Ibcast", bytes, |data, count, comm, request| unsafe {
            ffi::MPI_Ibcast(data, count, ffi::RSMPI_UINT8_T, root as c_int, comm, request)
        })
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
        let counts: Vec<c_int> = lengths.iter().map(|&length| length as c_int).collect();
        let offsets: Vec<c_int> =
            counts.iter().scan(0, |end, count| Some(std::mem::replace(end, *end + count))).collect();
        // One byte more: an empty slice's pointer may have the value that Open MPI calls MPI_IN_PLACE.
        let (mine, all) = ([bytes, &[0]].concat(), vec![0u8; total as usize]);
        let mut buffers = ManuallyDrop::new((mine, counts, offsets, all));
        let (mine, counts, offsets, all) = &mut *buffers;
        // SAFETY: the constant is set when the library is loaded.
        let byte = unsafe { ffi::RSMPI_UINT8_T };
        // SAFETY: `all` has room for the sum of `counts` at `offsets`; no buffer is freed when the operation fails.
        self.complete("MPI_Iallgatherv", |comm, request| unsafe {
            let (mine, sent, data) = (mine.as_ptr().cast(), bytes.len() as c_int, all.as_mut_ptr().cast());
            ffi::MPI_Iallgatherv(mine, sent, byte, data, counts.as_ptr(), offsets.as_ptr(), byte, comm, request)
        })?;
        let (.., all) = ManuallyDrop::into_inner(buffers);
        let mut rest = &all[..];
        Ok(lengths.iter().map(|&length| rest.split_off(..length as usize).unwrap_or_default().to_vec()).collect())
    }

    fn all_to_all(&self, bytes: &[u8]) -> Result<Vec<u8>, CommError> {
        let part = bytes.len() / self.size();
        let Ok(count) = c_int::try_from(part) else {
            let cause = format!("{part} bytes are more than one message can carry");
            return Err(CommError::Failed { call: "MPI_Ialltoall", rank: self.rank(), cause });
        };
        let mut buffers = ManuallyDrop::new((bytes.to_vec(), vec![0u8; bytes.len()]));
        let (mine, all) = &mut *buffers;
        // SAFETY: the constant is set when the library is loaded.
        let byte = unsafe { ffi::RSMPI_UINT8_T };
        // SAFETY: both buffers hold `size` parts; neither is freed when the operation fails.
        self.complete("MPI_Ialltoall", |comm, request| unsafe {
            ffi::MPI_Ialltoall(mine.as_ptr().cast(), count, byte, all.as_mut_ptr().cast(), count, byte, comm, request)
        })?;
        Ok(ManuallyDrop::into_inner(buffers).1)
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
