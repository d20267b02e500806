//! The calendar of a run: what is due after which update.

use super::OnNonfinite;
use super::neighbours::Neighbours;
use super::{Ended, Run, Update};
use crate::checkpoint::Score;
use crate::eval;
use crate::fault::{self, Agreed};
use crate::report::palette::Classes;
use crate::run_dir::RunDir;
use crate::stop::StopRequest;
use crate::sync::replicas;
use std::rc::Rc;

/// About how many validation images are drawn at an evaluation.
const SAMPLES: usize = 4;

impl Run<'_> {
    /// To the last update, or until someone asks to stop.
    pub fn run_through(&mut self, stop: &StopRequest) -> anyhow::Result<Ended> {
        let total = self.job.recipe.train.total_steps();
        while self.trainer.step < total || self.unfinished {
            if !self.unfinished {
                self.watchdog.progress(self.trainer.step, "step");
                let update = self.trainer.step(stop.requested().is_some())?;
                if let Some(recorder) = &mut self.recorder {
                    recorder.count(&update);
                }
                if let Some(line) = self.neighbours.as_mut().and_then(Neighbours::look) {
                    log::warn!("{line}");
                }
                self.last = Some(Rc::new(update));
                self.unfinished = true;
            }
            if self.follow_up(total)? == Some(Ended::Stopped) {
                return Ok(Ended::Stopped);
            }
            self.unfinished = false;
        }
        self.finish()?;
        Ok(Ended::Finished)
    }

    /// What comes after an update: report, evaluation and checkpoint when due. May be done again, to the same effect.
    fn follow_up(&mut self, total: u64) -> anyhow::Result<Option<Ended>> {
        let Some(update) = self.last.clone() else { return Ok(None) };
        self.watchdog.progress(self.trainer.step, "report");
        self.check(&update)?;
        if let (Some(recorder), Some(shown)) = (&mut self.recorder, update.shown) {
            recorder.report(&update, shown);
        }
        if self.is_due(self.job.val.every_epochs) && update.step < total {
            self.evaluate()?;
        }
        self.save_if_due(&update, total)?;
        if !update.stop || update.step == total {
            return Ok(None);
        }
        self.secure()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.stopped(update.step);
            log::info!("stopped on request at step {}: start again to continue", update.step);
        }
        Ok(Some(Ended::Stopped))
    }

    /// The final evaluation; the last checkpoint, safe since before, is written again with its score.
    fn finish(&mut self) -> anyhow::Result<()> {
        if self.was_finished {
            self.evaluate()?;
            return Ok(self.comm.barrier()?);
        }
        self.secure()?;
        if self.data.val.is_some() {
            self.evaluate()?;
        } else {
            // For whoever evaluates the last checkpoint.
            let running = self.fit_statistics()?;
            self.unfit_statistics(running);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.save(&mut self.trainer, &self.state);
        }
        self.secure()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.finished(self.trainer.step)?;
        }
        // Nobody leaves before that is done: where rank 0 dies over it, another one does it.
        Ok(self.comm.barrier()?)
    }

    /// Whether an interval of `epochs` ends with the update just made.
    fn is_due(&self, epochs: u64) -> bool {
        let steps = epochs.saturating_mul(self.job.recipe.train.epoch_iters);
        steps > 0 && self.trainer.step.is_multiple_of(steps)
    }

    /// Stops, or goes on, where gradients were not finite; compares replicas when asked to.
    fn check(&mut self, update: &Update) -> anyhow::Result<()> {
        if update.committed {
            self.skipped = 0;
        } else if update.overflow {
            let scale = self.trainer.scale.value();
            let message = format!(
                "step {}: an overflow in fp16; no parameter was changed, the loss scale is {scale}",
                update.step
            );
            self.recorder.iter_mut().for_each(|recorder| recorder.skipped(update, &message));
        } else {
            self.refuse(update)?;
            self.skipped += 1;
        }
        let every = self.job.recipe.dist.check_replicas;
        if every > 0 && update.step.is_multiple_of(every) {
            for network in [self.trainer.network(), self.trainer.evaluated()] {
                if let Some(text) = replicas::difference(&*self.comm, &network.store.variables)? {
                    return Err(Agreed { message: format!("step {}: {text}", update.step), code: 1 }.into());
                }
            }
        }
        Ok(())
    }

    /// Every rank is here: the norm that decided was the same on all.
    fn refuse(&mut self, update: &Update) -> anyhow::Result<()> {
        let names: Vec<&str> =
            update.samples.iter().map(|&index| self.data.train.source.name(index as usize)).collect();
        let mine = if update.loss_is_finite { String::new() } else { names.join(", ") };
        let all = self.comm.all_gather(mine.as_bytes())?;
        let blamed = all.iter().enumerate().find(|(_, names)| !names.is_empty());
        let cause = match blamed {
            Some((rank, names)) => {
                format!("the loss of rank {rank} is not finite (samples {})", String::from_utf8_lossy(names))
            }
            None => "a gradient is not finite, though every rank's loss is".to_owned(),
        };
        let message = format!("step {}: {cause}; no parameter was changed", update.step);
        if self.job.recipe.train.on_nonfinite == OnNonfinite::Skip && self.skipped < self.job.recipe.train.max_skips {
            if let Some(recorder) = &mut self.recorder {
                recorder.skipped(update, &message);
            }
            return Ok(());
        }
        let advice = "lower the learning rates, or set TRAIN.on_nonfinite skip";
        Err(Agreed { message: format!("{message}; {advice}"), code: 1 }.into())
    }

    fn evaluate(&mut self) -> anyhow::Result<()> {
        let step = self.trainer.step;
        if self.data.val.is_none() {
            return Ok(());
        }
        self.watchdog.progress(step, "evaluation");
        fault::point("evaluation");
        let running = self.fit_statistics()?;
        let outcome = self.score();
        self.unfit_statistics(running);
        let Some(outcome) = outcome? else { return Ok(()) };
        if !self.state.scores.iter().any(|score| score.step == step) {
            self.state.scores.push(Score { step, mean_iou: outcome.mean_iou });
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.evaluated(step, &outcome);
        }
        Ok(())
    }

    /// What the network does on the validation images as it is; None where there are none.
    fn score(&self) -> anyhow::Result<Option<eval::Outcome>> {
        let Some(val) = &self.data.val else { return Ok(None) };
        let step = self.trainer.step;
        let (job, trainer, watchdog) = (self.job, &self.trainer, &self.watchdog);
        let classes = Classes::new(job.recipe.dataset.num_class, val.class_names(), val.palette());
        // Rank 0 draws a few of its own: the images are dealt in turn, and only it needs to reach DIR.
        let overlays = self.comm.is_root().then(|| eval::Overlays {
            folder: RunDir::new(job.dir).overlays(),
            below: SAMPLES * self.comm.size(),
            optional: true,
        });
        let evaluation = eval::Evaluation {
            source: val,
            dataset: job.recipe.dataset,
            val: job.val,
            device: self.place.device,
            classes: &classes,
            overlays,
            progress: false,
            alive: &|| watchdog.progress(step, "evaluation"),
        };
        evaluation.run(trainer.evaluated(), &*self.comm).map(Some)
    }

    /// Rank 0 alone decides: it has everything that is saved, and saving is no collective.
    fn save_if_due(&mut self, update: &Update, total: u64) -> anyhow::Result<()> {
        let by_epoch = self.is_due(self.job.checkpoint.every_epochs);
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        let every = self.job.checkpoint.every_steps;
        let by_step = every > 0 && update.step.is_multiple_of(every);
        if by_epoch || by_step || recorder.minutes_are_over() || update.stop || update.step == total {
            self.watchdog.progress(update.step, "checkpoint");
            recorder.save(&mut self.trainer, &self.state);
        }
        recorder.check_saved()
    }

    /// Rank 0 waits until the present state is on the disk.
    fn secure(&mut self) -> anyhow::Result<()> {
        let (step, watchdog) = (self.trainer.step, &self.watchdog);
        let alive = || watchdog.progress(step, "checkpoint");
        alive();
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        recorder.secure(&mut self.trainer, &self.state, alive)
    }
}
