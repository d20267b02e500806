//! The last line of defence under a mapped shard: a SIGBUS ends the process with the shard's name, not with silence.
//!
//! A file that shrinks between [`super::Shard`]'s check and the read of its bytes raises SIGBUS. The handler may only
//! do what is async-signal-safe: it walks a list that is never freed, writes with write(2) and leaves with _exit(2), the
//! code being 2 where the file was cut short, and 1 where it could only not be read.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Once};

/// A mapped range; freed never, so that the handler can read it at any time.
struct Region {
    start: usize,
    /// 0 once unmapped.
    end: AtomicUsize,
    /// To ask how long the file is now.
    file: libc::c_int,
    name: String,
    next: AtomicPtr<Region>,
}

static REGIONS: AtomicPtr<Region> = AtomicPtr::new(ptr::null_mut());
static RANK: AtomicI64 = AtomicI64::new(-1);

/// Keeps a mapped range known to the handler while it lives.
pub(super) struct Watch {
    region: &'static Region,
    _file: Arc<File>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.region.end.store(0, Ordering::Release);
    }
}

/// The rank that the handler's message names; not set, it names none.
pub fn set_rank(rank: usize) {
    RANK.store(rank as i64, Ordering::Relaxed);
}

/// Makes a SIGBUS in `length` bytes from `start`, where `file` is mapped, end the process with a message that names it.
pub(super) fn watch(start: *const u8, length: usize, file: &Arc<File>, path: &Path) -> Watch {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(install);
    let start = start as usize;
    let region: &'static Region = Box::leak(Box::new(Region {
        start,
        end: AtomicUsize::new(start + length),
        file: file.as_raw_fd(),
        name: path.display().to_string(),
        next: AtomicPtr::new(ptr::null_mut()),
    }));
    let link = |head| {
        region.next.store(head, Ordering::Release);
        Some(ptr::from_ref(region).cast_mut())
    };
    // Never fails: `link` always has a new head.
    let _ = REGIONS.fetch_update(Ordering::AcqRel, Ordering::Acquire, link);
    Watch { region, _file: file.clone() }
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
                if is_cut(current) {
                    say(b": was truncated or replaced while it was read; copy the shard again\n");
                    libc::_exit(2);
                }
                say(b": could not be read: the disk or the network failed\n");
                libc::_exit(1);
            }
            region = current.next.load(Ordering::Acquire);
        }
        // Not ours: the default action, once the instruction runs again.
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

/// Whether the file is shorter than it was when it was mapped.
fn is_cut(region: &Region) -> bool {
    // SAFETY: a zeroed stat is a valid one, and fstat writes nothing else; it is async-signal-safe.
    unsafe {
        let mut about: libc::stat = std::mem::zeroed();
        let length = region.end.load(Ordering::Acquire) - region.start;
        libc::fstat(region.file, &mut about) == 0 && (about.st_size as usize) < length
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
