//! The data of a run, opened on this rank.

use super::place::Place;
use super::{Beginning, Job, Recipe};
use crate::comm::Comm;
use crate::data::DatasetConfig;
use crate::data::batch_source::Share;
use crate::data::dataset::Dataset;
use crate::data::loader::{Loader, Preparation, Samples};
use crate::data::order::{Order, OrderSpec};
use crate::data::stage;
use crate::fault;
use std::sync::Arc;

/// What is trained and validated on.
pub struct Data {
    pub train: Samples,
    /// None where DATASET.list_val is empty: training without evaluation.
    pub val: Option<Arc<Dataset>>,
}

impl Data {
    /// Opens lists or shards on this rank, staged if asked to, and makes the order. A collective.
    pub fn open(job: &Job, beginning: &Beginning, comm: &dyn Comm) -> anyhow::Result<Data> {
        let Recipe { dataset, train, .. } = job.recipe;
        let open = |list: &str| stage::open(comm, dataset, list).map_err(fault::classified);
        // Both before either's error: opening is a collective.
        let list_val = Some(&dataset.list_val).filter(|list| !list.is_empty());
        let (source, val) = (open(&dataset.list_train), list_val.map(|list| open(list)).transpose());
        let (source, val) = (Arc::new(source?), val?.map(Arc::new));
        if let Some((samples, labels)) = &beginning.data {
            check(samples, labels, &source, dataset)?;
        }
        let spec = OrderSpec::new(dataset, train.seed, beginning.global_batch, train.batch_size_per_gpu);
        let weights = source.weights(dataset).map_err(fault::classified)?;
        let order = Arc::new(Order::new(source.sizes(), spec).weighted(weights));
        Ok(Data { train: Samples { source, order }, val })
    }

    /// Pixels of each class, where TRAIN.loss has weights that follow them.
    pub fn class_pixels(&self, recipe: &Recipe) -> anyhow::Result<Option<Vec<u64>>> {
        if !recipe.train.loss.is_balanced() {
            return Ok(None);
        }
        let DatasetConfig { list_train, num_class, .. } = recipe.dataset;
        let Some(pixels) = self.train.source.class_pixels() else {
            crate::bad_input!(
                "{list_train}: there are no pixel counts of these classes, which TRAIN.loss needs for class_weights \
                 balanced: pack the set with `segdist pack` and the same label map, or list the weights"
            );
        };
        let mut pixels = pixels.to_vec();
        pixels.resize(*num_class, 0);
        Ok(Some(pixels))
    }

    /// This rank's micro-batches from `step` on.
    pub fn load(&self, job: &Job, place: &Place, step: u64, comm: &dyn Comm) -> anyhow::Result<Loader> {
        let train = job.recipe.train;
        let share = Share { rank: comm.rank(), ranks: comm.size() };
        let preparation =
            Preparation { dataset: job.recipe.dataset, padding_label: train.padding_label, seed: train.seed };
        let threads = place.threads.min(train.workers.max(1));
        Loader::start(self.train.clone(), preparation, share, step, threads).map_err(fault::classified)
    }
}

/// The data that a checkpoint was trained on are known by their content; their names and places may change.
fn check(samples: &str, labels: &str, train: &Dataset, dataset: &DatasetConfig) -> anyhow::Result<()> {
    if samples != train.id() {
        crate::bad_input!(
            "{}: these are not the samples that the checkpoint was trained on; give the same data; \
             for a new run on others: --init-from the checkpoint, and another DIR",
            dataset.list_train
        );
    }
    if labels.is_empty() {
        log::warn!("the checkpoint does not say what its label values meant: it is taken that they mean the same now");
    } else if labels != train.labels_id() {
        let origin = if dataset.label_map.is_empty() { &dataset.list_train } else { &dataset.label_map };
        crate::bad_input!(
            "{origin}: label values do not mean the classes that the checkpoint was trained with (DATASET.label_map); \
             give the same label map; for a new run: --init-from the checkpoint, and another DIR"
        );
    }
    Ok(())
}
