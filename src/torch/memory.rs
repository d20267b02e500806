//! Tensors as slices, memory order, and how much memory the process has used.

use super::{TorchError, ffi};
use crate::comm::device::DeviceValues;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// The values of a tensor on the CPU, lent to this process's own code. No two of these overlap.
pub struct F32Slice<'a>(&'a mut [f32]);

/// Address ranges of all that is lent.
static LENT: Mutex<Vec<Range<usize>>> = Mutex::new(Vec::new());

fn lent() -> MutexGuard<'static, Vec<Range<usize>>> {
    LENT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl F32Slice<'_> {
    fn range(&self) -> Range<usize> {
        let values = self.0.as_ptr_range();
        values.start.addr()..values.end.addr()
    }
}

/// The values of a contiguous f32 tensor on the CPU, writable until they are dropped.
///
/// Several tensors may share memory, so that `&mut Tensor` says nothing about it; what is lent is kept in a table
/// instead. Operations of libtorch on the same memory are the caller's to order, as they are between tensors.
///
/// # Panics
/// When the tensor is not one, or when some of its values are lent already.
pub fn f32_slice(tensor: &mut Tensor) -> F32Slice<'_> {
    assert!(
        tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous(),
        "a contiguous f32 tensor on the CPU"
    );
    if tensor.numel() == 0 {
        return F32Slice(&mut []);
    }
    let (address, count) = (tensor.data_ptr().cast::<f32>(), tensor.numel());
    let range = address.addr()..address.addr() + count * size_of::<f32>();
    {
        let mut lent = lent();
        let free = lent.iter().all(|other| range.end <= other.start || other.end <= range.start);
        assert!(free, "values of a tensor are lent twice");
        lent.push(range);
    }
    // SAFETY: `numel` f32 lie at `data_ptr`, alive as long as the tensor is borrowed, and nobody else has a slice of them
    // until this one is dropped.
    F32Slice(unsafe { std::slice::from_raw_parts_mut(address, count) })
}

impl Deref for F32Slice<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0
    }
}

impl DerefMut for F32Slice<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.0
    }
}

impl Drop for F32Slice<'_> {
    fn drop(&mut self) {
        let range = self.range();
        lent().retain(|other| *other != range);
    }
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

/// Whether a tensor (n, channels, h, w) fills its memory in channels-last order.
pub fn is_channels_last(tensor: &Tensor) -> bool {
    let size = tensor.size4().map(|(n, c, h, w)| [n, c, h, w]);
    size.is_ok_and(|size| tensor.stride() == channels_last_strides(size))
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
    kilobytes("/proc/self/status", "VmHWM:") as f64 / 1024.0
}

/// The memory of this host that processes may still have.
pub fn available_bytes() -> u64 {
    kilobytes("/proc/meminfo", "MemAvailable:") << 10
}

/// A line `NAME NUMBER kB` of a file of the kernel's; 0 where there is none.
fn kilobytes(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
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

/// Gives freed memory back to the system, once, after work that needed much of it for a while.
pub fn give_freed_memory_back() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves() -> [Tensor; 3] {
        let whole = Tensor::zeros([8], (Kind::Float, Device::Cpu));
        let (first, second) = (whole.narrow(0, 0, 4), whole.narrow(0, 4, 4));
        [whole, first, second]
    }

    #[test]
    fn parts_of_one_memory_are_lent_at_once_and_written_through() {
        let [whole, mut first, mut second] = halves();
        {
            let (mut first, mut second) = (f32_slice(&mut first), f32_slice(&mut second));
            first.fill(1.0);
            second.fill(2.0);
        }
        assert_eq!(whole.sum(Kind::Float).double_value(&[]), 12.0);
    }

    #[test]
    fn values_are_not_lent_twice_until_they_are_given_back() {
        let [mut whole, mut first, _] = halves();
        let lent = f32_slice(&mut first);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f32_slice(&mut whole).len())).is_err());
        drop(lent);
        assert_eq!(f32_slice(&mut whole).len(), 8);
    }
}
