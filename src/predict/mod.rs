//! Label maps and overlays for images.
//!
//! Images are labelled exactly as in evaluation (`eval::scorer`, `eval::fuse`) and written at their own size: for
//! `street.jpg`, `street.label.png` (a palette PNG whose indices are the classes), `street.overlay.png` (with a legend)
//! and `street.json`. Results lie below the output's folder as the images do below the folder that was named ([`files`]). An image that cannot be read is reported and skipped, and the run ends
//! with code 2, or with 1 where all of them may be readable later.

mod files;

use crate::comm::{Comm, agree};
use crate::data::{DatasetConfig, decode, resize, source::DataError, walk};
use crate::durable;
use crate::eval::input::{self, Input};
use crate::eval::scorer::{self, Scorer};
use crate::eval::{ValConfig, fuse, weights_choice, workers};
use crate::fault::{self, Failure, Kind};
use crate::model::{ModelConfig, Network};
use crate::report::overlay::{self, Image};
use crate::report::{palette::Classes, picture, progress};
use crate::retry;
use crate::torch::memory;
use files::Item;
use resize::Resizer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use tch::Device;

/// The reference's keys for its test script, read so that its files load; predict has `--checkpoint` and `--out` instead.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TestConfig {
    /// Not used: images of one shape are labelled together.
    pub batch_size: usize,
    /// Not used: see predict's --checkpoint.
    pub checkpoint: String,
    /// Not used: see predict's --out.
    pub result: String,
}

impl Default for TestConfig {
    fn default() -> Self {
        TestConfig { batch_size: 1, checkpoint: "epoch_20.pth".into(), result: "./".into() }
    }
}

/// What `segdist predict` is asked for.
pub struct PredictJob<'a> {
    /// DATASET; how images are cut to size.
    pub dataset: &'a DatasetConfig,
    /// MODEL.
    pub model: &'a ModelConfig,
    /// VAL; flip and windows apply here too.
    pub val: &'a ValConfig,
    /// DIR.
    pub dir: &'a Path,
    /// `--checkpoint`.
    pub checkpoint: Option<&'a str>,
    /// Folder to write to; made where it does not exist.
    pub out: &'a Path,
    /// Images and folders of images.
    pub inputs: &'a [PathBuf],
    /// Where this rank computes.
    pub device: Device,
}

/// Labels every image once, dealt over the ranks; the exit code is 2 where images are no images, 1 where some
/// could only not be read. A collective.
///
/// # Errors
/// Before anything is written: paths that do not exist, no images, no weights.
pub fn run(job: &PredictJob, comm: &dyn Comm) -> anyhow::Result<u8> {
    memory::keep_freed_memory();
    let found = agree::from_root(comm, || {
        scorer::check(job.dataset, job.val).map_err(fault::classified)?;
        check_place(job.out)?;
        Ok(serde_json::to_vec(&files::find(job.inputs, job.out)?)?)
    })?;
    let files::Found { items, left_out } = serde_json::from_slice(&found)?;
    let build = || Network::blank(job.model, job.dataset.num_class, job.device).map_err(fault::classified);
    let network = agree::agree(comm, build())?;
    let choice = weights_choice::Choice { dir: job.dir, suffix: &job.val.checkpoint, requested: job.checkpoint };
    let origin = weights_choice::load(&choice, job.model, &network, comm)?;
    if comm.is_root() {
        eprintln!("weights: {origin}");
        left_out.iter().for_each(|line| log::warn!("{line}"));
    }
    let classes = Classes::new(job.dataset.num_class, Some(&origin.names), Some(&origin.palette));
    let predictor = Predictor { job, classes, weights: origin.text };
    let mine: Vec<&Item> = items.iter().skip(comm.rank()).step_by(comm.size()).collect();
    let skipped = agree::agree(comm, predictor.predict_all(&network, &mine, comm.is_root()))?;
    let mut skipped = [skipped.damaged, skipped.unread];
    comm.all_reduce_i64(&mut skipped)?;
    let [damaged, unread] = skipped;
    if comm.is_root() {
        let (labelled, out) = (items.len() as i64 - damaged - unread, job.out.display());
        println!("{labelled} of {} images labelled in {out}", items.len());
        if damaged + unread > 0 {
            log::error!("{} images could not be read and were skipped; {}", damaged + unread, walk::images_are());
        }
    }
    Ok(match skipped {
        [0, 0] => 0,
        [0, _] => 1,
        _ => 2,
    })
}

/// What keeps `out` from being made, before the work begins: the nearest folder above that is there is no folder.
fn check_place(out: &Path) -> anyhow::Result<()> {
    let there = out
        .ancestors()
        .find_map(|above| std::fs::metadata(if above == Path::new("") { Path::new(".") } else { above }).ok());
    match there {
        Some(about) if !about.is_dir() => Err(fault::unwritable(out, io::Error::from(io::ErrorKind::NotADirectory))),
        _ => Ok(()),
    }
}

/// Images that were left out.
#[derive(Clone, Copy, Default)]
struct Skipped {
    /// For the user to mend.
    damaged: i64,
    /// The system would not read them just now.
    unread: i64,
}

/// An image, read and resized.
struct Picture<'a> {
    item: &'a Item,
    size: (u32, u32),
    pixels: Vec<u8>,
    inputs: Vec<Input>,
}

struct Predictor<'a> {
    job: &'a PredictJob<'a>,
    classes: Classes,
    weights: String,
}

impl Predictor<'_> {
    /// Labels `images`; returns how many could not be read.
    fn predict_all(&self, network: &Network, images: &[&Item], is_root: bool) -> anyhow::Result<Skipped> {
        let (job, out) = (self.job, self.job.out);
        std::fs::create_dir_all(out).map_err(|cause| fault::unwritable(out, cause))?;
        let bar = progress::images(is_root, images.len() as u64);
        let scorers =
            Scorer::several(workers::number(images.len(), job.device), network, job.dataset, job.val, job.device);
        let workers = scorers.into_iter().map(|scorer| (scorer, Resizer::default(), Skipped::default())).collect();
        let workers = workers::share(workers, images.len(), true, |(scorer, resizer, skipped), at| {
            bar.inc(1);
            match read(images[at], job.dataset, resizer) {
                Ok(picture) => self.predict(scorer, &picture),
                Err(cause) => {
                    match cause.kind() {
                        Kind::Input => skipped.damaged += 1,
                        Kind::Passing => skipped.unread += 1,
                    }
                    bar.suspend(|| log::error!("{cause}; skipped"));
                    Ok(())
                }
            }
        })?;
        bar.finish_and_clear();
        let add = |sum: Skipped, skipped: &Skipped| Skipped {
            damaged: sum.damaged + skipped.damaged,
            unread: sum.unread + skipped.unread,
        };
        Ok(workers.iter().map(|(.., skipped)| skipped).fold(Skipped::default(), add))
    }

    fn predict(&self, scorer: &Scorer, picture: &Picture) -> anyhow::Result<()> {
        let maps = scorer.score(&picture.inputs, 1).map_err(fault::classified)?;
        let labels = fuse::fuse(maps.first().map_or(&[], Vec::as_slice), picture.size, None).labels;
        let (width, height) = picture.size;
        let image = Image { width, height, pixels: &picture.pixels };
        self.write(picture.item, "label.png", &picture::label_map(width, height, &labels, &self.classes.colours)?)?;
        self.write(picture.item, "overlay.png", &overlay::overlay(image, &labels, &self.classes).png()?)?;
        let shares = overlay::shares(&labels, self.classes.count());
        let class = |&(class, share): &(usize, f64)| json!({ "class": class, "name": self.classes.names[class], "share": share });
        let about = json!({
            "image": picture.item.image.display().to_string(),
            "width": width,
            "height": height,
            "weights": self.weights,
            "classes": shares.iter().map(class).collect::<Vec<_>>(),
        });
        self.write(picture.item, "json", format!("{about:#}\n").as_bytes())
    }

    fn write(&self, item: &Item, ending: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut name = OsString::from(&item.name);
        name.push(".");
        name.push(ending);
        let path = self.job.out.join(name);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(self.job.out))?;
            durable::write_unsynced(&path, bytes)
        };
        write().map_err(|cause: io::Error| fault::unwritable(&path, cause))
    }
}

/// Reads and resizes an image.
fn read<'a>(item: &'a Item, dataset: &DatasetConfig, resizer: &mut Resizer) -> Result<Picture<'a>, DataError> {
    let path = &item.image;
    let bytes = retry::read(path, || std::fs::read(path)).map_err(|cause| DataError::Read(path.into(), cause))?;
    let mut pixels = Vec::new();
    let named = |cause| DataError::Decode(path.display().to_string(), cause);
    let size = decode::image(&bytes, &mut pixels).map_err(named)?;
    let mut inputs = input::empty_inputs(size, dataset);
    input::resize_to_all(resizer, resize::Image { width: size.0, height: size.1, pixels: &pixels }, &mut inputs);
    Ok(Picture { item, size, pixels, inputs })
}
