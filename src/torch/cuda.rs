//! Loading libtorch's CUDA half at run time, so that one binary serves machines with and without GPUs.

use super::driver;
use std::ffi::{CStr, CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The GPUs of this process.
#[derive(Clone, Debug, Default)]
pub struct Gpus {
    /// What each of them is, by libtorch's number: the same GPU has the same text in every process of a host.
    pub identities: Vec<String>,
    /// Why there is none, on a host with an NVIDIA driver.
    pub trouble: Option<String>,
}

static GPUS: OnceLock<Gpus> = OnceLock::new();

/// Whether this process may have used a GPU. Then it must end without destructors of libraries: threads that CUDA or NCCL
/// holds up would meet them.
pub fn may_use_gpus() -> bool {
    GPUS.get().is_some_and(|gpus| !gpus.identities.is_empty())
}

/// Loads libtorch_cuda from beside libtorch_cpu when an NVIDIA driver is present, and counts the GPUs. Call before the
/// first use of tch.
///
/// A link-time dependency would be dropped by the linker, and on a machine without a driver it would only cost
/// start-up time and memory.
pub fn load_cuda() -> &'static Gpus {
    GPUS.get_or_init(|| {
        if !driver::is_present() {
            return Gpus::default();
        }
        find_gpus().unwrap_or_else(|trouble| Gpus { trouble: Some(trouble), ..Gpus::default() })
    })
}

fn find_gpus() -> Result<Gpus, String> {
    let absent = "libtorch has no CUDA half (launch/setup.sh --cuda fetches it, an image needs CUDA=1)";
    let library = beside_libtorch("libtorch_cuda.so").filter(|library| library.exists()).ok_or(absent)?;
    // Global, as in Python: its kernels register themselves, and what comes later finds its symbols.
    open(&library, libc::RTLD_GLOBAL).map_err(|cause| {
        format!("{} cannot be loaded: {cause}; launch/setup.sh --cuda fetches what it needs", library.display())
    })?;
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    match driver::identities() {
        Ok(identities) if identities.len() == count && count > 0 => Ok(Gpus { identities, trouble: None }),
        Ok(_) if count == 0 => {
            Err("the driver shows this process no GPU (CUDA_VISIBLE_DEVICES must not be empty)".into())
        }
        Err(cause) if count == 0 => Err(cause),
        // A driver that cannot say: then every process of a host is taken to see the same ones.
        _ => Ok(Gpus { identities: (0..count).map(|index| format!("GPU {index}")).collect(), trouble: None }),
    }
}

/// Where `name` would be in the folder that this process has loaded libtorch_cpu from.
pub fn beside_libtorch(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let loaded = maps
        .lines()
        .find_map(|line| line.find('/').map(|at| &line[at..]).filter(|p| p.ends_with("/libtorch_cpu.so")))?;
    Some(Path::new(loaded).parent()?.join(name))
}

/// Loads a shared library for the rest of the process's life; a name without a slash is looked for where the loader
/// looks, among what is loaded already too.
pub fn open(library: &Path, visibility: c_int) -> Result<*mut c_void, String> {
    let path = CString::new(library.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: a NUL-terminated path; the libraries that are asked for do nothing but register themselves when loaded.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | visibility) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: dlerror returns null or a NUL-terminated string valid until the next dl call of this thread.
    let cause = unsafe { libc::dlerror() };
    if cause.is_null() {
        return Err("unknown cause".into());
    }
    // SAFETY: as above.
    Err(unsafe { CStr::from_ptr(cause) }.to_string_lossy().into_owned())
}

/// A function of a loaded library.
///
/// # Errors
/// Where it has none of this name; the text says so.
///
/// # Safety
/// `handle` is from [`open`], and `T` the type of a pointer to the function of this name.
pub unsafe fn function<T>(handle: *mut c_void, name: &CStr) -> Result<T, String> {
    const { assert!(size_of::<T>() == size_of::<*mut c_void>()) };
    // SAFETY: the handle is dlopen's and the name ends with a zero byte.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if found.is_null() {
        return Err(format!("it has no {}", name.to_string_lossy()));
    }
    // SAFETY: the caller's word, and the size is a pointer's.
    Ok(unsafe { std::mem::transmute_copy::<*mut c_void, T>(&found) })
}
