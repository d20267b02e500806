//! What an update did, for whoever follows a run.

use crate::retry::Counts;

/// What an update did.
pub struct Update {
    /// Number of this update, from 1.
    pub step: u64,
    /// The rate it was made with.
    pub lr_encoder: f64,
    /// The rate it was made with.
    pub lr_decoder: f64,
    /// Whether this rank's own part of the loss is finite.
    pub loss_is_finite: bool,
    /// What all ranks together have to show; None between the steps of TRAIN.disp_iter.
    pub shown: Option<Shown>,
    /// Whether a rank asked to stop after this update.
    pub stop: bool,
    /// Whether the gradients were finite and the update was made.
    pub committed: bool,
    /// Whether it was not, and a smaller loss scale may mend that.
    pub overflow: bool,
    /// Seconds waited for data.
    pub data_s: f64,
    /// Seconds of backward.
    pub backward_s: f64,
    /// Seconds waited for other ranks after backward.
    pub comm_s: f64,
    /// Seconds from the wait for its data to the update.
    pub step_s: f64,
    /// Samples of this rank, for the message when something is wrong with them.
    pub samples: Vec<u32>,
}

/// Loss and accuracy (0 to 1) of a whole global batch, and what reading has cost all ranks.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Deep supervision included.
    pub loss: f64,
    /// Correctly labelled pixels ÷ labelled pixels.
    pub accuracy: f64,
    /// Reads tried again, and reads given up, since the last time.
    pub reads: Counts,
    /// Corrupt samples that were replaced since the last time.
    pub substituted: u64,
}
