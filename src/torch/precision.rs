//! Autocast: convolutions and matrix products in 16 bits, the rest in f32.

use super::TorchError;
use super::ffi;
use tch::{Device, Kind};

/// Runs `body` under autocast to `kind` (`BFloat16` or `Half`) on `device`, or as it is without one. tch's own autocast
/// works on CUDA alone.
pub fn autocast<T>(device: Device, kind: Option<Kind>, body: impl FnOnce() -> T) -> Result<T, TorchError> {
    /// Leaves autocast when `body` panics, too.
    struct Entered(i32);
    impl Drop for Entered {
        fn drop(&mut self) {
            // SAFETY: takes a flag only. Its failure would leave autocast on, which the next entry repairs.
            let _ = ffi::check(unsafe { ffi::segdist_autocast_exit(self.0) });
        }
    }
    let Some(kind) = kind else { return Ok(body()) };
    let cuda = i32::from(device.is_cuda());
    // c10::ScalarType's numbers.
    let scalar = if kind == Kind::Half { 5 } else { 15 };
    // SAFETY: takes numbers only.
    ffi::check(unsafe { ffi::segdist_autocast_enter(cuda, scalar) })?;
    let _entered = Entered(cuda);
    Ok(body())
}
