//! segdist trains encoder-decoder networks for semantic segmentation on clusters: one MPI rank for each GPU (or for some
//! cores where there is none), gradients summed by allreduce while backward goes on, no Python at run time.
//!
//! The networks, the recipe and the weight files are those of CSAILVision/semantic-segmentation-pytorch, called "the
//! reference" throughout; and [`model`] has those that people train today, as torchvision, transformers, timm and
//! segmentation_models.pytorch build them, with a page on how to add more.
//!
//! # One sample, from disk to update
//!
//! 1. [`data::order`] says which samples make step *t*: a pure function of the list, the seed and the global batch.
//! 2. [`data::loader`] has its own threads [`data::assemble`] the step: they read a sample from a [`shard`] or from files
//!    ([`data::source`]; what fails is read again, see [`retry`]), check its CRC, decode it, and [`data::augment`] flips
//!    and resizes it exactly as the reference does. Micro-batches stay u8 until they are on the device ([`data::batch`]).
//! 3. [`train::Trainer::step`] runs [`model::Network::forward`] on it and takes the sums over pixels that a [`loss`] is
//!    a function of.
//! 4. Backward of the undivided sum fills gradient buckets; [`sync::buckets`] sums each over ranks as it fills, by a
//!    [`sync::backend`], and [`sync::batch_norm`] normalises by statistics of all ranks. Beside that goes the one small
//!    sum of a step: the loss's sums, does anyone want to stop, has everyone its next batch?
//! 5. When the last bucket is in: finite? The summed gradients say so, the same on every rank. [`optim`] divides them by
//!    the global count and updates the parameters at the rate of a [`schedule`], the running statistics follow, and the
//!    step counter: all or nothing.
//! 6. [`train`] reports, evaluates ([`eval`]) and saves ([`checkpoint`]) when due.
//!
//! # Reading order
//!
//! The modules below are listed from top to bottom; one imports only from those above it, which `tests/tidy` checks.
//! A section of the configuration lives beside its user ([`train::TrainConfig`]) and validates itself; [`config`] only
//! composes them, and a module gets its section, never the whole.
//!
//! # Where to add things
//!
//! A part that people add is one file and one row of a table, and its page says how, with an example: an encoder or a
//! decoder ([`model`]), a loss ([`loss`]), a schedule of the learning rate ([`schedule`]), an augmentation
//! ([`data::augment`]), a data source ([`data::source`]), a way for gradients ([`sync::backend`]). A test brings parts of
//! its own without touching any other file (`tests/threads/seams.rs`, `tests/library`). [`train::Trainer`] takes a source
//! of batches ([`data::batch_source`]); training, `bench` and the tests all drive that one.
//!
//! # Invariants
//!
//! - **No random generator outlives a step.** Permutations are keyed by (seed, pass), augmentation by (seed, pass,
//!   sample), dropout by (seed, step, index in the global batch, layer). A resume point is the step number alone.
//! - **The number of ranks changes nothing but speed.** Loss and gradients are weighted by the global count of labelled
//!   pixels; a step is the global batch, dealt in rounds of micro-batches, and ranks without one run an empty one.
//! - **No rank decides alone** on anything around a collective: finite, stop, which checkpoint, which configuration.
//! - **Nothing sent or written is iterated from a hash map.**
//! - **Data are known by their content**: samples and the classes of their labels have ids, their places do not count.
//! - **What may pass ends with code 1, what is to be mended with 2**: an error's variant says which ([`fault`]).
//! - **A name that exists is complete.** Shards and checkpoints appear by rename after fsync, and vanish by rename first.
//! - **One rank failing ends all** in bounded time, non-zero, with one message that names the rank and the cause.
//! - **Padding is never a class**: padded pixels are −1.

//!
//! # For those who use it
//!
//! [`guide`]: your own data, the recipe, clusters, runs and their ends, every key.

#![warn(missing_docs)]

pub mod guide;

// What every module may use; first the macros, which those below find by their order.
#[macro_use]
pub mod streams;
pub mod durable;
pub mod fault;
pub mod retry;
pub mod stages;
pub mod stop;

// Ranks, libtorch, and the record format.
pub mod comm;
pub mod shard;
pub mod torch;

// Pure functions.
pub mod loss;
pub mod metrics;
pub mod schedule;

// The parts of a step.
pub mod model;
pub mod optim;

pub mod data;
pub mod sync;

// What a run leaves behind, and where.
pub mod run_dir;

pub mod checkpoint;
pub mod report;

// Verbs.
pub mod bench;
pub mod convert;
pub mod demo;
pub mod demo_data;
pub mod doctor;
pub mod eval;
pub mod init;
pub mod pack;
pub mod plan;
pub mod predict;
pub mod train;
pub mod verify;
pub mod watch;

// The program.
pub mod cli;
pub mod config;
