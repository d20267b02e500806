//! What sets libtorch's number of threads, which belongs to the whole process: a test holds it as it needs it.

#[path = "../common/mod.rs"]
mod common;
#[path = "../golden/mod.rs"]
mod golden;

mod empty_batch;
mod eval;
mod losses;
mod seams;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static TORCH_THREADS: RwLock<()> = RwLock::new(());

/// One thread, shared with others who want one: the order of sums depends on it.
fn one_thread() -> RwLockReadGuard<'static, ()> {
    let guard = TORCH_THREADS.read().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    guard
}

/// For who sets the number, or calls what sets it.
fn own_threads() -> RwLockWriteGuard<'static, ()> {
    TORCH_THREADS.write().unwrap_or_else(PoisonError::into_inner)
}
