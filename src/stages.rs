//! Where the time of a sample goes, for `segdist bench loader`: clocks in the code that training runs, off until asked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// A part of the way from a record to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reaching the bytes.
    Read,
    /// Their checksums.
    Crc,
    /// JPEG or PNG to RGB.
    Decode,
    /// Flip, resize and whatever else changes the image.
    Augment,
    /// Decoding the label and shrinking it.
    Label,
}

/// How many there are.
pub const COUNT: usize = Stage::Label as usize + 1;

static ON: AtomicBool = AtomicBool::new(false);
static NANOSECONDS: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];

/// Starts all clocks at zero.
pub fn start() {
    NANOSECONDS.iter().for_each(|clock| clock.store(0, Relaxed));
    ON.store(true, Relaxed);
}

/// Stops all clocks: seconds of every stage, in their order, summed over threads.
pub fn stop() -> [f64; COUNT] {
    ON.store(false, Relaxed);
    NANOSECONDS.each_ref().map(|clock| clock.load(Relaxed) as f64 / 1e9)
}

/// Does `work`, on the stage's clock if the clocks run. Stages do not nest.
#[inline]
pub fn time<T>(stage: Stage, work: impl FnOnce() -> T) -> T {
    if !ON.load(Relaxed) {
        return work();
    }
    let start = Instant::now();
    let done = work();
    NANOSECONDS[stage as usize].fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
    done
}
