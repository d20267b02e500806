//! From a job's sections to a [`Trainer`] at its first step: where to begin, data, network, and what ranks must share.

use super::place::Place;
use super::trainer::Trainer;
use super::{Job, Resume};
use crate::checkpoint::{self, Lock, Score, State};
use crate::comm::handshake;
use crate::comm::journal::Journal;
use crate::comm::trace::Lane;
use crate::comm::watchdog::{Limits, Watchdog};
use crate::comm::{Comm, CommError, agree};
use crate::data::dataset::Dataset;
use crate::data::loader::{Loader, Share};
use crate::data::order::{ORDER_VERSION, Order, OrderSpec};
use crate::data::source::DataError;
use crate::data::stage;
use crate::fault;
use crate::model::layers::Normalize;
use crate::model::{ModelConfig, Network, weights};
use crate::optim::{self, Flat, LossScale, Optimizer};
use crate::schedule::TrainConfig;
use crate::sync::DistConfig;
use crate::sync::batch_norm::SyncBatchNorm;
use crate::sync::buckets::Reducer;
use crate::sync::{replicas, transport};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Tensor;

/// Where a run begins; chosen by rank 0, the same on all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Beginning {
    /// Finished updates.
    pub step: u64,
    /// Images in an update.
    pub global_batch: usize,
    /// Updates that the optimizer has made.
    pub updates: u64,
    /// The loss scale and its good steps, of a checkpoint.
    pub loss_scale: Option<(f64, u64)>,
    /// Evaluations made so far.
    pub scores: Vec<Score>,
    /// The samples that the checkpoint was trained on, and what their labels meant.
    pub data: Option<(String, String)>,
    /// The checkpoint to continue from, on rank 0's file system.
    pub checkpoint: Option<PathBuf>,
}

/// A network, its parameters' memory, and what updates them.
pub struct Parts {
    pub network: Network,
    pub flat: Flat,
    pub optimizer: Optimizer,
}

/// Data and order of a run, opened on this rank.
pub struct Data {
    pub train: Arc<Dataset>,
    pub val: Arc<Dataset>,
    pub order: Arc<Order>,
}

/// Chooses where to begin, on rank 0, under the lock on DIR, and writes DIR/config.yaml.
pub fn begin(job: &Job, comm: &dyn Comm, lock: &mut Option<Lock>) -> anyhow::Result<Beginning> {
    let bytes = agree::from_root(comm, || {
        if job.resume == Resume::None || !checkpoint::exists(job.dir) {
            // Before anything is written: a run without initial values is not wanted.
            weights::named(&initial(job)).map_err(fault::classified)?;
        }
        *lock = Some(Lock::take(job.dir).map_err(fault::classified)?);
        let beginning = match find(job)? {
            Some((path, state)) => resume(job, path, state)?,
            None => fresh(job, comm.size()),
        };
        write_config(job, &beginning)?;
        Ok(serde_json::to_vec(&beginning)?)
    })?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The checkpoint that `--resume` means, checked byte by byte.
fn find(job: &Job) -> anyhow::Result<Option<(PathBuf, State)>> {
    match &job.resume {
        Resume::None => {
            if let Some(place) = checkpoint::set_aside(job.dir)? {
                log::info!("the run that was in {} is now in {}", job.dir.display(), place.display());
            }
            Ok(None)
        }
        Resume::From(path) => Ok(Some((path.clone(), checkpoint::check(path).map_err(fault::classified)?))),
        Resume::Auto => {
            let Some(found) = checkpoint::newest(job.dir).map_err(fault::classified)? else { return Ok(None) };
            for warning in &found.warnings {
                log::warn!("{warning}; using {}", found.path.display());
            }
            Ok(Some((found.path, found.state)))
        }
    }
}

fn fresh(job: &Job, ranks: usize) -> Beginning {
    let train = job.train;
    let global_batch = if train.global_batch > 0 { train.global_batch } else { train.batch_size_per_gpu * ranks };
    let step = train.start_epoch * train.epoch_iters;
    Beginning { step, global_batch, updates: step, loss_scale: None, scores: Vec::new(), data: None, checkpoint: None }
}

/// The configuration must agree with the checkpoint's in all that the future depends on.
fn resume(job: &Job, path: PathBuf, state: State) -> anyhow::Result<Beginning> {
    let now = serde_yaml::from_str(&job.config)?;
    let mut saved: serde_yaml::Value = serde_yaml::from_str(&state.config)?;
    saved["TRAIN"]["global_batch"] = state.global_batch.into();
    let differing = checkpoint::disagreements(&saved, &now);
    if !differing.is_empty() {
        let list: Vec<String> = differing.iter().map(ToString::to_string).collect();
        crate::bad_input!(
            "{}: {}; give the same values, another DIR, or --resume none to start anew",
            path.display(),
            list.join(", ")
        );
    }
    if state.order_version != ORDER_VERSION {
        crate::bad_input!(
            "{}: it was trained in order {}, this segdist has order {ORDER_VERSION}: continue with the version that wrote it",
            path.display(),
            state.order_version
        );
    }
    // Later checkpoints, damaged or not, are of a future that will be made again.
    checkpoint::set_aside_after(job.dir, state.step)?;
    let loss_scale = Some((state.loss_scale, state.loss_scale_steps));
    let State { step, global_batch, updates, scores, dataset_id, labels_id, .. } = state;
    Ok(Beginning {
        step,
        global_batch,
        updates,
        loss_scale,
        scores,
        data: Some((dataset_id, labels_id)),
        checkpoint: Some(path),
    })
}

/// DIR/config.yaml, complete or not there.
fn write_config(job: &Job, beginning: &Beginning) -> anyhow::Result<()> {
    let path = job.dir.join("config.yaml");
    let text =
        format!("# segdist {}, {} images a step\n{}", env!("CARGO_PKG_VERSION"), beginning.global_batch, job.config);
    let temporary = job.dir.join(".config.yaml");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

/// Opens lists or shards on this rank, staged if asked to, and makes the order. A collective.
pub fn open_data(job: &Job, beginning: &Beginning, comm: &dyn Comm) -> anyhow::Result<Data> {
    let open = |list: &str| stage::open(comm, job.dataset, list).map_err(fault::classified);
    // Both before either's error: opening is a collective.
    let (train, val) = (open(&job.dataset.list_train), open(&job.dataset.list_val));
    let (train, val) = (Arc::new(train?), Arc::new(val?));
    if let Some((samples, labels)) = &beginning.data {
        check_data(samples, labels, &train, job)?;
    }
    let spec = OrderSpec::new(job.dataset, job.train, beginning.global_batch);
    let order = Arc::new(Order::new(train.sizes(), spec));
    Ok(Data { train, val, order })
}

/// The data that a checkpoint was trained on are known by their content; their names and places may change.
fn check_data(samples: &str, labels: &str, train: &Dataset, job: &Job) -> anyhow::Result<()> {
    let dataset = job.dataset;
    if samples != train.id() {
        crate::bad_input!(
            "{}: these are not the samples that the checkpoint was trained on; give the same data, or --resume none",
            dataset.list_train
        );
    }
    if labels.is_empty() {
        log::warn!("the checkpoint does not say what its label values meant: it is taken that they mean the same now");
    } else if labels != train.labels_id() {
        let origin = if dataset.label_map.is_empty() { &dataset.list_train } else { &dataset.label_map };
        crate::bad_input!(
            "{origin}: label values do not mean the classes that the checkpoint was trained with (DATASET.label_map); \
             give the same label map, or --resume none"
        );
    }
    Ok(())
}

/// The network at its first values, the same on every rank, with the optimizer that trains it.
pub fn build(job: &Job, beginning: &Beginning, place: &Place, comm: &dyn Comm) -> anyhow::Result<Parts> {
    let network =
        Network::build(job.model, job.dataset.num_class, place.device, job.train.seed).map_err(fault::classified)?;
    if job.train.channels_last {
        optim::to_channels_last(&network.store);
    }
    let flat = Flat::new(&network.store, job.dist.bucket_bytes());
    let mut optimizer = Optimizer::new(&flat, job.train);
    agree::from_root(comm, || {
        match &beginning.checkpoint {
            Some(path) => restore(path, &network, &optimizer)?,
            None => {
                for line in weights::initialize(&network.store, &initial(job)).map_err(fault::classified)? {
                    log::info!("{line}");
                }
            }
        }
        Ok(Vec::new())
    })?;
    replicas::broadcast(comm, network.store.variables.iter().map(|variable| &variable.tensor))?;
    if beginning.checkpoint.is_some() {
        replicas::broadcast(comm, optimizer.state().iter().map(|(_, tensor)| tensor))?;
    }
    optimizer.set_updates(beginning.updates);
    Ok(Parts { network, flat, optimizer })
}

/// MODEL, with the weights of TRAIN.start_epoch where a run of the reference is continued.
fn initial(job: &Job) -> ModelConfig {
    let epoch = job.train.start_epoch;
    if epoch == 0 {
        return job.model.clone();
    }
    let file = |part: &str| job.dir.join(format!("{part}_epoch_{epoch}.pth")).to_string_lossy().into_owned();
    ModelConfig { weights_encoder: file("encoder"), weights_decoder: file("decoder"), ..job.model.clone() }
}

/// Copies a checkpoint's tensors into network and optimizer; both must be the ones it was made of.
fn restore(path: &Path, network: &Network, optimizer: &Optimizer) -> anyhow::Result<()> {
    let loaded = checkpoint::load(path)?;
    let model = network
        .store
        .variables
        .iter()
        .map(|variable| (variable.name.clone(), variable.tensor.shallow_clone()))
        .collect();
    for (targets, saved) in [(model, loaded.model), (optimizer.state(), loaded.optimizer)] {
        let saved: BTreeMap<String, Tensor> = saved.into_iter().collect();
        for (name, target) in targets {
            let Some(value) = saved.get(&name).filter(|value| value.size() == target.size()) else {
                crate::bad_input!("{}: it has no tensor {name} of shape {:?}", path.display(), target.size());
            };
            tch::no_grad(|| target.shallow_clone().copy_(value));
        }
    }
    Ok(())
}

/// Compares what must be equal on all ranks; the message names what differs, and where.
pub fn shake_hands(
    job: &Job,
    beginning: &Beginning,
    data: &Data,
    network: &Network,
    comm: &dyn Comm,
) -> anyhow::Result<()> {
    let shapes: String = network
        .store
        .variables
        .iter()
        .map(|variable| format!("{} {:?}\n", variable.name, variable.tensor.size()))
        .collect();
    let facts = [
        ("version of segdist", env!("CARGO_PKG_VERSION").to_owned()),
        ("configuration", job.config.clone()),
        ("training data set", data.train.id().to_owned()),
        ("classes of the training labels", data.train.labels_id()),
        ("validation data set", data.val.id().to_owned()),
        ("classes of the validation labels", data.val.labels_id()),
        ("parameters", shapes),
        ("first step", beginning.step.to_string()),
    ];
    let facts = facts.map(|(name, value)| (name.to_owned(), value));
    agree::agree(comm, handshake::compare(comm, &facts).map_err(fault::classified))
}

/// Puts the parts together.
pub fn trainer(
    job: &Job,
    beginning: &Beginning,
    place: &Place,
    data: &Data,
    parts: Parts,
    comm: &Arc<dyn Comm>,
    journal: &Journal,
) -> anyhow::Result<Trainer> {
    let channel = |lane| anyhow::Ok(journal.channel(comm.duplicate()?, lane));
    let Parts { network, flat, optimizer } = parts;
    let backend = transport::choose(&**comm, place.device, job.dist)?;
    let scale = LossScale::new(job.train);
    Ok(Trainer {
        reducer: Reducer::new(&flat, channel(Lane::Gradients)?, backend, job.dist, &journal.trace)?,
        comm: comm.clone(),
        network,
        optimizer,
        norm: norm(job, channel(Lane::BatchNorm)?),
        loader: loader(job, place, data, beginning.step, &**comm)?,
        recipe: TrainConfig { global_batch: beginning.global_batch, ..job.train.clone() },
        running: job.model.bn_running,
        device: place.device,
        step: beginning.step,
        scale: beginning.loss_scale.map_or(scale, |(value, good)| scale.restored(value, good)),
        trace: journal.trace.clone(),
        copying: None,
        substituted: 0,
    })
}

/// Batch norm over all ranks.
pub fn norm(job: &Job, comm: Arc<dyn Comm>) -> Box<dyn Normalize> {
    Box::new(SyncBatchNorm::new(comm, job.model.bn_variance))
}

/// This rank's micro-batches from `step` on.
pub fn loader(job: &Job, place: &Place, data: &Data, step: u64, comm: &dyn Comm) -> Result<Loader, DataError> {
    let share = Share { rank: comm.rank(), ranks: comm.size() };
    let threads = place.threads.min(job.train.workers.max(1));
    let (source, order, train) = (data.train.clone(), data.order.clone(), job.train);
    Loader::start(source, order, job.dataset, train.padding_label, train.seed, share, step, threads)
}

/// Watches over the ranks, with the job's limits.
pub fn watchdog(job: &Job, comm: &Arc<dyn Comm>, journal: &Journal) -> Result<Watchdog, CommError> {
    let DistConfig { start_timeout_s, stall_timeout_s, elastic, .. } = *job.dist;
    let all = comm.clone();
    let limits = Limits::seconds(start_timeout_s, stall_timeout_s, elastic);
    Watchdog::start(&**comm, limits, journal.clone(), move |code| all.abort(code))
}

/// What a checkpoint says besides its tensors.
pub fn state(job: &Job, beginning: &Beginning, data: &Data, ranks: usize) -> State {
    State {
        step: beginning.step,
        seed: job.train.seed,
        order_version: ORDER_VERSION,
        dataset_id: data.train.id().to_owned(),
        labels_id: data.train.labels_id(),
        global_batch: beginning.global_batch,
        ranks,
        scores: beginning.scores.clone(),
        config: job.config.clone(),
        class_names: data.train.class_names().unwrap_or_default().to_vec(),
        palette: data.train.palette().unwrap_or_default().to_vec(),
        ..State::default()
    }
}
