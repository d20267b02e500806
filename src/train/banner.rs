//! What a run resolved to, as one table before its first step.

use super::data::Data;
use super::footprint::{self, Footprint};
use super::place::Place;
use super::{Job, Recipe};
use crate::checkpoint::State;
use crate::comm::{Comm, CommError};
use crate::data::census::Census;
use crate::model::Network;
use crate::model::layers::Role;
use crate::torch::{memory, trouble::readable};
use comfy_table::Table;
use tch::Device;

/// The table; a collective, since every rank tells its place.
pub fn table(
    job: &Job,
    state: &State,
    data: &Data,
    network: &Network,
    place: &Place,
    comm: &dyn Comm,
) -> Result<String, CommError> {
    let mine = format!("{} {:?}, {} threads", place.host, place.device, place.threads);
    let places: Vec<String> =
        comm.all_gather(mine.as_bytes())?.iter().map(|text| String::from_utf8_lossy(text).into()).collect();
    let trained = network.store.variables.iter().filter(|variable| variable.role != Role::Buffer);
    let parameters: usize = trained.clone().map(|variable| variable.tensor.numel()).sum();
    let frozen = trained.filter(|variable| !variable.tensor.requires_grad());
    let frozen: usize = frozen.map(|variable| variable.tensor.numel()).sum();
    let frozen = if frozen > 0 { format!(", {:.1} M of them frozen", frozen as f64 / 1e6) } else { String::new() };
    let Recipe { dataset, model, train, .. } = job.recipe;
    let (total, first, pass) = (train.total_steps(), state.step, data.train.order.steps_per_pass());
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    let rows = [
        (
            "network",
            format!(
                "{} + {}, {:.1} M parameters{frozen}",
                model.arch_encoder,
                model.arch_decoder,
                parameters as f64 / 1e6
            ),
        ),
        (
            "data",
            format!(
                "{} training and {} images, {} classes",
                data.train.source.len(),
                data.val.as_ref().map_or("no validation".into(), |val| format!("{} validation", val.len())),
                dataset.num_class
            ),
        ),
        ("labels", labels(job, data, comm)),
        ("step", format!("{} images in micro-batches of {}", state.global_batch, train.batch_size_per_gpu)),
        (
            "steps",
            format!(
                "{first} of {total} done; {} epochs of {}; {:.1} passes over the data, {pass} steps each",
                train.num_epoch,
                train.epoch_iters,
                total as f64 / pass as f64,
            ),
        ),
        ("ranks", format!("{}: {}", comm.size(), summary(&places))),
        ("memory", footprint(job, data, place, &places, comm)),
        ("folder", job.dir.display().to_string()),
    ];
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    Ok(table.to_string())
}

/// What the training labels hold; a warning where the reference's rule ignores most of it.
fn labels(job: &Job, data: &Data, comm: &dyn Comm) -> String {
    let (source, dataset) = (&data.train.source, job.recipe.dataset);
    if !comm.is_root() {
        return String::new();
    }
    // What cannot be read is told when it is trained on.
    let Ok(census) = Census::take(source, dataset) else { return "not read".into() };
    if source.guesses_labels(dataset) && census.is_mostly_zero() {
        log::warn!(
            "most pixels have the label 0, which is ignored, and k is class k - 1, as no label map says otherwise; \
             if 0 is a class, name all values in DATASET.label_map"
        );
    }
    census.text(source.class_names().unwrap_or_default())
}

/// What a step will take on a rank; a warning where the ranks of this host will not find it.
fn footprint(job: &Job, data: &Data, place: &Place, places: &[String], comm: &dyn Comm) -> String {
    let (recipe, sizes) = (&job.recipe, data.train.source.sizes());
    if !comm.is_root() {
        return String::new();
    }
    let (images, size) = (recipe.train.batch_size_per_gpu, footprint::largest_image(recipe, sizes));
    let Ok(footprint) = Footprint::measure(recipe, images, size) else { return "not estimated".into() };
    let text = |bytes| format!("about {} for a step of {images} x {} x {}", readable(bytes), size.1, size.0);
    if place.device != Device::Cpu {
        return format!("{} on the GPU", text(footprint.tensors));
    }
    let here = places.iter().filter(|other| other.split(' ').next() == Some(place.host.as_str())).count();
    let (wanted, free) = (footprint.process, memory::available_bytes());
    if wanted.saturating_mul(here as u64) > free {
        log::warn!(
            "a step takes about {} on each of {here} ranks here, and this host has {} free; lower TRAIN.batch_size_per_gpu, \
             DATASET.imgSizes or imgMaxSize, or set TRAIN.amp bf16",
            readable(wanted),
            readable(free)
        );
    }
    format!("{} on a rank; {} are free here", text(wanted), readable(free))
}

/// Equal neighbours are told once: `2 × node1 Cpu, 1 threads; …`.
fn summary(places: &[String]) -> String {
    let runs: Vec<String> = places.chunk_by(|a, b| a == b).map(|run| format!("{} × {}", run.len(), run[0])).collect();
    runs.join("; ")
}
