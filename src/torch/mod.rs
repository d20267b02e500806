//! What libtorch has and tch hides: gradient hooks, backward functions in Rust, fused updates, autocast on the CPU,
//! memory order, TorchScript, streams of a GPU, and loading CUDA at run time. `shim.cpp` is the C++ half. And NCCL, which
//! comes with it.
//!
//! An error never unwinds through C++: a panic or error in a Rust closure called by libtorch crosses it as a
//! `c10::Error` and comes out of the `backward` call that ran the closure.

pub mod allocator;
pub mod autograd;
pub mod batch_norm;
mod cuda;
pub mod driver;
mod ffi;
pub mod fused;
pub mod memory;
pub mod meter;
pub mod nccl;
pub mod precision;
pub mod script;
pub mod stream;
pub mod trouble;
pub mod upload;

pub use cuda::{Gpus, load_cuda, may_use_gpus};
pub use ffi::TorchError;

use crate::comm::CommError;
use std::fmt::Display;

/// Makes a failure between ranks of one on this rank's device, for `map_err`.
pub fn failed<E: Display>(call: &'static str, rank: usize) -> impl Fn(E) -> CommError {
    move |error| CommError::Failed { call, rank, cause: error.to_string() }
}
