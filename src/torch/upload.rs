//! From the memory of the host to the device without waiting for the device.

use super::{TorchError, ffi};
use tch::{Device, Tensor};

/// A copy in memory that the device reads by itself. On a machine without a GPU there is none.
pub fn pinned(values: &Tensor) -> Result<Tensor, TorchError> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: the tensor is alive, and the result is written only on success.
    ffi::check(unsafe { ffi::segdist_pinned(values.as_ptr().cast_mut(), &mut copy) })?;
    // SAFETY: on success it points to a tensor that the shim made for us to own.
    Ok(unsafe { Tensor::from_ptr(copy) })
}

/// The values on `device`, for work that the calling thread hands over later. The host does not wait: a copy from memory
/// that is not pinned would have it wait until the device has come so far. libtorch keeps what is under way.
///
/// # Panics
/// When libtorch fails, as tch's operations do.
pub fn upload(values: &Tensor, device: Device) -> Tensor {
    if device == Device::Cpu {
        return values.shallow_clone();
    }
    let pinned = pinned(values).unwrap_or_else(|error| panic!("{error}"));
    pinned.to_device_(device, values.kind(), true, false)
}
