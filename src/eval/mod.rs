//! Evaluation: one integer confusion matrix over all ranks.
//!
//! Images whose inputs have equal shapes form batches; batch i is rank (i mod ranks)'s, and there the next free
//! thread's ([`workers`]). It decodes and resizes ([`input`]), runs the network ([`scorer`]) and makes the scores labels
//! pixel by pixel ([`fuse`]). Counts are added, so the number of ranks and threads does not show in the result.

mod boundary;
pub mod fuse;
pub mod input;
mod outcome;
pub mod scorer;
pub mod weights_choice;
pub mod workers;

pub use crate::metrics::Iou;
pub use outcome::Outcome;

use crate::bad_input;
use crate::comm::{Comm, agree};
use crate::data::{DatasetConfig, dataset::Dataset, resize::Resizer};
use crate::durable;
use crate::fault::{self, require};
use crate::metrics::Confusion;
use crate::model::{ModelConfig, Network};
use crate::report::overlay::{self, Image};
use crate::report::{palette::Classes, progress};
use crate::run_dir::RunDir;
use crate::torch::memory;
use anyhow::Context;
use boundary::BoundaryCounts;
use input::Prepared;
use schemars::JsonSchema;
use scorer::Scorer;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tch::Device;
use weights_choice::Origin;

/// How a network is evaluated.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ValConfig {
    /// Images of equal shape that are evaluated at once.
    pub batch_size: usize,
    /// Write an overlay of every image to DIR/overlays.
    pub visualize: bool,
    /// Suffix of the reference's weight files in DIR: encoder_<this> and decoder_<this>.
    pub checkpoint: String,
    /// Mean IoU over all classes as the reference counts it (absent classes are 0), or over the present ones.
    pub iou: Iou,
    /// Epochs between evaluations during training; 0: only at the end.
    pub every_epochs: u64,
    /// Side of a sliding window in pixels; 0: the whole image at once.
    pub window: u32,
    /// Step of the sliding window; 0: two thirds of it.
    pub stride: u32,
    /// Average with the mirrored image.
    pub flip: bool,
    /// Report boundary IoU too.
    pub boundary: bool,
    /// Report the loss too: the mean over labelled pixels of -log of their truth's score, at the image's own size.
    pub loss: bool,
}

impl Default for ValConfig {
    fn default() -> Self {
        ValConfig {
            batch_size: 1,
            visualize: false,
            checkpoint: "epoch_20.pth".into(),
            iou: Iou::Reference,
            every_epochs: 0,
            window: 0,
            stride: 0,
            flip: false,
            boundary: false,
            loss: false,
        }
    }
}

impl ValConfig {
    /// The first value that cannot be meant, in one line that names the key.
    pub fn validate(&self) -> Result<(), String> {
        require((1..=65536).contains(&self.batch_size), || {
            format!("VAL.batch_size is {}: set it to 1 … 65536", self.batch_size)
        })?;
        for (key, side) in [("window", self.window), ("stride", self.stride)] {
            require(side <= 65536, || format!("VAL.{key} is {side}: set it to at most 65536 pixels"))?;
        }
        Ok(())
    }
}

/// What `segdist eval` is asked for.
pub struct EvalJob<'a> {
    /// DATASET; list_val is evaluated.
    pub dataset: &'a DatasetConfig,
    /// MODEL.
    pub model: &'a ModelConfig,
    /// VAL.
    pub val: &'a ValConfig,
    /// DIR.
    pub dir: &'a Path,
    /// `--checkpoint`.
    pub checkpoint: Option<&'a str>,
    /// One JSON object instead of a table.
    pub json: bool,
    /// Where the table per class is to be written as CSV; the confusion matrix goes beside it.
    pub csv: Option<&'a Path>,
    /// Where this rank computes.
    pub device: Device,
}

/// Evaluates the network that [`weights_choice`] finds, and prints the result on rank 0.
pub fn run(job: &EvalJob, comm: &dyn Comm) -> anyhow::Result<()> {
    memory::keep_freed_memory();
    if job.dataset.list_val.is_empty() {
        bad_input!("DATASET.list_val is empty: name the images to evaluate on");
    }
    let open = || {
        if let (true, Some(path)) = (comm.is_root(), job.csv) {
            durable::try_out(path).map_err(|cause| fault::unwritable(path, cause))?;
        }
        scorer::check(job.dataset, job.val).map_err(fault::classified)?;
        let source = Dataset::open(job.dataset, &job.dataset.list_val).map_err(fault::classified)?;
        let network = Network::blank(job.model, job.dataset.num_class, job.device).map_err(fault::classified)?;
        anyhow::Ok((source, network))
    };
    let (source, network) = agree::agree(comm, open())?;
    let choice = weights_choice::Choice { dir: job.dir, suffix: &job.val.checkpoint, requested: job.checkpoint };
    let origin = weights_choice::load(&choice, job.model, &network, comm)?;
    if comm.is_root() {
        eprintln!("weights: {origin}");
    }
    let classes = classes(&source, &origin, job.dataset.num_class);
    let overlays = job.val.visualize.then(|| Overlays {
        folder: RunDir::new(job.dir).overlays(),
        below: usize::MAX,
        optional: false,
    });
    let evaluation = Evaluation {
        source: &source,
        dataset: job.dataset,
        val: job.val,
        device: job.device,
        classes: &classes,
        overlays,
        progress: !job.json,
        alive: &|| (),
    };
    let outcome = evaluation.run(&network, comm)?;
    if comm.is_root() {
        if let Some(path) = job.csv {
            outcome.write_csv(path)?;
        }
        let run = RunDir::new(job.dir);
        if origin.is_of(&run)
            && let Err(cause) = outcome.keep(&run, &origin.to_string())
        {
            log::warn!("the evaluation is not kept with the run: {cause:#}");
        }
        if job.json {
            println!("{}", outcome.json(&origin.to_string()));
        } else {
            println!("{}", outcome.table());
        }
    }
    Ok(())
}

/// Names and colours: the data set's, else those kept with the weights, else ADE20K's or generated ones.
fn classes(source: &Dataset, origin: &Origin, count: usize) -> Classes {
    let names = source.class_names().unwrap_or(&origin.names);
    Classes::new(count, Some(names), Some(source.palette().unwrap_or(&origin.palette)))
}

/// Which pictures are drawn, and where to.
pub struct Overlays {
    /// Made where it does not exist.
    pub folder: PathBuf,
    /// Images of the source with a smaller index are drawn.
    pub below: usize,
    /// A picture that cannot be written is warned about, and no error.
    pub optional: bool,
}

/// What a network is evaluated on, and how.
pub struct Evaluation<'a> {
    /// Labelled images.
    pub source: &'a Dataset,
    /// How images are cut to size.
    pub dataset: &'a DatasetConfig,
    /// What is measured.
    pub val: &'a ValConfig,
    /// Where the network is.
    pub device: Device,
    /// Names and colours.
    pub classes: &'a Classes,
    /// Pictures of image, truth and prediction; None: none.
    pub overlays: Option<Overlays>,
    /// Show a bar on rank 0.
    pub progress: bool,
    /// Called after each image: an evaluation takes its time, but does not stand still.
    pub alive: &'a (dyn Fn() + Sync),
}

/// One thread's network and what it counted.
struct Worker {
    scorer: Scorer,
    resizer: Resizer,
    tally: Tally,
}

/// What was counted.
struct Tally {
    confusion: Confusion,
    boundary: BoundaryCounts,
    /// Index of an image, and its summed negative log likelihood.
    nll: Vec<(usize, f64)>,
}

impl Tally {
    fn new(classes: usize) -> Tally {
        Tally { confusion: Confusion::new(classes), boundary: BoundaryCounts::new(classes), nll: Vec::new() }
    }

    fn add(&mut self, other: Tally) {
        let add = |own: &mut [i64], other: &[i64]| own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        add(&mut self.confusion.counts, &other.confusion.counts);
        add(&mut self.boundary.counts, &other.boundary.counts);
        self.nll.extend(other.nll);
    }

    /// Summed in the order of images, so that the deal to threads does not show in the last digits.
    fn summed_nll(mut self) -> f64 {
        self.nll.sort_by_key(|(image, _)| *image);
        self.nll.iter().map(|(_, nll)| nll).sum()
    }
}

impl Evaluation<'_> {
    /// Evaluates every image of the source once by `network`, in evaluation mode whatever it does otherwise. A
    /// collective; the same result on every rank.
    ///
    /// # Errors
    /// A record that cannot be read, by name, on every rank.
    pub fn run(&self, network: &Network, comm: &dyn Comm) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        let mut tally = agree::agree(comm, self.count(network, comm.rank(), comm.size()))?;
        comm.all_reduce_i64(&mut tally.confusion.counts)?;
        comm.all_reduce_i64(&mut tally.boundary.counts)?;
        let boundary = self.val.boundary.then(|| tally.boundary.iou());
        let confusion = std::mem::replace(&mut tally.confusion, Confusion::new(0));
        let mut nll = [tally.summed_nll()];
        comm.all_reduce_f64(&mut nll)?;
        let pixels = confusion.pixels().max(1) as f64;
        Ok(Outcome {
            mean_iou: confusion.mean_iou(self.val.iou),
            pixel_accuracy: confusion.pixel_accuracy(),
            mean_accuracy: confusion.mean_accuracy(),
            rule: self.val.iou,
            loss: self.val.loss.then_some(nll[0] / pixels),
            boundary,
            confusion,
            classes: self.classes.clone(),
            images: self.source.len(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// This rank's share.
    fn count(&self, network: &Network, rank: usize, ranks: usize) -> anyhow::Result<Tally> {
        scorer::check(self.dataset, self.val).map_err(fault::classified)?;
        let batches = input::batches(self.source.sizes(), self.dataset, self.val.batch_size);
        let mine: Vec<Vec<usize>> = batches.into_iter().skip(rank).step_by(ranks).collect();
        let bar = progress::images(self.progress && rank == 0, mine.iter().map(Vec::len).sum::<usize>() as u64);
        let count = workers::number(mine.len(), self.device);
        let worker = |scorer| Worker { scorer, resizer: Resizer::default(), tally: Tally::new(self.dataset.num_class) };
        let scorers = Scorer::several(count, network, self.dataset, self.val, self.device);
        let workers = workers::share(scorers.into_iter().map(worker).collect(), mine.len(), false, |worker, at| {
            let batch = input::prepare(self.source, self.dataset, &mine[at], &mut worker.resizer)?;
            let scores = worker.scorer.score(&batch.inputs, batch.images.len()).map_err(fault::classified)?;
            for (image, maps) in batch.images.iter().zip(scores) {
                self.tally(image, &maps, &mut worker.tally)?;
                bar.inc(1);
                (self.alive)();
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        let mut tally = Tally::new(self.dataset.num_class);
        workers.into_iter().for_each(|worker| tally.add(worker.tally));
        Ok(tally)
    }

    fn tally(&self, image: &Prepared, maps: &[fuse::ScoreMap], tally: &mut Tally) -> anyhow::Result<()> {
        let fused = fuse::fuse(maps, image.size, self.val.loss.then_some(&image.truth));
        tally.nll.push((image.index, fused.nll));
        tally.confusion.add(&image.truth, &fused.labels);
        if self.val.boundary {
            tally.boundary.add(image.size, &image.truth, &fused.labels);
        }
        let Some(overlays) = self.overlays.as_ref().filter(|overlays| image.index < overlays.below) else {
            return Ok(());
        };
        match self.visualise(&overlays.folder, image, &fused.labels) {
            Err(cause) if overlays.optional => {
                log::warn!("{cause:#}");
                Ok(())
            }
            drawn => drawn,
        }
    }

    /// Image, truth and prediction side by side, as VAL.visualize does in the reference.
    fn visualise(&self, folder: &Path, image: &Prepared, labels: &[u8]) -> anyhow::Result<()> {
        let ((width, height), pixels) = (image.size, image.pixels.as_slice());
        let truth: Vec<u8> = image.truth.iter().map(|class| u8::try_from(*class).unwrap_or(u8::MAX)).collect();
        let picture = overlay::comparison(Image { width, height, pixels }, &truth, labels, self.classes);
        let name = self.source.name(image.index);
        let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
        std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
        let path = folder.join(format!("{:05}-{stem}.png", image.index));
        durable::write_unsynced(&path, &picture.png()?)
            .with_context(|| format!("{}: cannot be written", path.display()))
    }
}
