//! Training: [`run`] wires the parts and keeps the calendar; [`Trainer::step`] is the algorithm.

mod banner;
mod place;
mod recorder;
mod regroup;
mod start;
mod trainer;

pub use place::Place;
pub use trainer::{Trainer, Update};

use crate::checkpoint::{CheckpointConfig, Lock, Score, State};
use crate::comm::journal::Journal;
use crate::comm::trace::{Lane, Trace};
use crate::comm::watchdog::Watchdog;
use crate::comm::{Comm, agree};
use crate::data::DatasetConfig;
use crate::eval::{self, ValConfig};
use crate::fault::{self, Agreed, BadInput};
use crate::model::ModelConfig;
use crate::report::{html::run::OVERLAYS, palette::Classes};
use crate::schedule::{OnNonfinite, TrainConfig};
use crate::stop::StopRequest;
use crate::sync::{DistConfig, replicas};
use crate::torch::memory;
use recorder::Recorder;
use start::Data;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// About how many validation images are drawn at an evaluation.
const SAMPLES: usize = 4;

/// What `--resume` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Continue from DIR's newest complete checkpoint, if there is one.
    Auto,
    /// Move an old run's files aside and start anew.
    None,
    /// Continue from this checkpoint.
    From(PathBuf),
}

/// A run's sections of the configuration.
pub struct Job<'a> {
    /// DATASET.
    pub dataset: &'a DatasetConfig,
    /// MODEL.
    pub model: &'a ModelConfig,
    /// TRAIN.
    pub train: &'a TrainConfig,
    /// VAL.
    pub val: &'a ValConfig,
    /// DIST.
    pub dist: &'a DistConfig,
    /// CHECKPOINT.
    pub checkpoint: &'a CheckpointConfig,
    /// DIR.
    pub dir: &'a Path,
    /// The resolved configuration as YAML, to be kept with the run.
    pub config: String,
    /// `--resume`.
    pub resume: Resume,
    /// Listens for signals; installed before MPI, so that none is lost.
    pub stop: StopRequest,
    /// `--quiet`.
    pub quiet: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All updates are made.
    Finished,
    /// On request, after a checkpoint.
    Stopped,
}

/// Trains from where DIR's newest checkpoint is to the last update, or until someone asks to stop.
pub fn run(job: &Job, comm: &Arc<dyn Comm>) -> anyhow::Result<Ended> {
    memory::keep_freed_memory();
    let stop = job.stop.clone().with_limit(job.train.max_minutes);
    let mut run = Run::start(job, comm)?;
    loop {
        match run.run_through(&stop) {
            Err(error) if run.outlives(&error) => run.go_on_after(error)?,
            ended => return ended,
        }
    }
}

/// A run under way.
struct Run<'a> {
    job: &'a Job<'a>,
    comm: Arc<dyn Comm>,
    /// Who takes part, by rank: number at the start, host and process.
    members: Vec<String>,
    /// This rank among them.
    me: String,
    place: Place,
    data: Data,
    trainer: Trainer,
    /// What a checkpoint says besides tensors, the scores so far among it.
    state: State,
    /// Rank 0's lock on DIR, files and progress line.
    lock: Option<Lock>,
    recorder: Option<Recorder>,
    watchdog: Watchdog,
    /// The collectives of all channels.
    journal: Journal,
    /// The last update of this process.
    last: Option<Rc<Update>>,
    /// It was made, but what comes after it is not done.
    unfinished: bool,
    /// Updates skipped in a row.
    skipped: u64,
    /// The run was over before it began.
    was_finished: bool,
}

impl<'a> Run<'a> {
    /// Wires the parts.
    fn start(job: &'a Job<'a>, comm: &Arc<dyn Comm>) -> anyhow::Result<Run<'a>> {
        if job.dist.elastic {
            let able = comm.survive().map_err(|cause| BadInput(format!("DIST.elastic: {cause}")).into());
            agree::agree(&**comm, able)?;
        }
        let mut lock = None;
        let beginning = start::begin(job, &**comm, &mut lock)?;
        let place = agree::agree(&**comm, Place::find(&**comm, job.dist))?;
        let data = agree::agree(&**comm, start::open_data(job, &beginning, &**comm))?;
        let parts = start::build(job, &beginning, &place, &**comm)?;
        start::shake_hands(job, &beginning, &data, &parts.network, &**comm)?;
        let banner = banner::table(job, &beginning, &data, &parts.network, &place, &**comm)?;
        let trace = Trace::open(&job.dist.trace, &**comm).map_err(fault::classified);
        let journal = Journal::new(agree::agree(&**comm, trace)?);
        let steps = journal.channel(comm.clone(), Lane::Step);
        let trainer = start::trainer(job, &beginning, &place, &data, parts, &steps, &journal)?;
        let state = start::state(job, &beginning, &data, comm.size());
        let recorder = comm.is_root().then(|| Recorder::open(job, state.step, state.global_batch)).transpose()?;
        if let Some(recorder) = &recorder {
            recorder.announce(&banner);
        }
        let me = regroup::name(&**comm);
        Ok(Run {
            members: regroup::all_gather_text(&**comm, &me)?,
            me,
            watchdog: start::watchdog(job, comm, &journal)?,
            was_finished: state.scores.iter().any(|score| score.step == job.train.total_steps()),
            comm: steps,
            journal,
            last: None,
            unfinished: false,
            skipped: 0,
            job,
            place,
            data,
            trainer,
            state,
            lock,
            recorder,
        })
    }

    fn run_through(&mut self, stop: &StopRequest) -> anyhow::Result<Ended> {
        let total = self.job.train.total_steps();
        while self.trainer.step < total || self.unfinished {
            if !self.unfinished {
                self.watchdog.progress(self.trainer.step, "step");
                let update = self.trainer.step(stop.requested().is_some())?;
                if let Some(recorder) = &mut self.recorder {
                    recorder.count(&update);
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
        self.finish_saving()?;
        if self.comm.is_root() {
            log::info!("stopped on request at step {}: start again to continue", update.step);
        }
        Ok(Some(Ended::Stopped))
    }

    /// The final evaluation; the last checkpoint, safe since before, is written again with its score.
    fn finish(&mut self) -> anyhow::Result<()> {
        self.finish_saving()?;
        let step = self.trainer.step;
        self.evaluate()?;
        if let Some(recorder) = &mut self.recorder
            && !self.was_finished
        {
            self.watchdog.progress(step, "checkpoint");
            recorder.save(&mut self.trainer, &self.state);
            recorder.finish_saving()?;
            recorder.finished(step)?;
        }
        // Nobody leaves before that is done: where rank 0 dies over it, another one does it.
        Ok(self.comm.barrier()?)
    }

    /// Whether an interval of `epochs` ends with the update just made.
    fn is_due(&self, epochs: u64) -> bool {
        let steps = epochs.saturating_mul(self.job.train.epoch_iters);
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
        let every = self.job.dist.check_replicas;
        if every > 0 && update.step.is_multiple_of(every) {
            let variables = &self.trainer.network.store.variables;
            if let Some(text) = replicas::difference(&*self.comm, variables)? {
                return Err(Agreed { message: format!("step {}: {text}", update.step), code: 1 }.into());
            }
        }
        Ok(())
    }

    /// Every rank is here: the norm that decided was the same on all.
    fn refuse(&mut self, update: &Update) -> anyhow::Result<()> {
        let names: Vec<&str> = update.samples.iter().map(|&index| self.data.train.name(index as usize)).collect();
        let mine = if update.loss.is_finite() { String::new() } else { names.join(", ") };
        let all = self.comm.all_gather(mine.as_bytes())?;
        let blamed = all.iter().enumerate().find(|(_, names)| !names.is_empty());
        let cause = match blamed {
            Some((rank, names)) => {
                format!("the loss of rank {rank} is not finite (samples {})", String::from_utf8_lossy(names))
            }
            None => "a gradient is not finite, though every rank's loss is".to_owned(),
        };
        let message = format!("step {}: {cause}; no parameter was changed", update.step);
        if self.job.train.on_nonfinite == OnNonfinite::Skip && self.skipped < self.job.train.max_skips {
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
        self.watchdog.progress(step, "evaluation");
        fault::point("evaluation");
        let (job, trainer, val, watchdog) = (self.job, &self.trainer, &self.data.val, &self.watchdog);
        let classes = Classes::new(job.dataset.num_class, val.class_names(), val.palette());
        // Rank 0 draws a few of its own: the images are dealt in turn, and only it needs to reach DIR.
        let overlays = self.comm.is_root().then(|| eval::Overlays {
            folder: job.dir.join(OVERLAYS),
            below: SAMPLES * self.comm.size(),
            optional: true,
        });
        let evaluation = eval::Evaluation {
            source: val,
            dataset: job.dataset,
            val: job.val,
            device: trainer.device,
            classes: &classes,
            overlays,
            progress: false,
            alive: &|| watchdog.progress(step, "evaluation"),
        };
        let outcome = evaluation.run(&trainer.network, &*self.comm)?;
        if !self.state.scores.iter().any(|score| score.step == step) {
            self.state.scores.push(Score { step, mean_iou: outcome.mean_iou });
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.evaluated(step, &outcome);
        }
        Ok(())
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

    fn finish_saving(&mut self) -> anyhow::Result<()> {
        self.watchdog.progress(self.trainer.step, "checkpoint");
        self.recorder.as_mut().map_or(Ok(()), Recorder::finish_saving)
    }
}
