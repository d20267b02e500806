//! Loading libtorch's CUDA half at run time, so that one binary serves machines with and without GPUs.

use std::ffi::{CStr, CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::Once;

/// Loads libtorch_cuda from beside libtorch_cpu when an NVIDIA driver is present. Call before the first use of tch.
///
/// A link-time dependency would be dropped by the linker, and on a machine without a driver it would only cost
/// start-up time and memory.
pub fn load_cuda() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !Path::new("/proc/driver/nvidia/version").exists() && !Path::new("/dev/nvidiactl").exists() {
            return;
        }
        let Some(library) = beside_libtorch("libtorch_cuda.so").filter(|library| library.exists()) else { return };
        // Global, as in Python: its kernels register themselves, and what comes later finds its symbols.
        if let Err(cause) = open(&library, libc::RTLD_GLOBAL) {
            log::warn!("a GPU driver is present but {} cannot be loaded: {cause}", library.display());
        }
    });
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
