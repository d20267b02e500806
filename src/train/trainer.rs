//! One update, the algorithm on a page.

use super::links::Links;
use super::{Beginning, Recipe, Replica, TrainConfig};
use crate::checkpoint::Copying;
use crate::comm::trace::Lane;
use crate::comm::{CommError, agree};
use crate::data::batch::{DeviceBatch, HostBatch};
use crate::data::batch_source::{BatchSource, StepBatch};
use crate::fault;
use crate::loss::{self, LossNorm};
use crate::model::layers::DropoutKey;
use crate::model::{BnRunning, Network, Pass};
use crate::optim::{LossScale, Optimizer};
use crate::retry::{self, Counts};
use crate::schedule::Schedule;
use crate::sync::buckets::Reduced;
use crate::torch::{memory, precision};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Everything an update changes or reads, on this rank. Batches come from `B`.
pub struct Trainer<B> {
    /// Parameters and running statistics, the same on every rank.
    pub(super) network: Network,
    /// What updates them.
    pub(super) optimizer: Optimizer,
    /// What the loss is multiplied by: more than 1 with TRAIN.amp fp16.
    pub(super) scale: LossScale,
    /// Finished updates.
    pub(super) step: u64,
    /// A checkpoint that still copies what the next update will change.
    pub(super) copying: Option<Copying>,
    /// Corrupt samples of this rank that were replaced since [`Shown`] last told.
    substituted: usize,
    batches: B,
    links: Links,
    schedule: Box<dyn Schedule>,
    config: TrainConfig,
    running: BnRunning,
    device: Device,
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

impl<B: BatchSource> Trainer<B> {
    /// Puts the parts together; `batches` begin at `beginning.step`.
    pub fn new(recipe: &Recipe, replica: Replica, links: Links, batches: B, beginning: &Beginning) -> Trainer<B> {
        let config = TrainConfig { global_batch: beginning.global_batch, ..recipe.train.clone() };
        let scale = config.first_loss_scale();
        Trainer {
            device: replica.flat.gradients.device(),
            network: replica.network,
            optimizer: replica.optimizer,
            scale: beginning.loss_scale.map_or(scale, |(value, good)| scale.restored(value, good)),
            step: beginning.step,
            copying: None,
            substituted: 0,
            batches,
            links,
            schedule: config.schedule(),
            running: recipe.model.bn_running,
            config,
        }
    }

    /// With another schedule than TRAIN's.
    pub fn with_schedule(self, schedule: Box<dyn Schedule>) -> Trainer<B> {
        Trainer { schedule, ..self }
    }

    /// What is trained.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Makes the next update of the network: the same one on every rank.
    pub fn step(&mut self, stop: bool) -> anyhow::Result<Update> {
        let trace = self.links.journal.trace.clone();
        let span = |name| trace.span(Lane::Step, name);
        let start = Instant::now();
        let waiting = span("data");
        let batch = self.batches.next();
        drop(waiting);
        let data_s = start.elapsed().as_secs_f64();
        let (batch, mut totals) = self.agree(batch, stop)?;
        self.substituted += batch.substituted;

        self.links.reducer.zero();
        let mut backward_s = 0.0;
        let last = batch.rounds.len().saturating_sub(1);
        for (round, part) in batch.rounds.iter().enumerate() {
            let forward = span("forward");
            let sums = self.forward(part)?;
            drop(forward);
            if round == last {
                self.links.reducer.arm();
            }
            let (start, _backward) = (Instant::now(), span("backward"));
            self.backward(sums, part, &mut totals)?;
            backward_s += start.elapsed().as_secs_f64();
        }
        let waiting = span("wait for gradients");
        let reduced = self.links.reducer.wait()?;
        drop(waiting);
        let (loss, shown) = self.sum_up(&totals)?;
        // Where the job outlives a rank: none may make an update that another cannot make.
        if !self.links.comm.vote(true)? {
            return Err(CommError::Outvoted.into());
        }

        // The norm is that of the summed gradients, so every rank takes the same branch.
        let committed = reduced.squared_norm.is_finite();
        self.wait_for_copy();
        let factor = self.schedule.factor(self.step);
        let (lr_encoder, lr_decoder) = (self.config.lr_encoder * factor, self.config.lr_decoder * factor);
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
            backward_s,
            comm_s: reduced.waited_s,
            step_s: start.elapsed().as_secs_f64(),
            samples: batch.rounds.iter().flatten().flat_map(|part| part.samples.clone()).collect(),
        })
    }

    /// Gives up the step under way, after the death of a rank.
    pub(super) fn break_off(&mut self) {
        self.links.disconnect();
        self.network.discard_statistics();
    }

    /// Goes on after [`Trainer::break_off`], among the ranks that are left. A collective.
    pub(super) fn go_on_with(&mut self, batches: B) -> anyhow::Result<()> {
        self.batches = batches;
        self.links.reconnect()
    }

    /// Until a checkpoint has copied what this update will change.
    fn wait_for_copy(&mut self) {
        if let Some(copying) = self.copying.take() {
            copying.wait();
        }
    }

    /// Before any rank enters the step: how many labels all batches have, whether a rank asks to stop, and whether all
    /// have their batch; one that has none ends the job on all ranks, with its reason.
    fn agree(&self, batch: anyhow::Result<StepBatch>, stop: bool) -> anyhow::Result<(StepBatch, Totals)> {
        let valid = batch.as_ref().map_or(0, valid_labels);
        let mut counts = [valid, stop.into(), batch.is_err().into()];
        self.links.comm.all_reduce_i64(&mut counts)?;
        let [valid, stops, failures] = counts;
        let batch = if failures > 0 { agree::agree(&*self.links.comm, batch)? } else { batch? };
        Ok((batch, Totals { valid, stop: stops > 0, ..Totals::default() }))
    }

    /// This rank's loss; loss and accuracy of all, where TRAIN.disp_iter wants to see them.
    fn sum_up(&mut self, totals: &Totals) -> Result<(f64, Option<Shown>), CommError> {
        let (loss, step) = (totals.loss(), self.step + 1);
        if !step.is_multiple_of(self.config.disp_iter) && step != self.config.total_steps() {
            return Ok((loss, None));
        }
        let Counts { retries, failures } = retry::take_counts();
        let substituted = std::mem::take(&mut self.substituted);
        let mut sums = [loss, totals.correct() as f64, retries as f64, failures as f64, substituted as f64];
        self.links.comm.all_reduce_f64(&mut sums)?;
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
        let train = !self.config.fix_bn;
        let DeviceBatch { images, labels } = match part {
            Some(part) => part.to_device(self.device),
            None if train => DeviceBatch::empty(self.device),
            None => return Ok(None),
        };
        let images = if self.config.channels_last { memory::to_channels_last(&images) } else { images };
        let first = part.as_ref().map_or(0, |part| part.first as u64);
        let key = DropoutKey { seed: self.config.seed, step: self.step, first };
        let norm = &*self.links.norm;
        let pass = Pass { train, norm, dropout: train.then_some(key), deep_supervision: true };
        // The loss is taken in f32 whatever TRAIN.amp says.
        let logits = precision::autocast(self.device, self.config.amp.kind(), || self.network.forward(&images, &pass))?;
        if let Some(failure) = norm.failure() {
            return Err(failure.into());
        }
        if part.is_none() {
            let nothing =
                logits.main.sum(Kind::Float) + logits.deepsup.map_or(0.0.into(), |deepsup| deepsup.sum(Kind::Float));
            return Ok(Some(Sums { nll: nothing, correct: Tensor::from(0i64) }));
        }
        let (main, deepsup) = (&logits.main, logits.deepsup.as_ref());
        let nll = loss::summed_nll_of_heads(main, deepsup, self.config.deep_sup_scale, &labels);
        Ok(Some(Sums { nll, correct: loss::correct_pixels(&logits.main, &labels) }))
    }

    /// Gradients of Σ nll ÷ labelled pixels, added to those that are there.
    fn backward(&self, sums: Option<Sums>, part: &Option<HostBatch>, totals: &mut Totals) -> anyhow::Result<()> {
        let Some(sums) = sums else { return Ok(()) };
        let own = part.as_ref().map_or(0, |part| part.valid);
        let micro_batches = self.config.global_batch.div_ceil(self.config.batch_size_per_gpu);
        let divisor = match self.config.loss_norm {
            LossNorm::Global => totals.valid as f64,
            LossNorm::PerRank => own as f64 * micro_batches as f64,
        };
        let loss = sums.nll / divisor.max(1.0);
        let scaled = if self.scale.value() == 1.0 { loss.shallow_clone() } else { &loss * self.scale.value() };
        // An error between ranks crosses libtorch as a text: the norm has kept the original.
        let norm = &*self.links.norm;
        scaled.f_backward().map_err(|error| norm.failure().map_or_else(|| error.into(), anyhow::Error::from))?;
        totals.add(loss.detach(), sums.correct);
        Ok(())
    }

    /// What gradients are multiplied by so that their norm is at most TRAIN.clip_norm.
    fn clip(&self, reduced: &Reduced) -> f64 {
        let norm = reduced.squared_norm.sqrt() / self.scale.value();
        if self.config.clip_norm > 0.0 && norm > self.config.clip_norm { self.config.clip_norm / norm } else { 1.0 }
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
