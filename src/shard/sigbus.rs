//! The last line of defence under a mapped shard: a SIGBUS ends the process with the shard's name, not with silence.
//!
//! The exit code is 1: whether the file was cut short or the disk failed for a moment is not known here, and the next
//! start checks every shard.
//!
//! A file that shrinks between [`super::Shard`]'s check and the read of its bytes raises SIGBUS. The handler may only
//! do what is async-signal-safe: it walks a list that is never freed, writes with write(2) and leaves with _exit(2).

use std::path::Path;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicUsize, Ordering};

/// A mapped range; freed never, so that the handler can read it at any time.
struct Region {
    start: usize,
    /// 0 once unmapped.
    end: AtomicUsize,
    name: String,
    next: AtomicPtr<Region>,
}

static REGIONS: AtomicPtr<Region> = AtomicPtr::new(ptr::null_mut());
static RANK: AtomicI64 = AtomicI64::new(-1);

/// Keeps a mapped range known to the handler while it lives.
pub(super) struct Watch(&'static Region);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
    }
}

/// The rank that the handler's message names; not set, it names none.
pub fn set_rank(rank: usize) {
    RANK.store(rank as i64, Ordering::Relaxed);
}

/// Makes a SIGBUS in `length` bytes from `start` end the process with a message that names `file`.
pub(super) fn watch(start: *const u8, length: usize, file: &Path) -> Watch {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(install);
    let start = start as usize;
    let region: &'static Region = Box::leak(Box::new(Region {
        start,
        end: AtomicUsize::new(start + length),
        name: file.display().to_string(),
        next: AtomicPtr::new(ptr::null_mut()),
    }));
    let link = |head| {
        region.next.store(head, Ordering::Release);
        Some(ptr::from_ref(region).cast_mut())
    };
    // Never fails: `link` always has a new head.
    let _ = REGIONS.fetch_update(Ordering::AcqRel, Ordering::Acquire, link);
    Watch(region)
}

fn install() {
    // SAFETY: a zeroed sigaction is a valid one, and `on_sigbus` does only what is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
    }
}

extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo; regions are leaked, so every pointer of the list stays valid.
    unsafe {
        let address = (*info).si_addr() as usize;
        let mut region = REGIONS.load(Ordering::Acquire);
        while let Some(current) = region.as_ref() {
            if (current.start..current.end.load(Ordering::Acquire)).contains(&address) {
                say(b"segdist: ");
                say_rank();
                say(current.name.as_bytes());
                say(b": could not be read under its map: the disk failed, or the shard was truncated or replaced\n");
                libc::_exit(1);
            }
            region = current.next.load(Ordering::Acquire);
        }
        // Not ours: the default action, once the instruction runs again.
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

fn say(text: &[u8]) {
    // SAFETY: write(2) only reads the slice; nothing can be done if it fails.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

fn say_rank() {
    let rank = RANK.load(Ordering::Relaxed);
    if rank < 0 {
        return;
    }
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = rank;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    say(b"rank ");
    say(&digits[at..]);
    say(b": ");
}
