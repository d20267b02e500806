//! What NVIDIA's driver says of the GPUs that this process may use, asked without starting any of them.
//!
//! The types and numbers are those of cuda.h; they have been the same since CUDA 11.4.

use super::cuda;
use std::ffi::c_int;
use std::path::Path;

const SUCCESS: c_int = 0;

/// The CUDA that libtorch 2.11.0 is built for, as cuDriverGetVersion counts.
const NEEDED: c_int = 13_000;

/// Whether the host has an NVIDIA driver; a container may show the device alone.
pub fn is_present() -> bool {
    Path::new("/proc/driver/nvidia/version").exists() || Path::new("/dev/nvidiactl").exists()
}

/// The identities of the visible GPUs, parts of one by MIG too, in libtorch's order: wherever and as whatever number the
/// same GPU is seen, it is the same text.
///
/// # Errors
/// Where the driver cannot be asked, or is too old for this libtorch.
pub fn identities() -> Result<Vec<String>, String> {
    let driver = Driver::load()?;
    let mut version = 0;
    // SAFETY: the pointer is valid for the call.
    check("cuDriverGetVersion", unsafe { (driver.version)(&mut version) })?;
    if version < NEEDED {
        let text = |version: c_int| format!("{}.{}", version / 1000, version % 1000 / 10);
        return Err(format!("the driver serves CUDA {}, libtorch needs {}", text(version), text(NEEDED)));
    }
    // SAFETY: it takes no flags.
    check("cuInit", unsafe { (driver.init)(0) })?;
    let mut count = 0;
    // SAFETY: the pointer is valid for the call.
    check("cuDeviceGetCount", unsafe { (driver.count)(&mut count) })?;
    (0..count).map(|index| driver.identity(index)).collect()
}

fn check(call: &str, code: c_int) -> Result<(), String> {
    match code {
        SUCCESS => Ok(()),
        100 => Err("the driver shows this process no GPU".into()),
        code => Err(format!("{call} failed with error {code}")),
    }
}

/// The functions of the loaded driver.
struct Driver {
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
    init: unsafe extern "C" fn(u32) -> c_int,
    count: unsafe extern "C" fn(*mut c_int) -> c_int,
    get: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    uuid: unsafe extern "C" fn(*mut [u8; 16], c_int) -> c_int,
}

impl Driver {
    fn load() -> Result<Driver, String> {
        let handle = cuda::open(Path::new("libcuda.so.1"), libc::RTLD_LOCAL)?;
        // SAFETY: the types are those that cuda.h gives these names; CUresult and CUdevice are C ints.
        unsafe {
            Ok(Driver {
                version: cuda::function(handle, c"cuDriverGetVersion")?,
                init: cuda::function(handle, c"cuInit")?,
                count: cuda::function(handle, c"cuDeviceGetCount")?,
                get: cuda::function(handle, c"cuDeviceGet")?,
                // The second version tells parts of a GPU apart.
                uuid: cuda::function(handle, c"cuDeviceGetUuid_v2")?,
            })
        }
    }

    fn identity(&self, index: c_int) -> Result<String, String> {
        let (mut device, mut bytes) = (0, [0; 16]);
        // SAFETY: the pointer is valid for the call.
        check("cuDeviceGet", unsafe { (self.get)(&mut device, index) })?;
        // SAFETY: the pointer is valid for the call, and a CUuuid is sixteen bytes.
        check("cuDeviceGetUuid", unsafe { (self.uuid)(&mut bytes, device) })?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_says_what_is_missing() {
        match identities() {
            Ok(found) => assert!(is_present() && found.iter().all(|text| text.starts_with("GPU-"))),
            Err(cause) => assert!(is_present() || cause.contains("libcuda.so.1"), "{cause}"),
        }
    }
}
