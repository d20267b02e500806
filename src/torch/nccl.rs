//! NCCL, NVIDIA's library for sums over GPUs: found and loaded at run time, so that one binary serves all machines.
//!
//! Types and constants are those of nccl.h 2.28.9, the release that libtorch 2.11.0 comes with; those used here have been
//! the same since 2.13.

use super::stream::{Event, LOOK, Stream};
use super::{cuda, failed};
use crate::comm::CommError;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

const NAME: &str = "libnccl.so.2";

/// ncclSuccess, ncclInProgress, ncclFloat32, ncclFloat64 and ncclSum.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
const FLOAT32: c_int = 7;
const FLOAT64: c_int = 8;
const SUM: c_int = 0;

type RawComm = *mut c_void;

/// ncclUniqueId: where the ranks of a communicator meet. Rank 0 makes one and sends it to all.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId([u8; UniqueId::BYTES]);

impl UniqueId {
    const BYTES: usize = 128;

    /// What is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The other way; None for another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<UniqueId> {
        bytes.try_into().ok().map(UniqueId)
    }
}

/// The functions of a loaded NCCL.
#[derive(Clone, Copy)]
pub struct Library {
    get_version: unsafe extern "C" fn(*mut c_int) -> c_int,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    comm_init_rank: unsafe extern "C" fn(*mut RawComm, c_int, UniqueId, c_int) -> c_int,
    all_reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, RawComm, *mut c_void) -> c_int,
    comm_get_async_error: unsafe extern "C" fn(RawComm, *mut c_int) -> c_int,
    comm_abort: unsafe extern "C" fn(RawComm) -> c_int,
    get_error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    get_last_error: unsafe extern "C" fn(RawComm) -> *const c_char,
}

impl Library {
    /// The library that libtorch has loaded; else that of the loader's path, of libtorch's wheels, or beside libtorch.
    pub fn load() -> Result<Library, String> {
        let near = ["../../nvidia/nccl/lib/libnccl.so.2", NAME].map(cuda::beside_libtorch);
        let places: Vec<PathBuf> = [Some(NAME.into())].into_iter().chain(near).flatten().collect();
        Library::open(&places)
    }

    /// The first of `places` that can be loaded.
    ///
    /// # Errors
    /// One line: why each of them cannot, and what to do.
    pub fn open(places: &[PathBuf]) -> Result<Library, String> {
        let mut causes = Vec::new();
        for place in places {
            match cuda::open(place, libc::RTLD_LOCAL).and_then(Library::of) {
                Ok(library) => return Ok(library),
                Err(cause) => causes.push(cause),
            }
        }
        Err(format!("{NAME} cannot be loaded ({}): launch/setup.sh --cuda fetches it", causes.join("; ")))
    }

    fn of(handle: *mut c_void) -> Result<Library, String> {
        // SAFETY: the types are those that nccl.h gives these names; enums are C ints, cudaStream_t is a pointer.
        unsafe {
            Ok(Library {
                get_version: cuda::function(handle, c"ncclGetVersion")?,
                get_unique_id: cuda::function(handle, c"ncclGetUniqueId")?,
                comm_init_rank: cuda::function(handle, c"ncclCommInitRank")?,
                all_reduce: cuda::function(handle, c"ncclAllReduce")?,
                comm_get_async_error: cuda::function(handle, c"ncclCommGetAsyncError")?,
                comm_abort: cuda::function(handle, c"ncclCommAbort")?,
                get_error_string: cuda::function(handle, c"ncclGetErrorString")?,
                get_last_error: cuda::function(handle, c"ncclGetLastError")?,
            })
        }
    }

    /// Such as `2.28.9`.
    pub fn version(&self) -> String {
        let mut code = 0;
        // SAFETY: the pointer is valid for the call.
        match unsafe { (self.get_version)(&mut code) } {
            SUCCESS => format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100),
            _ => "of unknown version".into(),
        }
    }

    /// A place for ranks to meet, on this host.
    pub fn unique_id(&self) -> Result<UniqueId, CommError> {
        let mut id = UniqueId([0; UniqueId::BYTES]);
        // SAFETY: the pointer is valid for the call.
        self.check("ncclGetUniqueId", 0, unsafe { (self.get_unique_id)(&mut id) })?;
        Ok(id)
    }

    fn check(&self, call: &'static str, rank: usize, code: c_int) -> Result<(), CommError> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: both return null or a NUL-terminated string of the library's own; the latter takes null for "any".
        let texts = unsafe { [(self.get_error_string)(code), (self.get_last_error)(std::ptr::null_mut())] };
        let text = |text: *const c_char| {
            // SAFETY: as above, and not null.
            let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
            text.as_deref().map(|text| text.trim().replace('\n', " ")).filter(|text| !text.is_empty())
        };
        let causes: Vec<String> = texts.into_iter().filter_map(text).collect();
        Err(CommError::Failed { call, rank, cause: causes.join(": ") })
    }
}

/// This rank's end of a communicator of GPUs.
///
/// It is there until the process ends: destroying it is a collective of the ranks of a host, which would wait for one that
/// has failed.
pub struct Nccl {
    library: Library,
    rank: usize,
    device: Device,
    comm: Mutex<Handle>,
}

/// Null once it is aborted.
struct Handle(RawComm);

// SAFETY: NCCL lets any thread use a communicator, one at a time; the mutex around this sees to that.
unsafe impl Send for Handle {}

impl Nccl {
    /// Joins the communicator of `size` ranks that meet at `id`. A collective, to be called on a thread that has entered
    /// a stream of the GPU `device`; where another rank does not come it may take for ever.
    pub fn join(library: Library, id: UniqueId, rank: usize, size: usize, device: Device) -> Result<Nccl, CommError> {
        let mut comm = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call; the GPU is the thread's current one.
        let code = unsafe { (library.comm_init_rank)(&mut comm, size as c_int, id, rank as c_int) };
        library.check("ncclCommInitRank", rank, code)?;
        Ok(Nccl { library, rank, device, comm: Mutex::new(Handle(comm)) })
    }

    /// Has the GPU replace `values` by their sum over ranks when `stream` comes to it. A collective.
    ///
    /// # Panics
    /// Unless they are a contiguous tensor of f32 or f64 on the communicator's GPU.
    pub fn sum(&self, values: &Tensor, stream: &Stream) -> Result<(), CommError> {
        let kind = match values.kind() {
            Kind::Float => Some(FLOAT32),
            Kind::Double => Some(FLOAT64),
            _ => None,
        };
        let kind = kind.filter(|_| values.device() == self.device && values.is_contiguous());
        let kind = kind.expect("the contract: a contiguous tensor of f32 or f64 on the communicator's GPU");
        let (data, count, stream) = (values.data_ptr(), values.numel(), stream.handle());
        let comm = self.open()?;
        // SAFETY: `count` values of this kind lie at `data`, checked above. Should the tensor be dropped before the stream comes to it,
        // the memory stays the allocator's, and only values on the GPU are lost.
        let code = unsafe { (self.library.all_reduce)(data, data, count, kind, SUM, comm.0, stream) };
        drop(comm);
        self.library.check("ncclAllReduce", self.rank, code)
    }

    /// Returns when the GPU has come to `event`, or with what has gone wrong on the way there.
    ///
    /// A GPU that waits for a rank that is gone never comes to it by itself.
    pub fn wait(&self, event: &Event) -> Result<(), CommError> {
        while !event.reached().map_err(failed("cudaEventQuery", self.rank))? {
            let mut error = SUCCESS;
            let comm = self.open()?;
            // SAFETY: the communicator is open, and the pointer valid for the call.
            let code = unsafe { (self.library.comm_get_async_error)(comm.0, &mut error) };
            drop(comm);
            self.library.check("ncclCommGetAsyncError", self.rank, code)?;
            if error != IN_PROGRESS {
                self.library.check("ncclAllReduce", self.rank, error)?;
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Ends what this rank's GPU does with the others, which may wait for ever otherwise. Every other call fails now.
    pub fn abort(&self) {
        let mut comm = self.lock();
        if !comm.0.is_null() {
            // SAFETY: the communicator is open, and never used again. Its failure would leave nothing to do.
            unsafe { (self.library.comm_abort)(comm.0) };
            comm.0 = std::ptr::null_mut();
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, Handle>, CommError> {
        let comm = self.lock();
        match comm.0.is_null() {
            false => Ok(comm),
            true => Err(CommError::Failed { call: "NCCL", rank: self.rank, cause: "it was aborted".into() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Handle> {
        self.comm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Display for Nccl {
    fn fmt(&self, text: &mut fmt::Formatter) -> fmt::Result {
        write!(text, "NCCL {}", self.library.version())
    }
}
