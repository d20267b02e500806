//! What rank 0 leaves behind of a run: history, progress line, checkpoints, curve.

use super::{Job, Shown, Trainer, Update};
use crate::checkpoint::{CheckpointConfig, SaveReport, Saver, State, Tensors};
use crate::comm;
use crate::data::batch_source::BatchSource;
use crate::durable;
use crate::eval;
use crate::fault;
use crate::report::board::Board;
use crate::report::event::{self, Event};
use crate::report::history::History;
use crate::report::progress::{Progress, StepLine};
use crate::report::run_curve;
use crate::run_dir::RunDir;
use std::time::{Duration, Instant};

/// Rank 0's files and progress line.
pub struct Recorder {
    dir: RunDir,
    history: History,
    board: Board,
    progress: Progress,
    saver: Saver,
    config: CheckpointConfig,
    global_batch: usize,
    epoch_iters: u64,
    /// Sums since the last report: steps, seconds of steps, of data, of communication.
    since: (u64, f64, f64, f64),
    last_save: Instant,
    /// The step whose checkpoint is on the disk, as far as this process wrote it.
    saved: Option<u64>,
    /// Failures since then, and the last one's cause.
    failures: u64,
    failure: String,
}

impl Recorder {
    /// Opens what is in DIR at a number of finished updates.
    pub fn open(job: &Job, step: u64, global_batch: usize) -> anyhow::Result<Recorder> {
        let dir = RunDir::new(job.dir);
        Ok(Recorder {
            dir: dir.clone(),
            history: History::open(job.dir, step).map_err(|cause| fault::unwritable(&dir.history(), cause))?,
            board: Board::open(&dir, step),
            progress: Progress::new(!job.quiet, step, job.recipe.train.total_steps()),
            saver: Saver::new(job.dir, job.checkpoint),
            config: job.checkpoint.clone(),
            global_batch,
            epoch_iters: job.recipe.train.epoch_iters,
            since: Default::default(),
            last_save: Instant::now(),
            saved: None,
            failures: 0,
            failure: String::new(),
        })
    }

    /// Shows and keeps what the run resolved to.
    pub fn announce(&self, banner: &str) {
        self.progress.print(banner);
        if let Err(cause) = durable::write(&self.dir.about(), banner.as_bytes()) {
            log::warn!("{}: cannot be written: {cause}", self.dir.about().display());
        }
    }

    /// Adds an update's times to the means of the next report.
    pub fn count(&mut self, update: &Update) {
        self.since.0 += 1;
        self.since.1 += update.step_s;
        self.since.2 += update.data_s;
        self.since.3 += update.comm_s;
    }

    /// Shows and logs the update, with the mean times since the last report, unless that was done before.
    pub fn report(&mut self, update: &Update, shown: Shown) {
        if self.history.has_train(update.step) {
            return;
        }
        let Shown { loss, accuracy, reads, substituted } = shown;
        let (steps, step_s, data_s, comm_s) = std::mem::take(&mut self.since);
        let mean = |seconds: f64| seconds / steps.max(1) as f64;
        let images_per_s = self.global_batch as f64 / mean(step_s);
        let line = StepLine {
            step: update.step,
            epoch_iters: self.epoch_iters,
            step_s: mean(step_s),
            data_s: mean(data_s),
            lr_encoder: update.lr_encoder,
            lr_decoder: update.lr_decoder,
            accuracy,
            loss,
            images_per_s,
        };
        self.progress.step(&line, true);
        let scalars = [
            ("train/loss", loss),
            ("train/accuracy", accuracy),
            ("train/lr_encoder", update.lr_encoder),
            ("train/lr_decoder", update.lr_decoder),
            ("train/images_per_s", images_per_s),
        ];
        self.board.scalars(update.step, &scalars);
        let epoch = update.step as f64 / self.epoch_iters as f64;
        let train = event::Train {
            epoch,
            loss,
            acc: accuracy,
            lr_encoder: update.lr_encoder,
            lr_decoder: update.lr_decoder,
            step_s: mean(step_s),
            data_s: mean(data_s),
            comm_s: mean(comm_s),
            images_per_s,
            read_retries: reads.retries,
            read_failures: reads.failures,
            substituted,
        };
        self.log(update.step, Event::Train(train));
    }

    /// Notes an update that was not made.
    pub fn skipped(&mut self, update: &Update, message: &str) {
        log::warn!("{message}");
        self.log(update.step, Event::Skipped { cause: message.to_owned() });
    }

    /// Shows an evaluation, and logs it unless that was done before.
    pub fn evaluated(&mut self, step: u64, outcome: &eval::Outcome) {
        self.progress.print(&outcome.table());
        if self.history.has_eval(step) {
            return;
        }
        let eval::Outcome { mean_iou, pixel_accuracy, mean_accuracy, .. } = *outcome;
        self.log(step, Event::Eval(event::Eval { mean_iou, pixel_accuracy, mean_accuracy }));
        self.show(step, outcome);
    }

    /// The evaluation for people: TensorBoard, tables and pictures beside the history.
    fn show(&mut self, step: u64, outcome: &eval::Outcome) {
        let summary = outcome.json(&format!("step {step}"));
        let of_all = ["mean_iou", "pixel_accuracy", "mean_accuracy", "loss"]
            .map(|name| (format!("eval/{name}"), &summary[name]));
        let of_classes = summary["per_class"].as_array().into_iter().flatten();
        let of_classes =
            of_classes.map(|class| (format!("iou/{}", class["name"].as_str().unwrap_or("?")), &class["iou"]));
        let named: Vec<(String, f64)> =
            of_all.into_iter().chain(of_classes).filter_map(|(tag, value)| Some((tag, value.as_f64()?))).collect();
        let scalars: Vec<(&str, f64)> = named.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        self.board.scalars(step, &scalars);
        self.board.overlays(step, &self.dir.overlays());
        let kept = outcome.keep(&self.dir, &format!("step {step}"));
        if let Err(cause) = kept.and_then(|()| run_curve::draw(&self.dir)) {
            log::warn!("{}: step {step} is evaluated, but not drawn: {cause:#}", self.dir.path().display());
        }
    }

    /// Whether CHECKPOINT.every_minutes have gone by since the last checkpoint.
    pub fn minutes_are_over(&self) -> bool {
        let limit = Duration::try_from_secs_f64(self.config.every_minutes * 60.0).unwrap_or(Duration::MAX);
        !limit.is_zero() && self.last_save.elapsed() >= limit
    }

    /// Starts writing a checkpoint of the trainer's present state; `state` is the rest of it.
    pub fn save(&mut self, trainer: &mut Trainer<impl BatchSource>, state: &State) {
        let state = State {
            step: trainer.step,
            updates: trainer.optimizer.updates(),
            loss_scale: trainer.scale.value(),
            loss_scale_steps: trainer.scale.good(),
            ..state.clone()
        };
        let (model, optimizer) = (trainer.network.store.named(), trainer.optimizer.state());
        let average = trainer.average.as_ref().map_or_else(Vec::new, |average| average.network.store.named());
        let fitting = trainer.fitting.as_ref().filter(|fitting| fitting.step == trainer.step);
        let statistics = fitting.map_or(&[][..], |fitting| &fitting.tensors);
        let tensors = Tensors { model: &model, optimizer: &optimizer, statistics, average: &average };
        trainer.copying = Some(self.saver.save(state, tensors));
        (self.last_save, self.saved) = (Instant::now(), None);
    }

    /// Logs checkpoints that are done since the last call.
    pub fn check_saved(&mut self) -> anyhow::Result<()> {
        while let Some(outcome) = self.saver.poll() {
            self.note(&outcome);
        }
        if self.failures >= self.config.max_failures.max(1) {
            anyhow::bail!("{} checkpoints in a row could not be written: {}", self.failures, self.failure);
        }
        Ok(())
    }

    /// Waits for the checkpoint being written.
    fn finish_saving(&mut self) {
        for outcome in self.saver.finish() {
            self.note(&outcome);
        }
        // The checkpoint is what counts; a history that cannot be flushed was warned about when it was written.
        let _ = self.history.sync();
    }

    /// Waits until the trainer's present state is on the disk; where it cannot be written, tries again for
    /// CHECKPOINT.retry_minutes. Called before a run ends well: the weights are all it leaves.
    pub fn secure(
        &mut self,
        trainer: &mut Trainer<impl BatchSource>,
        state: &State,
        alive: impl Fn(),
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let limit = Duration::try_from_secs_f64(self.config.retry_minutes * 60.0).unwrap_or(Duration::MAX);
        let mut pause = Duration::from_millis(500);
        self.finish_saving();
        while self.saved != Some(trainer.step) {
            if self.failures > 0 {
                let left = limit.saturating_sub(start.elapsed());
                if left.is_zero() {
                    anyhow::bail!(
                        "step {}: the last checkpoint could not be written for CHECKPOINT.retry_minutes {}: {}; mend that \
                         and start again to continue from the checkpoint before it",
                        trainer.step,
                        self.config.retry_minutes,
                        self.failure
                    );
                }
                // Short enough for the watchdog, which hears of it before and after.
                pause = (2 * pause).min(Duration::from_secs(20));
                std::thread::sleep(pause.min(left));
            }
            alive();
            self.save(trainer, state);
            self.finish_saving();
        }
        Ok(())
    }

    fn note(&mut self, outcome: &SaveReport) {
        let SaveReport { step, stopped_s, waited_s, write_s, bytes, ref error } = *outcome;
        let written = event::Checkpoint { stopped_s, waited_s, write_s, bytes, error: error.clone() };
        self.log(step, Event::Checkpoint(written));
        let _ = self.history.sync();
        match error {
            None => (self.saved, self.failures) = (Some(step), 0),
            Some(error) => {
                self.failures += 1;
                self.failure.clone_from(error);
                log::warn!("step {step}: no checkpoint: {error}; the one before it stays");
            }
        }
    }

    /// A line for who trains from here on, unless the run is over.
    pub fn started(&mut self, step: u64, ranks: usize) {
        let start = event::Start { ranks, host: comm::hostname(), pid: std::process::id() };
        self.log(step, Event::Start(start));
    }

    /// The last line of a start that ended on request.
    pub fn stopped(&mut self, step: u64) {
        self.progress.finish();
        self.log(step, Event::Stopped {});
        let _ = self.history.sync();
    }

    /// The run's last line; `launch/mpirun.sh` believes it, not mpirun's exit code.
    pub fn finished(&mut self, step: u64) -> anyhow::Result<()> {
        self.progress.finish();
        self.log(step, Event::Finished {});
        Ok(self.history.sync()?)
    }

    /// A history that cannot be written is no reason to lose the run.
    fn log(&mut self, step: u64, event: Event) {
        if let Err(cause) = self.history.log(step, event) {
            log::warn!("{}: a line of step {step} is not written: {cause}", self.dir.history().display());
        }
    }
}
