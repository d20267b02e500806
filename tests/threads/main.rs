//! What sets libtorch's number of threads, which belongs to the whole process.

#[path = "../common/mod.rs"]
mod common;
#[path = "../golden/mod.rs"]
mod golden;

mod empty_batch;
mod eval;
mod seams;
