//! Training: [`run`] wires the parts of a run, [`Trainer::step`] is the algorithm.

mod average;
mod banner;
mod beginning;
mod calendar;
mod config;
mod continuation;
mod data;
mod footprint;
mod links;
mod neighbours;
mod place;
mod recalibrate;
mod recorder;
mod regroup;
mod replica;
mod round;
mod totals;
mod trainer;
mod update;

pub use average::Average;
pub use beginning::Beginning;
pub use config::{OnNonfinite, TrainConfig};
pub use footprint::Footprint;
pub use links::Links;
pub use place::Place;
pub use replica::Replica;
pub use trainer::Trainer;
pub use update::{Shown, Update};

use crate::checkpoint::{CheckpointConfig, Lock, Rules, State};
use crate::comm::journal::Journal;
use crate::comm::trace::{Lane, Trace};
use crate::comm::watchdog::{Limits, Watchdog};
use crate::comm::{self, Comm, CommError, agree, handshake};
use crate::data::DatasetConfig;
use crate::data::loader::Loader;
use crate::data::order::ORDER_VERSION;
use crate::eval::ValConfig;
use crate::fault::{self, BadInput};
use crate::loss::{BatchSize, Loss};
use crate::model::{ModelConfig, Network};
use crate::stop::StopRequest;
use crate::sync::DistConfig;
use crate::torch::memory;
use data::Data;
use neighbours::Neighbours;
use recorder::Recorder;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

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

/// The sections of the configuration that an update depends on.
#[derive(Clone, Copy)]
pub struct Recipe<'a> {
    /// DATASET.
    pub dataset: &'a DatasetConfig,
    /// MODEL.
    pub model: &'a ModelConfig,
    /// TRAIN.
    pub train: &'a TrainConfig,
    /// DIST.
    pub dist: &'a DistConfig,
}

impl Recipe<'_> {
    /// TRAIN's loss. `pixels`: of each class in the training set, where balanced weights are to follow them.
    fn loss(&self, pixels: Option<&[u64]>) -> Box<dyn Loss> {
        self.train.loss.build(self.train.loss_norm, self.dataset.num_class, pixels)
    }

    /// How large an update of so many images may get.
    fn batch_size(&self, global_batch: usize) -> BatchSize {
        let DatasetConfig { imgMaxSize, segm_downsampling_rate, .. } = *self.dataset;
        let largest = self.dataset.imgSizes.iter().copied().max().unwrap_or(imgMaxSize);
        let long = f64::from(imgMaxSize);
        let short = (f64::from(largest) * self.dataset.scale_jitter[1]).min(long);
        let crop = self.dataset.crop_size();
        let pixels = crop.map_or(long * short, |(width, height)| f64::from(width) * f64::from(height));
        BatchSize {
            pixels: global_batch as f64 * pixels / f64::from(segm_downsampling_rate.max(1)).powi(2),
            images: global_batch as f64,
            micro_batches: global_batch.div_ceil(self.train.batch_size_per_gpu.max(1)) as f64,
        }
    }
}

/// A run that is asked for.
#[derive(Clone)]
pub struct Job<'a> {
    /// What is trained, on what and how.
    pub recipe: Recipe<'a>,
    /// VAL.
    pub val: &'a ValConfig,
    /// CHECKPOINT.
    pub checkpoint: &'a CheckpointConfig,
    /// DIR.
    pub dir: &'a Path,
    /// The resolved configuration as YAML, to be kept with the run.
    pub config: String,
    /// What of it may differ from the run's before, where one is resumed.
    pub rules: Rules,
    /// `--resume`.
    pub resume: Resume,
    /// `--extend`: the schedule may be longer than the checkpoint's.
    pub extend: bool,
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
    let stop = job.stop.clone().with_limit(job.recipe.train.max_minutes);
    let opening = Opening::find(job, comm)?;
    let train = job.recipe.train.counted(opening.data.train.order.steps_per_pass());
    let job = job.counted(&train)?;
    let mut run = Run::start(&job, opening, comm)?;
    loop {
        match run.run_through(&stop) {
            Err(error) if run.outlives(&error) => run.go_on_after(error)?,
            ended => return ended,
        }
    }
}

impl Job<'_> {
    /// The same with TRAIN's epochs_of_data counted out.
    fn counted<'a>(&'a self, train: &'a TrainConfig) -> anyhow::Result<Job<'a>> {
        let mut job = Job { recipe: Recipe { train, ..self.recipe }, ..self.clone() };
        if train.epochs_of_data > 0 {
            let mut config: serde_yaml::Value = serde_yaml::from_str(&self.config)?;
            config["TRAIN"]["num_epoch"] = train.num_epoch.into();
            config["TRAIN"]["epoch_iters"] = train.epoch_iters.into();
            job.config = serde_yaml::to_string(&config)?;
        }
        Ok(job)
    }
}

/// What there is before it is known how long the run will be.
struct Opening {
    lock: Option<Lock>,
    beginning: Beginning,
    place: Place,
    data: Data,
}

impl Opening {
    /// Where to begin, where to compute, and the data. A collective.
    fn find(job: &Job, comm: &Arc<dyn Comm>) -> anyhow::Result<Opening> {
        let (recipe, all) = (&job.recipe, &**comm);
        if recipe.dist.elastic {
            let able = all.survive().map_err(|cause| BadInput(format!("DIST.elastic: {cause}")).into());
            agree::agree(all, able)?;
        }
        let mut lock = None;
        let beginning = Beginning::choose(job, all, &mut lock)?;
        let place = agree::agree(all, Place::find(all, recipe.dist))?;
        let data = agree::agree(all, Data::open(job, &beginning, all))?;
        Ok(Opening { lock, beginning, place, data })
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
    trainer: Trainer<Loader>,
    /// How evaluations get their batch norm statistics.
    fitting: recalibrate::Plan,
    /// What a checkpoint says besides tensors, the scores so far among it.
    state: State,
    /// Rank 0's lock on DIR, files and progress line.
    lock: Option<Lock>,
    recorder: Option<Recorder>,
    watchdog: Watchdog,
    /// The collectives of all channels.
    journal: Journal,
    /// On the first rank of each host.
    neighbours: Option<Neighbours>,
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
    /// Wires the parts: network, what ranks must share, and the trainer that drives them.
    fn start(job: &'a Job<'a>, opening: Opening, comm: &Arc<dyn Comm>) -> anyhow::Result<Run<'a>> {
        let (recipe, all) = (&job.recipe, &**comm);
        let Opening { lock, beginning, place, data } = opening;
        let before = beginning.before.as_ref();
        let extension = before.map(|before| continuation::extension(before, recipe.train, beginning.step));
        let extension = agree::agree(all, extension.transpose())?.flatten();
        beginning::write_config(job, beginning.global_batch, all)?;
        let mut replica = Replica::build(recipe, place.device)?;
        replica.fill(job, &beginning, all)?;
        let state = state(job, &beginning, &data, all.size());
        shake_hands(&state, &data, &replica.network, all)?;
        let banner = banner::table(job, &state, &data, &replica.network, &place, all)?;
        let fitting = recalibrate::plan(recipe, &replica.network, data.train.order.steps_per_pass());

        let trace = Trace::open(&recipe.dist.trace, all).map_err(fault::classified);
        let journal = Journal::new(agree::agree(all, trace)?);
        let steps = journal.channel(comm.clone(), Lane::Step);
        let links = Links::connect(recipe, &replica.flat, &steps, &journal)?;
        let batches = data.load(job, &place, beginning.step, all)?;
        let loss = recipe.loss(data.class_pixels(recipe)?.as_deref());
        let trainer = Trainer::new(recipe, replica, links, batches, &beginning)?.with_loss(loss);
        let total = recipe.train.total_steps();
        let evaluated = data.val.is_none() || state.scores.iter().any(|score| score.step == total);
        let was_finished = beginning.checkpoint.is_some() && state.step == total && evaluated;
        let mut recorder = all.is_root().then(|| Recorder::open(job, state.step, state.global_batch)).transpose()?;
        if let Some(recorder) = &mut recorder {
            recorder.announce(&banner);
            extension.iter().chain(&fitting.notice).for_each(|notice| log::info!("{notice}"));
            if was_finished {
                log::info!(
                    "{}: this run is finished, at step {total}; --extend and a larger TRAIN.num_epoch continue it, --init-from {} \
                     and another DIR begin a new one from its weights",
                    job.dir.display(),
                    job.dir.display()
                );
            } else {
                recorder.started(state.step, all.size());
            }
        }
        let me = regroup::name(all);
        let (first, here) = comm::local_place(all)?;
        Ok(Run {
            members: regroup::all_gather_text(all, &me)?,
            me,
            watchdog: watchdog(job, comm, &journal)?,
            neighbours: (first == 0).then(|| Neighbours::new(here)),
            was_finished,
            comm: steps,
            journal,
            last: None,
            unfinished: false,
            skipped: 0,
            job,
            place,
            data,
            trainer,
            fitting,
            state,
            lock,
            recorder,
        })
    }
}

/// What a checkpoint says besides its tensors.
fn state(job: &Job, beginning: &Beginning, data: &Data, ranks: usize) -> State {
    let source = &data.train.source;
    State {
        step: beginning.step,
        seed: job.recipe.train.seed,
        order_version: ORDER_VERSION,
        dataset_id: source.id().to_owned(),
        labels_id: source.labels_id(),
        global_batch: beginning.global_batch,
        ranks,
        scores: beginning.scores.clone(),
        config: job.config.clone(),
        class_names: source.class_names().unwrap_or_default().to_vec(),
        palette: source.palette().unwrap_or_default().to_vec(),
        ..State::default()
    }
}

/// Compares what must be equal on all ranks; the message names what differs, and where.
fn shake_hands(state: &State, data: &Data, network: &Network, comm: &dyn Comm) -> anyhow::Result<()> {
    let variables = network.store.variables.iter();
    let shapes: String =
        variables.map(|variable| format!("{} {:?}\n", variable.name, variable.tensor.size())).collect();
    let facts = [
        ("version of segdist", env!("CARGO_PKG_VERSION").to_owned()),
        ("configuration", state.config.clone()),
        ("training data set", state.dataset_id.clone()),
        ("classes of the training labels", state.labels_id.clone()),
        ("validation data set", data.val.as_ref().map_or(String::new(), |val| val.id().to_owned())),
        ("classes of the validation labels", data.val.as_ref().map_or(String::new(), |val| val.labels_id())),
        ("parameters", shapes),
        ("first step", state.step.to_string()),
    ];
    let facts = facts.map(|(name, value)| (name.to_owned(), value));
    agree::agree(comm, handshake::compare(comm, &facts).map_err(fault::classified))
}

/// Watches over the ranks, with the job's limits.
fn watchdog(job: &Job, comm: &Arc<dyn Comm>, journal: &Journal) -> Result<Watchdog, CommError> {
    let DistConfig { start_timeout_s, stall_timeout_s, elastic, .. } = *job.recipe.dist;
    let all = comm.clone();
    let limits = Limits::seconds(start_timeout_s, stall_timeout_s, elastic);
    Watchdog::start(&**comm, limits, journal.clone(), move |code| all.abort(code))
}
