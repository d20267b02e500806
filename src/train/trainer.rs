//! One update, the algorithm on a page.

use super::links::Links;
use super::recalibrate::Fitting;
use super::round::{Root, Round};
use super::totals::{Local, Totals};
use super::update::{Shown, Update};
use super::{Average, Beginning, Recipe, Replica, TrainConfig};
use crate::checkpoint::Copying;
use crate::comm::trace::Lane;
use crate::comm::{CommError, agree};
use crate::data::batch::{DeviceBatch, HostBatch};
use crate::data::batch_source::{BatchSource, StepBatch};
use crate::fault;
use crate::loss::{self, IGNORE, Loss, Objective};
use crate::model::layers::DropoutKey;
use crate::model::{self, BnRunning, Network, Pass};
use crate::optim::{LossScale, Optimizer};
use crate::retry::{self, Counts};
use crate::schedule::Schedule;
use crate::torch::{memory, precision};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Everything an update changes or reads, on this rank. Batches come from `B`.
pub struct Trainer<B> {
    /// Parameters and running statistics, the same on every rank.
    pub(super) network: Network,
    /// What updates them.
    pub(super) optimizer: Optimizer,
    /// What is evaluated in place of the network, with TRAIN.ema.
    pub(super) average: Option<Average>,
    /// What the loss is multiplied by: more than 1 with TRAIN.amp fp16.
    pub(super) scale: LossScale,
    /// Finished updates.
    pub(super) step: u64,
    /// A checkpoint that still copies what the next update will change.
    pub(super) copying: Option<Copying>,
    /// The statistics that the last evaluation was made with, where they were taken anew.
    pub(super) fitting: Option<Fitting>,
    /// Corrupt samples of this rank that were replaced since [`Shown`] last told.
    substituted: usize,
    batches: B,
    /// The next step's batch, asked for a step ahead.
    coming: Option<Coming>,
    pub(super) links: Links,
    objective: Objective,
    schedule: Box<dyn Schedule>,
    config: TrainConfig,
    running: BnRunning,
    /// MODEL.recompute, where there is a backward pass of the encoder.
    recompute: bool,
    device: Device,
}

/// A batch, and whether another rank has none.
struct Coming {
    batch: anyhow::Result<StepBatch>,
    somewhere_none: bool,
}

impl<B: BatchSource> Trainer<B> {
    /// Puts the parts together; `batches` begin at `beginning.step`.
    pub fn new(
        recipe: &Recipe,
        replica: Replica,
        links: Links,
        batches: B,
        beginning: &Beginning,
    ) -> anyhow::Result<Trainer<B>> {
        let scale = recipe.train.first_loss_scale();
        let deep_supervision = model::shape(recipe.model).map_err(fault::classified)?.deep_supervision;
        let weights = [1.0].into_iter().chain(deep_supervision.then_some(recipe.train.deep_sup_scale)).collect();
        let size = recipe.batch_size(beginning.global_batch);
        let trains_encoder = replica.network.trains_encoder();
        Ok(Trainer {
            device: replica.flat.gradients.device(),
            network: replica.network,
            optimizer: replica.optimizer,
            average: replica.average,
            scale: beginning.loss_scale.map_or(scale, |(value, good)| scale.restored(value, good)),
            step: beginning.step,
            copying: None,
            fitting: None,
            substituted: 0,
            batches,
            coming: None,
            links,
            objective: Objective::new(recipe.loss(None), weights, size),
            schedule: recipe.train.schedule(),
            running: recipe.model.bn_running,
            recompute: recipe.model.recompute && trains_encoder,
            config: recipe.train.clone(),
        })
    }

    /// With another loss than TRAIN's.
    pub fn with_loss(self, loss: Box<dyn Loss>) -> Trainer<B> {
        Trainer { objective: self.objective.with_loss(loss), ..self }
    }

    /// With another schedule than TRAIN's.
    pub fn with_schedule(self, schedule: Box<dyn Schedule>) -> Trainer<B> {
        Trainer { schedule, ..self }
    }

    /// What is trained.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What is evaluated: with TRAIN.ema its average.
    pub fn evaluated(&self) -> &Network {
        self.average.as_ref().map_or(&self.network, |average| &average.network)
    }

    /// Makes the next update of the network: the same one on every rank.
    pub fn step(&mut self, stop: bool) -> anyhow::Result<Update> {
        let trace = self.links.journal.trace.clone();
        let span = |name| trace.span(Lane::Step, name);
        let start = Instant::now();
        let batch = self.batch()?;
        self.substituted += batch.substituted;
        let mut data_s = start.elapsed().as_secs_f64();
        let (mut local, backward_s) = self.forward_and_backward(&batch)?;

        let waiting = Instant::now();
        let next = self.ask_for_the_next();
        data_s += waiting.elapsed().as_secs_f64();
        let waiting = (Instant::now(), span("wait for gradients"));
        let totals = self.sum_up(&mut local, stop, next)?;
        let reduced = self.links.reducer.wait()?;
        let comm_s = waiting.0.elapsed().as_secs_f64();
        drop(waiting);
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
            let scale = self.objective.gradient_scale(&totals.loss) / self.scale.value();
            let clip = self.clip(reduced.squared_norm.sqrt() * scale);
            self.optimizer.step(lr_encoder, lr_decoder, scale * clip)?;
            self.network.commit_statistics(self.running);
            if let Some(average) = &mut self.average {
                average.follow(self.optimizer.updates());
            }
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
            loss_is_finite: totals.own_are_finite,
            shown: self.shown(&totals),
            stop: totals.stop,
            committed,
            overflow,
            data_s,
            backward_s,
            comm_s,
            step_s: start.elapsed().as_secs_f64(),
            samples: batch.rounds.iter().flatten().flat_map(|part| part.samples.clone()).collect(),
        })
    }

    /// Gives up the step under way, after the death of a rank.
    pub(super) fn break_off(&mut self) {
        self.links.disconnect();
        self.coming = None;
        self.network.discard_statistics();
    }

    /// Goes on after [`Trainer::break_off`], among the ranks that are left. A collective.
    pub(super) fn go_on_with(&mut self, batches: B) -> anyhow::Result<()> {
        self.batches = batches;
        self.links.reconnect()
    }

    /// Until a checkpoint has copied what this update will change.
    pub(super) fn wait_for_copy(&mut self) {
        if let Some(copying) = self.copying.take() {
            copying.wait();
        }
    }

    /// This step's batch. A rank that has none ends the job on all ranks, with its reason.
    fn batch(&mut self) -> anyhow::Result<StepBatch> {
        let comm = self.links.comm.clone();
        let coming = match self.coming.take() {
            Some(coming) => coming,
            None => {
                let batch = self.fetch();
                let mut missing = [batch.is_err().into()];
                comm.all_reduce_i64(&mut missing)?;
                Coming { batch, somewhere_none: missing[0] > 0 }
            }
        };
        if coming.somewhere_none { agree::agree(&*comm, coming.batch) } else { coming.batch }
    }

    fn fetch(&mut self) -> anyhow::Result<StepBatch> {
        let _waiting = self.links.journal.trace.span(Lane::Step, "data");
        self.batches.next()
    }

    /// The next step's batch, but after the last step.
    fn ask_for_the_next(&mut self) -> Option<anyhow::Result<StepBatch>> {
        (self.step + 1 != self.config.total_steps()).then(|| self.fetch())
    }

    /// The one small sum of a step: what the loss is made of, what is shown of it, whether a rank asks to stop, and
    /// whether all have their next batch, which nobody has to ask again.
    fn sum_up(
        &mut self,
        local: &mut Local,
        stop: bool,
        next: Option<anyhow::Result<StepBatch>>,
    ) -> Result<Totals, CommError> {
        if self.is_shown() {
            let Counts { retries, failures } = retry::take_counts();
            local.reading = [retries, failures, std::mem::take(&mut self.substituted) as u64];
        }
        let missing = next.as_ref().is_some_and(Result::is_err);
        let totals = Totals::sum(&*self.links.comm, local, stop, missing)?;
        self.coming = next.map(|batch| Coming { batch, somewhere_none: totals.missing });
        Ok(totals)
    }

    /// Gradients of all rounds, on their way between ranks when this returns; the sums of this rank, and the seconds of
    /// backward.
    fn forward_and_backward(&mut self, batch: &StepBatch) -> anyhow::Result<(Local, f64)> {
        let trace = self.links.journal.trace.clone();
        let late = self.objective.divides_late();
        let mut slopes = if late { None } else { self.look_ahead(batch)? };
        self.links.reducer.zero();
        let mut local = Local::new(self.objective.length(), self.is_shown());
        let mut backward_s = 0.0;
        for (round, part) in batch.rounds.iter().enumerate() {
            let forward = trace.span(Lane::Step, "forward");
            let forwarded = self.forward(part, &mut local)?;
            drop(forward);
            if !late && slopes.is_none() {
                slopes = Some(self.slopes(&local)?);
            }
            if round + 1 == batch.rounds.len() {
                self.links.reducer.arm();
            }
            let (start, _backward) = (Instant::now(), trace.span(Lane::Step, "backward"));
            self.backward(forwarded, slopes.as_ref())?;
            backward_s += start.elapsed().as_secs_f64();
        }
        Ok((local, backward_s))
    }

    /// The slopes of a loss that needs the sums of all rounds before the first backward: from the labels where they are
    /// enough, else from forward passes, unless the only one is still to be made.
    fn look_ahead(&self, batch: &StepBatch) -> anyhow::Result<Option<Tensor>> {
        let mut local = Local::new(self.objective.length(), false);
        let nothing = Tensor::full([1, 1, 1], IGNORE, (Kind::Int64, Device::Cpu));
        // The same on all ranks, those without a micro-batch included.
        if self.objective.label_sums(&nothing).is_some() {
            for part in batch.rounds.iter().flatten() {
                let sums = self.objective.label_sums(&part.labels(Device::Cpu)).unwrap_or_default();
                local.add(&sums, part.valid, Tensor::new);
            }
            return Ok(Some(self.slopes(&local)?));
        }
        if batch.rounds.len() == 1 {
            return Ok(None);
        }
        for part in &batch.rounds {
            tch::no_grad(|| self.forward(part, &mut local))?;
        }
        // The same passes are made again, and counted then.
        self.network.discard_statistics();
        Ok(Some(self.slopes(&local)?))
    }

    fn slopes(&self, local: &Local) -> Result<Tensor, CommError> {
        let mut sums = local.loss();
        self.links.comm.all_reduce_f64(&mut sums)?;
        Ok(self.objective.slopes(&sums).to_device(self.device))
    }

    /// The scores of a micro-batch and their sums, added to `local`.
    ///
    /// Where this rank has no micro-batch left, an empty one takes part in the statistics of the others; without
    /// batch statistics there is nothing to take part in.
    fn forward(&self, part: &Option<HostBatch>, local: &mut Local) -> anyhow::Result<Round> {
        fault::point("forward");
        let first = part.as_ref().map_or(0, |part| part.first as u64);
        let round = |root, kept| Ok(Round { root, kept, first });
        if part.is_none() && self.config.fix_bn {
            return round(Root::Nothing, None);
        }
        let DeviceBatch { images, labels } = self.on_device(part);
        let pass = self.pass(first);
        let forward = || match self.recompute {
            true => {
                let (logits, kept) = self.network.forward_in_parts(&images, &pass);
                (logits, Some(kept))
            }
            false => (self.network.forward(&images, &pass), None),
        };
        // The loss is taken in f32 whatever TRAIN.amp says.
        let (logits, kept) = precision::autocast(self.device, self.config.amp.kind(), forward)?;
        if let Some(failure) = self.links.norm.failure() {
            return Err(failure.into());
        }
        let heads: Vec<Tensor> = [Some(logits.main), logits.deepsup].into_iter().flatten().collect();
        let Some(part) = part else {
            return round(Root::NoImages(heads.iter().map(|scores| scores.sum(Kind::Float)).sum()), kept);
        };
        let sums = self.objective.sums(&heads, &labels);
        local.add(&sums, part.valid, || loss::correct_pixels(&heads[0], &labels));
        round(Root::Sums(sums), kept)
    }

    /// How the network is run on images from index `first` of the global batch on.
    fn pass(&self, first: u64) -> Pass<'_> {
        let train = !self.config.fix_bn;
        let key = DropoutKey { seed: self.config.seed, step: self.step, first };
        Pass { train, norm: &*self.links.norm, dropout: train.then_some(key), deep_supervision: true }
    }

    /// A micro-batch, or an empty one, as the network takes it.
    pub(super) fn on_device(&self, part: &Option<HostBatch>) -> DeviceBatch {
        let mut batch =
            part.as_ref().map_or_else(|| DeviceBatch::empty(self.device), |part| part.to_device(self.device));
        if self.config.channels_last {
            batch.images = memory::to_channels_last(&batch.images);
        }
        batch
    }

    /// Gradients of one round, added to those that are there; `slopes` where the loss has them before backward.
    fn backward(&self, round: Round, slopes: Option<&Tensor>) -> anyhow::Result<()> {
        let loss = match (round.root, slopes) {
            (Root::Nothing, _) => return Ok(()),
            (Root::NoImages(scores), _) => scores,
            (Root::Sums(sums), Some(slopes)) => (sums * slopes).sum(Kind::Double),
            (Root::Sums(sums), None) => self.objective.undivided(&sums),
        };
        let scaled = if self.scale.value() == 1.0 { loss } else { loss * self.scale.value() };
        // An error between ranks crosses libtorch as a text: the norm has kept the original.
        let norm = &*self.links.norm;
        let reached = scaled.f_backward().map_err(anyhow::Error::from).and_then(|()| {
            let Some(kept) = round.kept else { return Ok(()) };
            Ok(self.network.backward_in_parts(kept, &self.pass(round.first), self.config.amp.kind())?)
        });
        norm.failure().map_or(reached, |failure| Err(failure.into()))
    }

    fn shown(&self, totals: &Totals) -> Option<Shown> {
        let [retries, failures, substituted] = totals.reading;
        totals.correct.map(|correct| Shown {
            loss: self.objective.value(&totals.loss),
            accuracy: correct / totals.labelled.max(1.0),
            reads: Counts { retries, failures },
            substituted,
        })
    }

    /// Whether TRAIN.disp_iter wants to see this step.
    fn is_shown(&self) -> bool {
        let step = self.step + 1;
        step.is_multiple_of(self.config.disp_iter) || step == self.config.total_steps()
    }

    /// What gradients of this norm are multiplied by so that it is at most TRAIN.clip_norm.
    fn clip(&self, norm: f64) -> f64 {
        let most = self.config.clip_norm;
        if most > 0.0 && norm > most { most / norm } else { 1.0 }
    }
}
