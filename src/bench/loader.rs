//! `segdist bench loader`: from record to the normalised f32 batch that the network takes on this device.
//!
//! The rate is that of training's own loader; where the time goes is measured stage by stage on one thread.

use crate::data::augment::{Augment, Scratch, padded_size};
use crate::data::batch::normalise;
use crate::data::dataset::Dataset;
use crate::data::loader::{Loader, Share, granted};
use crate::data::order::{Order, OrderSpec};
use crate::data::{DatasetConfig, decode};
use crate::fault;
use crate::schedule::TrainConfig;
use crate::shard::{Access, INDEX_FILE, Set};
use serde::Serialize;
use std::path::Path;
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
    /// Reaching a record's bytes. Of lists of files, all up to the resize counts as decode.
    pub read: f64,
    /// Its checksums.
    pub crc: f64,
    /// JPEG or PNG to RGB.
    pub decode: f64,
    /// Flip and resize.
    pub resize: f64,
    /// Unpacking the label and shrinking it.
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
    let order = Arc::new(Order::new(source.sizes(), OrderSpec::new(dataset, train, train.batch_size_per_gpu)));
    let mut outcome = rate(&source, &order, dataset, train, device)?;
    let (images, seconds, mut stages) = stages(&source, &order, dataset, train, device)?;
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
    source: &Arc<Dataset>,
    order: &Arc<Order>,
    dataset: &DatasetConfig,
    train: &TrainConfig,
    device: Device,
) -> anyhow::Result<LoaderReport> {
    let share = Share { rank: 0, ranks: 1 };
    let (label, seed) = (train.padding_label, train.seed);
    let mut loader = Loader::start(source.clone(), order.clone(), dataset, label, seed, share, 0, train.workers)?;
    let mut times = Vec::new();
    let (mut images, mut pixels) = (0, 0);
    let mut start = Instant::now();
    let mut last = start;
    for step in 0.. {
        if step == WARM_UP {
            (start, last, images, pixels) = (Instant::now(), Instant::now(), 0, 0);
            times.clear();
        }
        for batch in loader.next()?.rounds.iter().flatten() {
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

/// Walks the same steps on this thread, a clock around each stage: images, seconds, seconds of each stage.
fn stages(
    source: &Dataset,
    order: &Order,
    dataset: &DatasetConfig,
    train: &TrainConfig,
    device: Device,
) -> anyhow::Result<(usize, f64, Stages)> {
    let list = Path::new(&dataset.list_train);
    let shards = list.join(INDEX_FILE).is_file().then(|| Set::open(list, Access::Auto)).transpose()?;
    let augment = Augment::new(dataset, train.seed);
    let rate = dataset.segm_downsampling_rate.max(1);
    let (mut scratch, mut file, mut pixels, mut labels) = (Scratch::default(), Vec::new(), Vec::new(), Vec::new());
    let (mut images, mut sums) = (0, Stages::default());
    let start = Instant::now();
    for step in (0..).map(|step| order.step(step)).take_while(|_| start.elapsed() < SPAN) {
        for micro in step.micro_batches {
            let place = |&s: &u32| augment.place(source.sizes()[s as usize], step.pass, s, micro.short_edge);
            let placements: Vec<_> = micro.samples.iter().map(place).collect();
            let sizes: Vec<_> = placements.iter().map(|placement| placement.size).collect();
            let (width, height) = padded_size(&sizes, dataset.padding_constant, rate);
            let (stride, label_stride) = (width as usize * 3, (width / rate) as usize);
            let area = stride * height as usize;
            pixels.resize(area * sizes.len(), 0);
            labels.resize(label_stride * (height / rate) as usize, -1);
            for (i, (&sample, placement)) in micro.samples.iter().zip(&placements).enumerate() {
                let mut clock = Clock::start();
                match &shards {
                    Some(set) => record(set, sample as usize, &mut scratch, &mut file, &mut sums, &mut clock)?,
                    None => {
                        source.read(sample as usize, &mut scratch.sample)?;
                        clock.add(&mut sums.decode);
                    }
                }
                scratch.image(placement, &mut pixels[i * area..][..area], stride);
                clock.add(&mut sums.resize);
                scratch.label(placement, rate, source.label_map().table(), &mut labels, label_stride);
                clock.add(&mut sums.label);
            }
            let mut clock = Clock::start();
            let _ = normalise(&pixels, (width, height), &sizes, device);
            synchronize(device);
            clock.add(&mut sums.copy);
            images += sizes.len();
        }
    }
    let mut total = sums;
    Ok((images, total.all().into_iter().map(|stage| *stage).sum(), sums))
}

/// Reads and decodes one record of a shard.
fn record(
    set: &Set,
    sample: usize,
    scratch: &mut Scratch,
    file: &mut Vec<u8>,
    sums: &mut Stages,
    clock: &mut Clock,
) -> anyhow::Result<()> {
    let (shard, record) = set.locate(sample);
    let bytes = shard.image(record, file)?;
    let read_and_checked = clock.lap();
    // The reader has just done the same: its cost in the cache is what the reader's was above the read.
    std::hint::black_box(crc32fast::hash(bytes));
    let checked = clock.lap().min(read_and_checked);
    sums.crc += checked;
    sums.read += read_and_checked - checked;
    let (width, height) = decode::image(bytes, &mut scratch.sample.image)?;
    clock.add(&mut sums.decode);
    (scratch.sample.width, scratch.sample.height) = (width, height);
    shard.label(record, file, &mut scratch.sample.label)?;
    clock.add(&mut sums.label);
    Ok(())
}

/// Time since the last look.
struct Clock(Instant);

impl Clock {
    fn start() -> Clock {
        Clock(Instant::now())
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = (now - self.0).as_secs_f64();
        self.0 = now;
        seconds
    }

    fn add(&mut self, sum: &mut f64) {
        *sum += self.lap();
    }
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
