//! Loading libtorch's CUDA half at run time, so that one binary serves machines with and without GPUs.

use std::ffi::CString;
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
        let Some(library) = beside_libtorch("libtorch_cuda.so") else { return };
        if let Err(cause) = load(&library) {
            log::warn!("a GPU driver is present but {} cannot be loaded: {cause}", library.display());
        }
    });
}

/// `name` in the folder that this process has loaded libtorch_cpu from.
fn beside_libtorch(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let loaded = maps
        .lines()
        .find_map(|line| line.find('/').map(|at| &line[at..]).filter(|p| p.ends_with("/libtorch_cpu.so")))?;
    let library = Path::new(loaded).with_file_name(name);
    library.exists().then_some(library)
}

fn load(library: &Path) -> Result<(), String> {
    let path = CString::new(library.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: a NUL-terminated path; libtorch_cuda registers its kernels when loaded, as it does in Python.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror returns null or a NUL-terminated string valid until the next dl call of this thread.
    let cause = unsafe { libc::dlerror() };
    if cause.is_null() {
        return Err("unknown cause".into());
    }
    // SAFETY: as above.
    Err(unsafe { std::ffi::CStr::from_ptr(cause) }.to_string_lossy().into_owned())
}
