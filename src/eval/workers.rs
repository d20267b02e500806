//! Items dealt to threads, each with a network and a share of the cores of its own.
//!
//! Threads that compute one image together wait for each other at every layer, most of all where cores are shared with
//! others. An image a thread needs no waiting, and what it computes does not depend on how many threads there are.

use rayon::ThreadPoolBuilder;
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::Device;

/// Enough to keep a GPU busy while others decode and fuse; each has an image's activations there.
const FOR_A_GPU: usize = 4;

/// Threads of this process for computing.
fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

/// How many workers there should be for `items`.
pub fn number(items: usize, device: Device) -> usize {
    let most = if device == Device::Cpu { threads() } else { threads().min(FOR_A_GPU) };
    most.min(items).max(1)
}

/// Gives items 0 to `count` to `workers`, in any order, each worker on a thread of its own; returns the workers.
///
/// Where there are fewer workers than threads, each has several in rayon's hands, and in libtorch's too if `within`
/// says so: sooner done, but the last digits of scores then depend on how many threads there are.
///
/// # Errors
/// The first that `work` returns, by worker; the rest of the items is left then.
pub fn share<W: Send>(
    workers: Vec<W>,
    count: usize,
    within: bool,
    work: impl Fn(&mut W, usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Vec<W>> {
    let all = threads();
    let each = (all / workers.len().max(1)).max(1);
    let next = AtomicUsize::new(0);
    let work_through = |mut worker: W| {
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                return Ok(worker);
            }
            if let Err(cause) = work(&mut worker, item) {
                next.store(count, Ordering::Relaxed);
                return Err(cause);
            }
        }
    };
    // How many threads libtorch takes is set thread by thread.
    let in_torch = if within { each as i32 } else { 1 };
    let pool = || ThreadPoolBuilder::new().num_threads(each).start_handler(move |_| tch::set_num_threads(in_torch));
    let done = std::thread::scope(|scope| {
        let start = |worker: W| scope.spawn(|| pool().build()?.install(|| work_through(worker)));
        let started: Vec<_> = workers.into_iter().map(start).collect();
        started.into_iter().map(|thread| thread.join().expect("a panic has ended the process")).collect()
    });
    tch::set_num_threads(all as i32);
    done
}
