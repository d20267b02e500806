//! The C functions of `shim.cpp` and how errors cross them.

use std::any::Any;
use std::ffi::{CStr, c_char, c_double, c_int, c_void};
use tch::Tensor;
use torch_sys::C_tensor;

/// A failure inside libtorch, or inside a closure that libtorch called.
#[derive(Debug, thiserror::Error)]
#[error("libtorch: {0}")]
pub struct TorchError(pub String);

/// A boxed closure as `shim.cpp` sees it.
#[repr(C)]
pub struct Closure {
    pub context: *mut c_void,
    pub call: unsafe extern "C" fn(*mut c_void, *mut C_tensor, *mut *mut C_tensor, usize) -> *mut c_char,
    pub drop: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    pub fn segdist_on_gradient(parameter: *mut C_tensor, closure: Closure) -> *mut c_char;
    pub fn segdist_clear_hook(parameter: *mut C_tensor) -> *mut c_char;
    pub fn segdist_attach_backward(
        output: *mut C_tensor,
        inputs: *const *mut C_tensor,
        count: usize,
        closure: Closure,
    ) -> *mut c_char;
    pub fn segdist_backward(
        outputs: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        count: usize,
    ) -> *mut c_char;
    pub fn segdist_sgd(
        parameters: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        momenta: *const *mut C_tensor,
        count: usize,
        lr: c_double,
        momentum: c_double,
        decay: c_double,
        grad_scale: c_double,
    ) -> *mut c_char;
    pub fn segdist_adamw(
        parameters: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        means: *const *mut C_tensor,
        squares: *const *mut C_tensor,
        count: usize,
        step: c_double,
        lr: c_double,
        beta1: c_double,
        beta2: c_double,
        eps: c_double,
        decay: c_double,
        grad_scale: c_double,
    ) -> *mut c_char;
    pub fn segdist_batch_norm_sums(
        gradient: *mut C_tensor,
        input: *mut C_tensor,
        weight: *mut C_tensor,
        mean: *mut C_tensor,
        variance: *mut C_tensor,
        eps: c_double,
        sum_dy: *mut *mut C_tensor,
        sum_dy_xhat: *mut *mut C_tensor,
    ) -> *mut c_char;
    pub fn segdist_autocast_enter(cuda: c_int, kind: c_int) -> *mut c_char;
    pub fn segdist_autocast_exit(cuda: c_int) -> *mut c_char;
    pub fn segdist_pinned(values: *mut C_tensor, copy: *mut *mut C_tensor) -> *mut c_char;
    pub fn segdist_device_enter(index: c_int) -> *mut c_char;
    pub fn segdist_stream_new(index: c_int, id: *mut i64, handle: *mut *mut c_void) -> *mut c_char;
    pub fn segdist_stream_current(index: c_int, id: *mut i64, handle: *mut *mut c_void) -> *mut c_char;
    pub fn segdist_stream_enter(index: c_int, id: i64) -> *mut c_char;
    pub fn segdist_event_record(index: c_int, event: *mut *mut c_void) -> *mut c_char;
    pub fn segdist_event_hold(event: *const c_void, index: c_int, id: i64) -> *mut c_char;
    pub fn segdist_event_reached(event: *const c_void, reached: *mut c_int) -> *mut c_char;
    pub fn segdist_event_free(event: *mut c_void);
    pub fn segdist_meter_enter(meter: *mut *mut c_void) -> *mut c_char;
    pub fn segdist_meter_exit(meter: *mut c_void, peak: *mut i64) -> *mut c_char;
    pub fn segdist_enclose_script(
        path: *const c_char,
        source: *const c_char,
        names: *const *const c_char,
        tensors: *const *mut C_tensor,
        count: usize,
    ) -> *mut c_char;
    pub fn segdist_peak_device_bytes(index: c_int, bytes: *mut i64) -> *mut c_char;
}

/// Turns a message of the shim into a result and frees it.
pub fn check(message: *mut c_char) -> Result<(), TorchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a NUL-terminated string from strdup that is ours to free.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above; `text` is a copy.
    unsafe { libc::free(message.cast()) };
    Err(TorchError(text.lines().next().unwrap_or_default().to_owned()))
}

/// The other way: null, or a message that C++ frees.
pub fn message(result: Result<(), String>) -> *mut c_char {
    match result {
        Ok(()) => std::ptr::null_mut(),
        Err(text) => {
            let text = std::ffi::CString::new(text.replace('\0', " ")).expect("no NUL is left");
            // SAFETY: `text` is NUL-terminated; strdup's copy belongs to C++.
            unsafe { libc::strdup(text.as_ptr()) }
        }
    }
}

/// The text of a caught panic.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}

/// The tensors' C++ addresses. The shim only copies the handles, it never writes through these.
pub fn pointers<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*mut C_tensor> {
    tensors.into_iter().map(|tensor| tensor.as_ptr().cast_mut()).collect()
}
