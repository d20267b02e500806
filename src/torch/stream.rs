//! Streams and events of a GPU, by way of libtorch's core: CUDA's own library is loaded at run time and never linked.
//!
//! On the CPU, which works in order, both are there and do nothing.

use super::{TorchError, ffi};
use std::ffi::c_void;
use std::time::Duration;
use tch::Device;

/// How often a wait looks whether it is over: CUDA's own wait spins and takes a core.
pub(super) const LOOK: Duration = Duration::from_micros(50);

/// Makes `device` the one that the calling thread's calls of CUDA are about. Without it they would start GPU 0 on every
/// rank of a host, with half a gigabyte of its memory each. Call it on every thread that records or waits.
pub fn enter_device(device: Device) -> Result<(), TorchError> {
    let Device::Cuda(index) = device else { return Ok(()) };
    // SAFETY: takes a number only.
    ffi::check(unsafe { ffi::segdist_device_enter(index as i32) })
}

/// A queue of work beside the one that a thread uses by default.
pub struct Stream(Option<OfGpu>);

/// libtorch's number of a stream, and CUDA's own handle to it.
struct OfGpu {
    index: i32,
    id: i64,
    handle: *mut c_void,
}

// SAFETY: the handle is CUDA's, which lets any thread use any stream; libtorch's pool keeps it for the process's life.
unsafe impl Send for OfGpu {}

impl Stream {
    /// A stream of `device`.
    pub fn new(device: Device) -> Result<Stream, TorchError> {
        let Device::Cuda(index) = device else { return Ok(Stream(None)) };
        let (index, mut id, mut handle) = (index as i32, 0, std::ptr::null_mut());
        // SAFETY: the pointers are valid for the call.
        ffi::check(unsafe { ffi::segdist_stream_new(index, &mut id, &mut handle) })?;
        Ok(Stream(Some(OfGpu { index, id, handle })))
    }

    /// The one that the calling thread's work on the device goes to now.
    pub fn current(device: Device) -> Result<Stream, TorchError> {
        let Device::Cuda(index) = device else { return Ok(Stream(None)) };
        let (index, mut id, mut handle) = (index as i32, 0, std::ptr::null_mut());
        // SAFETY: the pointers are valid for the call.
        ffi::check(unsafe { ffi::segdist_stream_current(index, &mut id, &mut handle) })?;
        Ok(Stream(Some(OfGpu { index, id, handle })))
    }

    /// From now on the calling thread's work on the device goes here.
    pub fn enter(&self) -> Result<(), TorchError> {
        let Some(OfGpu { index, id, .. }) = &self.0 else { return Ok(()) };
        // SAFETY: the numbers of a stream that libtorch gave.
        ffi::check(unsafe { ffi::segdist_stream_enter(*index, *id) })
    }

    /// The cudaStream_t; null on the CPU.
    pub(super) fn handle(&self) -> *mut c_void {
        self.0.as_ref().map_or(std::ptr::null_mut(), |stream| stream.handle)
    }
}

/// A mark in a device's work.
pub struct Event(Option<Mark>);

struct Mark(*mut c_void);

// SAFETY: one thread at a time uses it, as `Event` is not `Sync`; CUDA lets that be any thread.
unsafe impl Send for Mark {}

impl Event {
    /// A mark behind what the calling thread has handed over to `device` so far.
    pub fn record(device: Device) -> Result<Event, TorchError> {
        let Device::Cuda(index) = device else { return Ok(Event(None)) };
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call.
        ffi::check(unsafe { ffi::segdist_event_record(index as i32, &mut event) })?;
        Ok(Event(Some(Mark(event))))
    }

    /// What is handed over to `stream` from now on begins when the mark is reached. Does not wait.
    pub fn hold(&self, stream: &Stream) -> Result<(), TorchError> {
        let (Some(mark), Some(stream)) = (&self.0, &stream.0) else { return Ok(()) };
        // SAFETY: the event lives until it is dropped; the numbers are a stream's that libtorch gave.
        ffi::check(unsafe { ffi::segdist_event_hold(mark.0, stream.index, stream.id) })
    }

    /// Returns when the device has come so far.
    pub fn wait(&self) -> Result<(), TorchError> {
        while !self.reached()? {
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether the device has come so far.
    pub fn reached(&self) -> Result<bool, TorchError> {
        let Some(mark) = &self.0 else { return Ok(true) };
        let mut reached = 0;
        // SAFETY: the event lives until it is dropped; the pointer is valid for the call.
        ffi::check(unsafe { ffi::segdist_event_reached(mark.0, &mut reached) })?;
        Ok(reached != 0)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: made by `record`, freed once.
        unsafe { ffi::segdist_event_free(self.0) }
    }
}
