//! Tensors as slices, memory order, and how much memory the process has used.

use super::{TorchError, ffi};
use crate::comm::device::DeviceValues;
use tch::{Device, Kind, Tensor};

/// The values of a contiguous f32 tensor on the CPU, writable.
///
/// # Panics
/// When the tensor is not one.
pub fn f32_slice(tensor: &mut Tensor) -> &mut [f32] {
    assert!(
        tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "a contiguous f32 tensor on the CPU"
    );
    if tensor.numel() == 0 {
        return &mut [];
    }
    // SAFETY: checked above: `numel` f32 lie at `data_ptr`, alive as long as the tensor. Two handles to one memory
    // alias, as with every in-place operation of tch: whoever shares one keeps to his own range.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The values of a contiguous f32 tensor on a GPU, for MPI. Whatever fills or reads them must be done.
///
/// # Panics
/// When the tensor is not one.
pub fn device_values(tensor: &mut Tensor) -> DeviceValues<'_> {
    assert!(
        tensor.kind() == Kind::Float && tensor.device().is_cuda() && tensor.is_contiguous(),
        "a contiguous f32 tensor on a GPU"
    );
    // SAFETY: checked above: `numel` f32 lie at `data_ptr`, alive as long as the tensor. A kernel that is still at work
    // on them makes their values arbitrary, and nothing else: the memory stays the allocator's.
    unsafe { DeviceValues::new(tensor.data_ptr().cast(), tensor.numel()) }
}

/// Strides of a tensor of `size` (n, channels, h, w) in channels-last order.
pub fn channels_last_strides(size: [i64; 4]) -> [i64; 4] {
    let [_, channels, height, width] = size;
    [height * width * channels, 1, width * channels, channels]
}

/// A copy of an (n, channels, h, w) tensor in channels-last memory order.
pub fn to_channels_last(tensor: &Tensor) -> Tensor {
    let size = tensor.size4().map(|(n, c, h, w)| [n, c, h, w]);
    let Ok(size) = size else { return tensor.shallow_clone() };
    let mut copy = Tensor::empty_strided(size, channels_last_strides(size), (tensor.kind(), tensor.device()));
    copy.copy_(tensor);
    copy
}

/// The most memory this process has had resident, in MiB.
pub fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// The most memory that tensors on GPU `index` have taken, in MiB.
pub fn peak_device_mb(index: usize) -> Result<f64, TorchError> {
    let mut bytes = 0;
    // SAFETY: the pointer is valid for the call.
    ffi::check(unsafe { ffi::segdist_peak_device_bytes(index as i32, &mut bytes) })?;
    Ok(bytes as f64 / 1_048_576.0)
}

/// Keeps freed memory in the process instead of giving it back after every step only to fault it in again.
pub fn keep_freed_memory() {
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}
