//! `segdist bench loader`: from record to the normalised f32 batch that the network takes on this device.
//!
//! The rate is that of training's own loader; where the time goes is measured stage by stage on one thread.

use crate::data::DatasetConfig;
use crate::data::assemble::Assembler;
use crate::data::batch_source::Share;
use crate::data::dataset::Dataset;
use crate::data::loader::{Loader, Preparation, Samples, granted};
use crate::data::order::{Order, OrderSpec};
use crate::data::source::DataError;
use crate::fault;
use crate::stages;
use crate::train::TrainConfig;
use rayon::ThreadPoolBuilder;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Device;

/// Steps before the clock starts: memory is mapped and grows to its size in them.
const WARM_UP: u64 = 10;
/// How long each of both measurements takes at least.
const SPAN: Duration = Duration::from_secs(4);

/// What the bench measured.
#[derive(Debug, Serialize)]
pub struct LoaderReport {
    /// Median time between two batches, all threads at work.
    pub median_s: f64,
    /// Images per second, all threads at work.
    pub images_per_s: f64,
    /// Million padded pixels per second, all threads at work.
    pub megapixels_per_s: f64,
    /// Threads of the loader; the batch is normalised on another.
    pub threads: usize,
    /// Images per second when one thread does everything.
    pub images_per_s_one_thread: f64,
    /// Parts of that thread's time.
    pub shares: Stages,
    /// Images in a batch.
    pub batch: usize,
    /// Where batches go.
    pub device: String,
}

/// Seconds, or parts of the time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Stages {
    /// Reaching the bytes of image and label.
    pub read: f64,
    /// The checksums of a record.
    pub crc: f64,
    /// JPEG or PNG to RGB.
    pub decode: f64,
    /// Flip, resize, and what else is done to the image.
    pub resize: f64,
    /// Decoding the label and shrinking it.
    pub label: f64,
    /// To the device, to f32, normalised.
    pub copy: f64,
}

impl Stages {
    fn all(&mut self) -> [&mut f64; 6] {
        [&mut self.read, &mut self.crc, &mut self.decode, &mut self.resize, &mut self.label, &mut self.copy]
    }
}

/// Measures the loader of the training list and prints a report or one JSON object.
pub fn run(dataset: &DatasetConfig, train: &TrainConfig, json: bool) -> anyhow::Result<()> {
    let source = Arc::new(Dataset::open(dataset, &dataset.list_train).map_err(fault::classified)?);
    let device = Device::cuda_if_available();
    let batch = train.batch_size_per_gpu;
    let order = Arc::new(Order::new(source.sizes(), OrderSpec::new(dataset, train.seed, batch, batch)));
    let samples = Samples { source, order };
    let mut outcome = rate(&samples, dataset, train, device)?;
    let (images, seconds, mut stages) = on_one_thread(&samples, dataset, train, device)?;
    outcome.images_per_s_one_thread = images as f64 / seconds;
    stages.all().into_iter().for_each(|stage| *stage /= seconds);
    outcome.shares = stages;
    if json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        print!("{}", report(&outcome));
    }
    Ok(())
}

/// Runs the loader as training does.
fn rate(
    samples: &Samples,
    dataset: &DatasetConfig,
    train: &TrainConfig,
    device: Device,
) -> anyhow::Result<LoaderReport> {
    let share = Share { rank: 0, ranks: 1 };
    let preparation = Preparation { dataset, padding_label: train.padding_label, seed: train.seed };
    let loader = Loader::start(samples.clone(), preparation, share, 0, train.workers);
    let mut loader = loader.map_err(fault::classified)?;
    let mut times = Vec::new();
    let (mut images, mut pixels) = (0, 0);
    let mut start = Instant::now();
    let mut last = start;
    for step in 0.. {
        if step == WARM_UP {
            (start, last, images, pixels) = (Instant::now(), Instant::now(), 0, 0);
            times.clear();
        }
        for batch in loader.next().map_err(fault::classified)?.rounds.iter().flatten() {
            batch.to_device(device);
            images += batch.samples.len();
            pixels += batch.samples.len() as u64 * u64::from(batch.width) * u64::from(batch.height);
        }
        synchronize(device);
        times.push(last.elapsed().as_secs_f64());
        last = Instant::now();
        if step > WARM_UP && start.elapsed() > SPAN {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Ok(LoaderReport {
        median_s: times[times.len() / 2],
        images_per_s: images as f64 / seconds,
        megapixels_per_s: pixels as f64 / 1e6 / seconds,
        threads: granted(train.workers),
        images_per_s_one_thread: 0.0,
        shares: Stages::default(),
        batch: train.batch_size_per_gpu,
        device: format!("{device:?}").to_lowercase(),
    })
}

/// Walks the same steps on one thread, with the clocks of [`stages`] on: images, seconds, seconds of each stage.
fn on_one_thread(
    Samples { source, order }: &Samples,
    dataset: &DatasetConfig,
    train: &TrainConfig,
    device: Device,
) -> anyhow::Result<(usize, f64, Stages)> {
    let assembler = Assembler::new(source.clone(), dataset, train.padding_label, train.seed);
    let start = Instant::now();
    stages::start();
    // All of it inside the pool: a thread that waits for another pays for being woken.
    let walk = || -> Result<(usize, f64), DataError> {
        let (mut images, mut copy) = (0, 0.0);
        for step in (0..).map(|step| order.step(step)).take_while(|_| start.elapsed() < SPAN) {
            for micro in &step.micro_batches {
                let (batch, _) = assembler.micro_batch(step.pass, micro)?;
                let made = Instant::now();
                batch.to_device(device);
                synchronize(device);
                copy += made.elapsed().as_secs_f64();
                images += batch.samples.len();
            }
        }
        Ok((images, copy))
    };
    let one = ThreadPoolBuilder::new().num_threads(1).build()?;
    let (images, copy) = one.install(walk).map_err(fault::classified)?;
    let [read, crc, decode, resize, label] = stages::stop();
    Ok((images, start.elapsed().as_secs_f64(), Stages { read, crc, decode, resize, label, copy }))
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

fn report(outcome: &LoaderReport) -> String {
    let LoaderReport { images_per_s, megapixels_per_s, threads, images_per_s_one_thread, batch, device, .. } = outcome;
    let Stages { read, crc, decode, resize, label, copy } = outcome.shares;
    let percent = |(name, share): (&str, f64)| format!("  {name:<7} {:5.1} %\n", 100.0 * share);
    let stages: String =
        [("read", read), ("crc", crc), ("decode", decode), ("resize", resize), ("label", label), ("copy", copy)]
            .map(percent)
            .concat();
    format!(
        "batches of {batch} on {device}\n\
         loader with {threads} threads  {images_per_s:.1} images/s, {megapixels_per_s:.1} Mpixel/s, median {:.2} ms a batch\n\
         one thread for all    {images_per_s_one_thread:.1} images/s, of its time\n{stages}",
        outcome.median_s * 1e3,
    )
}
