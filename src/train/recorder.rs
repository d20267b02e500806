//! What rank 0 leaves behind of a run: history, progress line, checkpoints, curve.

use super::Job;
use super::trainer::{Shown, Trainer, Update};
use crate::checkpoint::{CheckpointConfig, SaveReport, Saver, State};
use crate::data::batch_source::BatchSource;
use crate::eval;
use crate::report::board::Board;
use crate::report::history::History;
use crate::report::html::run::{ABOUT, EVALUATION, OVERLAYS, SUMMARY};
use crate::report::progress::{Progress, StepLine};
use crate::report::{run_curve, write_whole};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Rank 0's files and progress line.
pub struct Recorder {
    dir: PathBuf,
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
    failures: u64,
}

impl Recorder {
    /// Opens what is in DIR at a number of finished updates.
    pub fn open(job: &Job, step: u64, global_batch: usize) -> anyhow::Result<Recorder> {
        Ok(Recorder {
            dir: job.dir.to_owned(),
            history: History::open(job.dir, step)?,
            board: Board::open(job.dir, step),
            progress: Progress::new(!job.quiet, step, job.recipe.train.total_steps()),
            saver: Saver::new(job.dir, job.checkpoint),
            config: job.checkpoint.clone(),
            global_batch,
            epoch_iters: job.recipe.train.epoch_iters,
            since: Default::default(),
            last_save: Instant::now(),
            failures: 0,
        })
    }

    /// Shows and keeps what the run resolved to.
    pub fn announce(&self, banner: &str) {
        self.progress.print(banner);
        if let Err(cause) = write_whole(&self.dir.join(ABOUT), banner.as_bytes()) {
            log::warn!("{}: cannot be written: {cause}", self.dir.join(ABOUT).display());
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
        if self.history.has("train", update.step) {
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
        self.log(
            "train",
            update.step,
            json!({
                "epoch": epoch, "loss": loss, "acc": accuracy,
                "lr_encoder": update.lr_encoder, "lr_decoder": update.lr_decoder,
                "step_s": mean(step_s), "data_s": mean(data_s), "comm_s": mean(comm_s), "images_per_s": images_per_s,
                "read_retries": reads.retries, "read_failures": reads.failures, "substituted": substituted,
            }),
        );
    }

    /// Notes an update that was not made.
    pub fn skipped(&mut self, update: &Update, message: &str) {
        log::warn!("{message}");
        self.log("skipped", update.step, json!({ "cause": message }));
    }

    /// Shows an evaluation, and logs it unless that was done before.
    pub fn evaluated(&mut self, step: u64, outcome: &eval::Outcome) {
        self.progress.print(&outcome.table());
        if self.history.has("eval", step) {
            return;
        }
        self.log(
            "eval",
            step,
            json!({
                "mean_iou": outcome.mean_iou,
                "pixel_accuracy": outcome.pixel_accuracy,
                "mean_accuracy": outcome.mean_accuracy,
            }),
        );
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
        self.board.overlays(step, &self.dir.join(OVERLAYS));
        let write = || -> anyhow::Result<()> {
            outcome.write_csv(&self.dir.join(EVALUATION))?;
            write_whole(&self.dir.join(SUMMARY), format!("{summary:#}\n").as_bytes())?;
            run_curve::draw(&self.dir)
        };
        if let Err(cause) = write() {
            log::warn!("{}: step {step} is evaluated, but not drawn: {cause:#}", self.dir.display());
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
        let variables = &trainer.network.store.variables;
        let model: Vec<_> =
            variables.iter().map(|variable| (variable.name.clone(), variable.tensor.shallow_clone())).collect();
        trainer.copying = Some(self.saver.save(state, &model, &trainer.optimizer.state()));
        self.last_save = Instant::now();
    }

    /// Logs checkpoints that are done since the last call.
    pub fn check_saved(&mut self) -> anyhow::Result<()> {
        while let Some(outcome) = self.saver.poll() {
            self.saved(&outcome)?;
        }
        Ok(())
    }

    /// Waits for the checkpoint being written.
    pub fn finish_saving(&mut self) -> anyhow::Result<()> {
        for outcome in self.saver.finish() {
            self.saved(&outcome)?;
        }
        // The checkpoint is what counts; a history that cannot be flushed was warned about when it was written.
        let _ = self.history.sync();
        Ok(())
    }

    fn saved(&mut self, outcome: &SaveReport) -> anyhow::Result<()> {
        let times = json!({
            "stopped_s": outcome.stopped_s, "waited_s": outcome.waited_s, "write_s": outcome.write_s,
            "bytes": outcome.bytes, "error": outcome.error,
        });
        self.log("checkpoint", outcome.step, times);
        let _ = self.history.sync();
        let Some(error) = &outcome.error else {
            self.failures = 0;
            return Ok(());
        };
        self.failures += 1;
        log::warn!("step {}: no checkpoint: {error}; the one before it stays", outcome.step);
        if self.failures >= self.config.max_failures {
            anyhow::bail!("{} checkpoints in a row could not be written: {error}", self.failures);
        }
        Ok(())
    }

    /// The run's last line; `launch/mpirun.sh` believes it, not mpirun's exit code.
    pub fn finished(&mut self, step: u64) -> anyhow::Result<()> {
        self.progress.finish();
        self.log("finished", step, json!({}));
        Ok(self.history.sync()?)
    }

    /// A history that cannot be written is no reason to lose the run.
    fn log(&mut self, event: &str, step: u64, more: serde_json::Value) {
        if let Err(cause) = self.history.log(event, step, more) {
            log::warn!("{}: {event} of step {step} is not logged: {cause}", self.dir.join("metrics.jsonl").display());
        }
    }
}
