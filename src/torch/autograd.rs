//! Hooks on gradients and backward functions written in Rust.

use super::TorchError;
use super::ffi::{self, Closure};
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::Tensor;
use torch_sys::C_tensor;

type OnGradient = Box<dyn FnMut(Tensor) -> Result<(), String> + Send>;
type Backward = Box<dyn FnMut(Tensor) -> Result<Vec<Tensor>, String> + Send>;

/// Hands every finished gradient of `parameter` to `take` during backward, instead of keeping it in `.grad()`.
///
/// `take` runs on autograd's thread. Its error or panic ends the backward that caused it. One hook per parameter.
pub fn on_gradient(
    parameter: &Tensor,
    take: impl FnMut(Tensor) -> Result<(), String> + Send + 'static,
) -> Result<(), TorchError> {
    unsafe extern "C" fn call(
        context: *mut c_void,
        gradient: *mut C_tensor,
        _: *mut *mut C_tensor,
        _: usize,
    ) -> *mut c_char {
        // SAFETY: `context` is the box leaked below, alive until `drop`, and autograd calls one hook at a time.
        let take = unsafe { &mut *context.cast::<OnGradient>() };
        // SAFETY: the shim made this tensor for us to own.
        let gradient = unsafe { Tensor::from_ptr(gradient) };
        ffi::message(caught(|| take(gradient)))
    }
    unsafe extern "C" fn drop(context: *mut c_void) {
        // SAFETY: called once, with the box leaked below.
        std::mem::drop(unsafe { Box::from_raw(context.cast::<OnGradient>()) });
    }
    let take: OnGradient = Box::new(take);
    let context = Box::into_raw(Box::new(take)).cast();
    // SAFETY: the tensor is alive; the shim owns the closure from here and drops it with the hook.
    ffi::check(unsafe { ffi::segdist_on_gradient(parameter.as_ptr().cast_mut(), Closure { context, call, drop }) })
}

/// Removes the hook of [`on_gradient`].
pub fn clear_hook(parameter: &Tensor) -> Result<(), TorchError> {
    // SAFETY: the tensor is alive.
    ffi::check(unsafe { ffi::segdist_clear_hook(parameter.as_ptr().cast_mut()) })
}

/// Makes `output`, computed from `inputs` without gradients, differentiable: `backward` maps the gradient of the
/// output to those of the inputs, in order.
///
/// `backward` is dropped after it has run once, and with it what it holds; it must not hold `output`. Its error or
/// panic comes out of the call that started the backward pass.
pub fn attach_backward(
    output: &Tensor,
    inputs: &[&Tensor],
    backward: impl FnMut(Tensor) -> Result<Vec<Tensor>, String> + Send + 'static,
) -> Result<(), TorchError> {
    unsafe extern "C" fn call(
        context: *mut c_void,
        gradient: *mut C_tensor,
        results: *mut *mut C_tensor,
        count: usize,
    ) -> *mut c_char {
        // SAFETY: `context` is the box leaked below, alive until `drop`; a node runs on one thread.
        let backward = unsafe { &mut *context.cast::<Backward>() };
        // SAFETY: the shim made this tensor for us to own.
        let gradient = unsafe { Tensor::from_ptr(gradient) };
        // SAFETY: `results` points to `count` pointers for the length of this call.
        let results = unsafe { std::slice::from_raw_parts_mut(results, count) };
        ffi::message(caught(|| {
            let gradients = tch::no_grad(|| backward(gradient))?;
            if gradients.len() != count {
                return Err(format!("a backward function gave {} gradients for {count} inputs", gradients.len()));
            }
            for (slot, gradient) in results.iter_mut().zip(gradients) {
                *slot = std::mem::ManuallyDrop::new(gradient).as_mut_ptr();
            }
            Ok(())
        }))
    }
    unsafe extern "C" fn drop(context: *mut c_void) {
        // SAFETY: called once, with the box leaked below.
        std::mem::drop(unsafe { Box::from_raw(context.cast::<Backward>()) });
    }
    let backward: Backward = Box::new(backward);
    let context = Box::into_raw(Box::new(backward)).cast();
    let from = ffi::pointers(inputs.iter().copied());
    let closure = Closure { context, call, drop };
    // SAFETY: the tensors are alive, `from` has the length given; the shim owns the closure from here.
    ffi::check(unsafe { ffi::segdist_attach_backward(output.as_ptr().cast_mut(), from.as_ptr(), from.len(), closure) })
}

/// Backward from several tensors at once, each with the gradient of what comes after it.
///
/// # Errors
/// When there are not as many gradients as outputs, and as any backward pass.
pub fn backward(outputs: &[Tensor], gradients: &[Tensor]) -> Result<(), TorchError> {
    if outputs.len() != gradients.len() {
        return Err(TorchError(format!("{} gradients for {} tensors", gradients.len(), outputs.len())));
    }
    let (from, with) = (ffi::pointers(outputs), ffi::pointers(gradients));
    // SAFETY: two lists of live tensors, each of the length given.
    ffi::check(unsafe { ffi::segdist_backward(from.as_ptr(), with.as_ptr(), from.len()) })
}

fn caught(body: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(ffi::panic_text(&*panic)))
}
