//! How much memory the tensors of some work take, counted by libtorch's allocator for the CPU.

use super::TorchError;
use super::ffi;
use std::ffi::c_void;

/// Counts for this thread until it is dropped.
struct Meter(*mut c_void);

impl Meter {
    fn exit(mut self) -> Result<u64, TorchError> {
        let mut peak = 0;
        let handle = std::mem::replace(&mut self.0, std::ptr::null_mut());
        // SAFETY: `handle` is of segdist_meter_enter, on this thread, and is given back once.
        ffi::check(unsafe { ffi::segdist_meter_exit(handle, &mut peak) })?;
        Ok(u64::try_from(peak).unwrap_or(0))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !self.0.is_null() {
            let mut peak = 0;
            // SAFETY: as in `exit`; after a panic of the work.
            let _ = ffi::check(unsafe { ffi::segdist_meter_exit(self.0, &mut peak) });
        }
    }
}

/// Does `work` on this thread; returns the most bytes that tensors made in it have taken at once on the CPU.
pub fn peak_bytes(work: impl FnOnce()) -> Result<u64, TorchError> {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the pointer is valid for the call.
    ffi::check(unsafe { ffi::segdist_meter_enter(&mut handle) })?;
    let meter = Meter(handle);
    work();
    meter.exit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn what_is_alive_at_once_counts() {
        let before = Tensor::zeros([1000], (Kind::Float, Device::Cpu));
        let peak = peak_bytes(|| {
            let both = [before.zeros_like(), before.zeros_like()];
            drop(both);
            let _one = before.zeros_like();
        });
        let peak = peak.unwrap();
        assert!((8000..8600).contains(&peak), "{peak}");
    }
}
