//! Batch norm statistics that fit the weights (MODEL.bn_recalibrate): taken anew over the first batches of the run's order,
//! beside the running ones, which training goes on with as if nothing had been.
//!
//! With a momentum of 0.001 the running statistics of a fine-tuning of some hundred steps are those of weights long gone,
//! and the network seems to have learned nothing. The batches are the same at every evaluation and on any number of ranks,
//! with the augmentation of their first pass; dropout is off, as it is when the network is evaluated.

use super::{Recipe, Run, Trainer};
use crate::comm::agree;
use crate::data::batch_source::{BatchSource, StepBatch};
use crate::model::layers::Normalize;
use crate::model::{Network, Pass, Statistics};
use tch::Tensor;

/// Without a number in the configuration: no more batches than this, than a pass over the data, or than the run has steps.
const MOST: u64 = 50;

/// How evaluations of a run get their statistics.
pub struct Plan {
    /// Batches to take them over; 0: the running ones are evaluated.
    pub batches: u64,
    /// What a user should know of it before the first step.
    pub notice: Option<String>,
}

/// Statistics under the names of the running ones, of the weights after an update.
pub struct Fitting {
    /// The update.
    pub step: u64,
    /// f32 (channels) each.
    pub tensors: Vec<(String, Tensor)>,
}

/// Decides by the run's length and the statistics' memory; a pass over the data takes so many steps.
pub fn plan(recipe: &Recipe, network: &Network, steps_per_pass: u64) -> Plan {
    let (total, wanted) = (recipe.train.total_steps(), recipe.model.bn_recalibrate);
    let memory = network.statistics_memory().filter(|_| !recipe.train.fix_bn);
    let Some(memory) = memory else { return Plan { batches: 0, notice: None } };
    let short = (total as f64) < memory;
    let batches = wanted.unwrap_or(if short { MOST.min(steps_per_pass).min(total) } else { 0 });
    let lag = format!("batch norm's running statistics remember {memory:.0} steps, more than the {total} of this run");
    let notice = match wanted {
        None => format!(
            "{lag}: evaluations take them anew over {batches} batches (MODEL.bn_recalibrate 0: they do not, as in the reference)"
        ),
        Some(0) => format!(
            "{lag}: evaluated with them, the network seems worse than it is; MODEL.bn_recalibrate {} takes them anew, \
             MODEL.bn_momentum 0.1 shortens the memory",
            MOST.min(steps_per_pass)
        ),
        Some(_) => return Plan { batches, notice: None },
    };
    Plan { batches, notice: short.then_some(notice) }
}

impl Run<'_> {
    /// Puts statistics of the present weights in the place of the running ones, and returns these; None where the running
    /// ones are evaluated. A collective.
    pub(super) fn fit_statistics(&mut self) -> anyhow::Result<Option<Statistics>> {
        if self.fitting.batches == 0 {
            return Ok(None);
        }
        let step = self.trainer.step;
        let mut batches = self.data.load(self.job, &self.place, 0, &*self.comm)?;
        let estimate = self.trainer.evaluated().estimate_statistics();
        for _ in 0..self.fitting.batches {
            self.watchdog.progress(step, "batch norm statistics");
            let batch = agree::agree(&*self.comm, BatchSource::next(&mut batches))?;
            self.trainer.observe(&batch)?;
            self.trainer.evaluated().add_statistics(&estimate);
        }
        // A checkpoint may still copy the running ones.
        self.trainer.wait_for_copy();
        let network = self.trainer.evaluated();
        let running = network.replace_statistics(&estimate);
        self.trainer.fitting = Some(Fitting { step, tensors: network.named_statistics() });
        Ok(Some(running))
    }

    /// Takes the running statistics back.
    pub(super) fn unfit_statistics(&self, running: Option<Statistics>) {
        if let Some(running) = running {
            self.trainer.evaluated().restore_statistics(&running);
        }
    }
}

impl<B: BatchSource> Trainer<B> {
    /// Has the batch norms observe a batch, as evaluation would see it: without dropout, in f32.
    fn observe(&self, batch: &StepBatch) -> anyhow::Result<()> {
        let norm: &dyn Normalize = &*self.links.norm;
        let pass = Pass { train: true, norm, dropout: None, deep_supervision: false };
        for part in &batch.rounds {
            let images = self.on_device(part).images;
            tch::no_grad(|| self.evaluated().forward(&images, &pass));
            if let Some(failure) = norm.failure() {
                return Err(failure.into());
            }
        }
        Ok(())
    }
}
