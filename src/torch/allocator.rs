//! The allocator of Rust's own memory, which says so in one line where there is none left: the standard one aborts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicPtr, Ordering};

/// The system's allocator; where it has nothing left, the process ends with code 2 and the line of [`say`].
pub struct Telling;

/// What is written where memory runs out: a leaked text, since nothing can be made then.
static LINE: AtomicPtr<String> = AtomicPtr::new(std::ptr::null_mut());

/// Sets the line, its newline included.
pub fn say(line: String) {
    LINE.store(Box::into_raw(Box::new(line)), Ordering::Release);
}

/// Code of a job that has too little memory for what the user gave.
const SHORTAGE: i32 = 2;

#[cold]
fn end() -> ! {
    let line = LINE.load(Ordering::Acquire);
    // SAFETY: the pointer is null or comes from a box that is never freed.
    let line = unsafe { line.as_ref() }.map_or("segdist: there is too little memory\n", String::as_str);
    // SAFETY: the bytes are alive, and both calls may be made anywhere.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        libc::_exit(SHORTAGE)
    }
}

fn told(memory: *mut u8) -> *mut u8 {
    if memory.is_null() { end() } else { memory }
}

// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Telling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        told(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        told(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        told(unsafe { System.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}
