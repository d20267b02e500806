//! One update, the algorithm on a page.

use crate::checkpoint::Copying;
use crate::comm::trace::{Lane, Trace};
use crate::comm::{Comm, CommError, agree};
use crate::data::batch::{DeviceBatch, HostBatch};
use crate::data::loader::{Loader, StepBatch};
use crate::fault;
use crate::loss;
use crate::model::layers::{DropoutKey, Normalize};
use crate::model::{BnRunning, Network, Pass};
use crate::optim::{LossScale, Optimizer};
use crate::retry::{self, Counts};
use crate::schedule::{LossNorm, TrainConfig, poly};
use crate::sync::buckets::{Reduced, Reducer};
use crate::torch::{memory, precision};
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Everything an update changes or reads, on this rank.
pub struct Trainer {
    /// Parameters and running statistics, the same on every rank.
    pub network: Network,
    /// What updates them.
    pub optimizer: Optimizer,
    /// Sums gradients over ranks.
    pub reducer: Reducer,
    /// Agrees on a step before it is made.
    pub comm: Arc<dyn Comm>,
    /// Batch statistics of this rank or of all.
    pub norm: Box<dyn Normalize>,
    /// This rank's micro-batches.
    pub loader: Loader,
    /// TRAIN, with its global batch resolved.
    pub recipe: TrainConfig,
    /// MODEL.bn_running.
    pub running: BnRunning,
    /// Where the network is.
    pub device: Device,
    /// Finished updates.
    pub step: u64,
    /// What the loss is multiplied by: more than 1 with TRAIN.amp fp16.
    pub scale: LossScale,
    /// Where its parts are drawn.
    pub trace: Trace,
    /// A checkpoint that still copies what the next update will change.
    pub copying: Option<Copying>,
    /// Corrupt samples of this rank that were replaced since [`Shown`] last told.
    pub substituted: usize,
}

/// What an update did.
pub struct Update {
    /// Number of this update, from 1.
    pub step: u64,
    /// The rate it was made with.
    pub lr_encoder: f64,
    /// The rate it was made with.
    pub lr_decoder: f64,
    /// This rank's part of the loss.
    pub loss: f64,
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

impl Trainer {
    /// Makes the next update of the network: the same one on every rank.
    pub fn step(&mut self, stop: bool) -> anyhow::Result<Update> {
        let trace = self.trace.clone();
        let span = |name| trace.span(Lane::Step, name);
        let start = Instant::now();
        let waiting = span("data");
        let batch = self.loader.next().map_err(fault::classified);
        drop(waiting);
        let data_s = start.elapsed().as_secs_f64();
        let (batch, mut totals) = self.agree(batch, stop)?;
        self.substituted += batch.substituted;

        self.reducer.zero();
        let last = batch.rounds.len().saturating_sub(1);
        for (round, part) in batch.rounds.iter().enumerate() {
            let forward = span("forward");
            let sums = self.forward(part)?;
            drop(forward);
            if round == last {
                self.reducer.arm();
            }
            let _backward = span("backward");
            self.backward(sums, part, &mut totals)?;
        }
        let waiting = span("wait for gradients");
        let reduced = self.reducer.wait()?;
        drop(waiting);
        let (loss, shown) = self.sum_up(&totals)?;
        // Where the job outlives a rank: none may make an update that another cannot make.
        if !self.comm.vote(true)? {
            return Err(CommError::Outvoted.into());
        }

        // The norm is that of the summed gradients, so every rank takes the same branch.
        let committed = reduced.squared_norm.is_finite();
        self.copying = None;
        let factor = poly(self.step, self.recipe.total_steps(), self.recipe.lr_pow);
        let (lr_encoder, lr_decoder) = (self.recipe.lr_encoder * factor, self.recipe.lr_decoder * factor);
        if committed {
            let _optimizer = span("optimizer");
            self.optimizer.step(lr_encoder, lr_decoder, self.clip(&reduced) / self.scale.value())?;
            self.network.commit_statistics(self.running);
        } else {
            self.network.discard_statistics();
        }
        let overflow = self.scale.update(committed);
        self.step += 1;
        trace.end_step();
        Ok(Update {
            step: self.step,
            lr_encoder,
            lr_decoder,
            loss,
            shown,
            stop: totals.stop,
            committed,
            overflow,
            data_s,
            comm_s: reduced.waited_s,
            step_s: start.elapsed().as_secs_f64(),
            samples: batch.rounds.iter().flatten().flat_map(|part| part.samples.clone()).collect(),
        })
    }

    /// Before any rank enters the step: how many labels all batches have, whether a rank asks to stop, and whether all
    /// have their batch; one that has none ends the job on all ranks, with its reason.
    fn agree(&self, batch: anyhow::Result<StepBatch>, stop: bool) -> anyhow::Result<(StepBatch, Totals)> {
        let valid = batch.as_ref().map_or(0, valid_labels);
        let mut counts = [valid, stop.into(), batch.is_err().into()];
        self.comm.all_reduce_i64(&mut counts)?;
        let [valid, stops, failures] = counts;
        let batch = if failures > 0 { agree::agree(&*self.comm, batch)? } else { batch? };
        Ok((batch, Totals { valid, stop: stops > 0, ..Totals::default() }))
    }

    /// This rank's loss; loss and accuracy of all, where TRAIN.disp_iter wants to see them.
    fn sum_up(&mut self, totals: &Totals) -> Result<(f64, Option<Shown>), CommError> {
        let (loss, step) = (totals.loss(), self.step + 1);
        if !step.is_multiple_of(self.recipe.disp_iter) && step != self.recipe.total_steps() {
            return Ok((loss, None));
        }
        let Counts { retries, failures } = retry::take_counts();
        let substituted = std::mem::take(&mut self.substituted);
        let mut sums = [loss, totals.correct() as f64, retries as f64, failures as f64, substituted as f64];
        self.comm.all_reduce_f64(&mut sums)?;
        let [loss_of_all, correct, retries, failures, substituted] = sums;
        let shown = Shown {
            loss: loss_of_all,
            accuracy: correct / totals.valid.max(1) as f64,
            reads: Counts { retries: retries as u64, failures: failures as u64 },
            substituted: substituted as u64,
        };
        Ok((loss, Some(shown)))
    }

    /// Σ nll of both heads, and the correctly labelled pixels.
    ///
    /// Where this rank has no micro-batch left, an empty one takes part in the statistics of the others; without
    /// batch statistics there is nothing to take part in.
    fn forward(&self, part: &Option<HostBatch>) -> anyhow::Result<Option<Sums>> {
        fault::point("forward");
        let train = !self.recipe.fix_bn;
        let DeviceBatch { images, labels } = match part {
            Some(part) => part.to_device(self.device),
            None if train => DeviceBatch::empty(self.device),
            None => return Ok(None),
        };
        let images = if self.recipe.channels_last { memory::to_channels_last(&images) } else { images };
        let first = part.as_ref().map_or(0, |part| part.first as u64);
        let key = DropoutKey { seed: self.recipe.seed, step: self.step, first };
        let pass = Pass { train, norm: &*self.norm, dropout: train.then_some(key), deep_supervision: true };
        // The loss is taken in f32 whatever TRAIN.amp says.
        let logits = precision::autocast(self.device, self.recipe.amp.kind(), || self.network.forward(&images, &pass))?;
        if let Some(failure) = self.norm.failure() {
            return Err(failure.into());
        }
        if part.is_none() {
            let nothing =
                logits.main.sum(Kind::Float) + logits.deepsup.map_or(0.0.into(), |deepsup| deepsup.sum(Kind::Float));
            return Ok(Some(Sums { nll: nothing, correct: Tensor::from(0i64) }));
        }
        let (main, deepsup) = (&logits.main, logits.deepsup.as_ref());
        let nll = loss::summed_nll_of_heads(main, deepsup, self.recipe.deep_sup_scale, &labels);
        Ok(Some(Sums { nll, correct: loss::correct_pixels(&logits.main, &labels) }))
    }

    /// Gradients of Σ nll ÷ labelled pixels, added to those that are there.
    fn backward(&self, sums: Option<Sums>, part: &Option<HostBatch>, totals: &mut Totals) -> anyhow::Result<()> {
        let Some(sums) = sums else { return Ok(()) };
        let own = part.as_ref().map_or(0, |part| part.valid);
        let divisor = match self.recipe.loss_norm {
            LossNorm::Global => totals.valid as f64,
            LossNorm::PerRank => own as f64 * self.recipe.micro_batches() as f64,
        };
        let loss = sums.nll / divisor.max(1.0);
        let scaled = if self.scale.value() == 1.0 { loss.shallow_clone() } else { &loss * self.scale.value() };
        // An error between ranks crosses libtorch as a text: the norm has kept the original.
        scaled.f_backward().map_err(|error| self.norm.failure().map_or_else(|| error.into(), anyhow::Error::from))?;
        totals.add(loss.detach(), sums.correct);
        Ok(())
    }

    /// What gradients are multiplied by so that their norm is at most TRAIN.clip_norm.
    fn clip(&self, reduced: &Reduced) -> f64 {
        let norm = reduced.squared_norm.sqrt() / self.scale.value();
        if self.recipe.clip_norm > 0.0 && norm > self.recipe.clip_norm { self.recipe.clip_norm / norm } else { 1.0 }
    }
}

struct Sums {
    nll: Tensor,
    correct: Tensor,
}

/// A step's sums; tensors stay on the device until someone reads them.
#[derive(Default)]
struct Totals {
    valid: i64,
    stop: bool,
    loss: Option<Tensor>,
    correct: Option<Tensor>,
}

impl Totals {
    fn add(&mut self, loss: Tensor, correct: Tensor) {
        self.loss = Some(self.loss.take().map_or_else(|| loss.shallow_clone(), |sum| sum + &loss));
        self.correct = Some(self.correct.take().map_or_else(|| correct.shallow_clone(), |sum| sum + &correct));
    }

    fn loss(&self) -> f64 {
        self.loss.as_ref().map_or(0.0, |loss| loss.to_kind(Kind::Double).double_value(&[]))
    }

    fn correct(&self) -> i64 {
        self.correct.as_ref().map_or(0, |correct| correct.int64_value(&[]))
    }
}

fn valid_labels(batch: &StepBatch) -> i64 {
    batch.rounds.iter().flatten().map(|part| part.valid as i64).sum()
}
