//! What libtorch has and tch hides: gradient hooks, backward functions in Rust, fused updates, autocast on the CPU,
//! memory order, and loading CUDA at run time. `shim.cpp` is the C++ half.
//!
//! An error never unwinds through C++: a panic or error in a Rust closure called by libtorch crosses it as a
//! `c10::Error` and comes out of the `backward` call that ran the closure.

pub mod autograd;
mod cuda;
mod ffi;
pub mod fused;
pub mod memory;
pub mod precision;

pub use cuda::load_cuda;
pub use ffi::TorchError;
