//! One update, the algorithm on a page.

use crate::data::batch::{DeviceBatch, HostBatch};
use crate::data::loader::{Loader, StepBatch};
use crate::loss;
use crate::model::layers::{DropoutKey, Normalize};
use crate::model::{BnRunning, Network, Pass};
use crate::optim::Optimizer;
use crate::schedule::{Amp, LossNorm, TrainConfig, poly};
use crate::sync::agreement::Agreement;
use crate::sync::buckets::{Reduced, Reducer};
use crate::torch::{TorchError, memory, precision};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Everything an update changes or reads, on this rank.
pub struct Trainer {
    pub network: Network,
    pub optimizer: Optimizer,
    pub reducer: Reducer,
    pub agreement: Agreement,
    pub norm: Box<dyn Normalize>,
    pub loader: Loader,
    pub recipe: TrainConfig,
    pub running: BnRunning,
    pub device: Device,
    /// Finished updates.
    pub step: u64,
    /// Micro-batches in a global batch, for TRAIN.loss_norm per_rank.
    pub micro_batches: usize,
}

/// What an update did.
pub struct Update {
    /// Number of this update, from 1.
    pub step: u64,
    pub lr_encoder: f64,
    pub lr_decoder: f64,
    /// This rank's part of the loss, and its correctly labelled pixels.
    pub loss: f64,
    pub correct: i64,
    /// Labelled pixels on all ranks.
    pub valid: i64,
    /// Whether a rank asked to stop after this update.
    pub stop: bool,
    /// Whether the gradients were finite and the update was made.
    pub committed: bool,
    pub data_s: f64,
    pub comm_s: f64,
    pub step_s: f64,
    /// Samples of this rank, for the message when something is wrong with them.
    pub samples: Vec<u32>,
}

impl Trainer {
    /// Makes the next update of the network: the same one on every rank.
    pub fn step(&mut self, stop: bool) -> anyhow::Result<Update> {
        let start = Instant::now();
        let batch = self.loader.next()?;
        let data_s = start.elapsed().as_secs_f64();
        self.agreement.start([valid_labels(&batch), stop.into()]);

        self.reducer.zero();
        let mut totals = Totals::default();
        let last = batch.rounds.len().saturating_sub(1);
        for (round, part) in batch.rounds.iter().enumerate() {
            let sums = self.forward(part)?;
            if round == 0 {
                totals.agree(self.agreement.wait()?);
            }
            if round == last {
                self.reducer.arm();
            }
            self.backward(sums, part, &mut totals);
        }
        let reduced = self.reducer.wait()?;

        // The norm is that of the summed gradients, so every rank takes the same branch.
        let committed = reduced.squared_norm.is_finite();
        let factor = poly(self.step, self.recipe.total_steps(), self.recipe.lr_pow);
        let (lr_encoder, lr_decoder) = (self.recipe.lr_encoder * factor, self.recipe.lr_decoder * factor);
        if committed {
            self.optimizer.step(lr_encoder, lr_decoder, self.clip(&reduced))?;
            self.network.commit_statistics(self.running);
        } else {
            self.network.discard_statistics();
        }
        self.step += 1;
        Ok(Update {
            step: self.step,
            lr_encoder,
            lr_decoder,
            loss: totals.loss(),
            correct: totals.correct(),
            valid: totals.valid,
            stop: totals.stop,
            committed,
            data_s,
            comm_s: reduced.waited_s,
            step_s: start.elapsed().as_secs_f64(),
            samples: batch.rounds.iter().flatten().flat_map(|part| part.samples.clone()).collect(),
        })
    }

    /// Σ nll of both heads, and the correctly labelled pixels.
    ///
    /// Where this rank has no micro-batch left, an empty one takes part in the statistics of the others; without
    /// batch statistics there is nothing to take part in.
    fn forward(&self, part: &Option<HostBatch>) -> anyhow::Result<Option<Sums>> {
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
        let logits = self.autocast(|| self.network.forward(&images, &pass))?;
        if part.is_none() {
            let nothing =
                logits.main.sum(Kind::Float) + logits.deepsup.map_or(0.0.into(), |deepsup| deepsup.sum(Kind::Float));
            return Ok(Some(Sums { nll: nothing, correct: Tensor::from(0i64) }));
        }
        let main = loss::summed_nll(&logits.main, &labels);
        let nll = match &logits.deepsup {
            Some(deepsup) => main + loss::summed_nll(deepsup, &labels) * self.recipe.deep_sup_scale,
            None => main,
        };
        Ok(Some(Sums { nll, correct: loss::correct_pixels(&logits.main, &labels) }))
    }

    /// Runs `body` in the precision of TRAIN.amp; the loss is taken in f32 either way.
    fn autocast<T>(&self, body: impl FnOnce() -> T) -> Result<T, TorchError> {
        match self.recipe.amp {
            Amp::Off => Ok(body()),
            Amp::Bf16 => precision::autocast(self.device, Kind::BFloat16, body),
            Amp::Fp16 => precision::autocast(self.device, Kind::Half, body),
        }
    }

    /// Gradients of Σ nll ÷ labelled pixels, added to those that are there.
    fn backward(&self, sums: Option<Sums>, part: &Option<HostBatch>, totals: &mut Totals) {
        let Some(sums) = sums else { return };
        let own = part.as_ref().map_or(0, |part| part.valid);
        let divisor = match self.recipe.loss_norm {
            LossNorm::Global => totals.valid as f64,
            LossNorm::PerRank => own as f64 * self.micro_batches as f64,
        };
        let loss = sums.nll / divisor.max(1.0);
        loss.backward();
        totals.add(loss.detach(), sums.correct);
    }

    /// What gradients are multiplied by so that their norm is at most TRAIN.clip_norm.
    fn clip(&self, reduced: &Reduced) -> f64 {
        let norm = reduced.squared_norm.sqrt();
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
    fn agree(&mut self, [valid, stops]: [i64; 2]) {
        self.valid = valid;
        self.stop = stops > 0;
    }

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
