//! `segdist plan`: what the order of samples costs on a number of ranks, without reading an image.
//!
//! Synchronous ranks wait in every step for the one with the most pixels. A rank's pixels are images × padded width ×
//! padded height, summed over the micro-batches that it runs.

use crate::bad_input;
use crate::data::DatasetConfig;
use crate::data::augment::Augment;
use crate::data::batch::padded_size;
use crate::data::dataset::Dataset;
use crate::data::order::{MicroBatch, Order, OrderSpec};
use crate::fault;
use crate::train::TrainConfig;
use serde::Serialize;

/// Fewest steps that are looked at; more where a pass is longer.
const STEPS: u64 = 300;

/// More ranks than any machine has.
const MOST_RANKS: usize = 1 << 16;

/// What the order costs.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Sum over steps of the mean pixels per rank ÷ sum of the largest.
    pub pixel_balance: f64,
    /// Part of all pixels that no resized image covers.
    pub padding_share: f64,
    /// Global batches in one pass over the list.
    pub steps_per_pass: u64,
    /// Steps that these figures cover: whole passes.
    pub steps: u64,
    /// Samples in the list.
    pub samples: usize,
    /// Number of ranks.
    pub ranks: usize,
    /// Images in one update.
    pub global_batch: usize,
    /// The micro-batch with the most pixels.
    pub largest_batch: Shape,
    /// For each rank, the part of the time that it waits for the slowest, if time is proportional to pixels.
    pub idle_by_rank: Vec<f64>,
}

/// A micro-batch's size.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Shape {
    /// Images.
    pub images: usize,
    /// Padded width.
    pub width: u32,
    /// Padded height.
    pub height: u32,
    /// Memory of its tensors on the device: f32 images and i64 labels.
    pub bytes: u64,
}

impl Shape {
    fn pixels(&self) -> u64 {
        self.images as u64 * u64::from(self.width) * u64::from(self.height)
    }
}

/// Prints the plan of the training list, as a report or as one JSON object.
pub fn run(dataset: &DatasetConfig, train: &TrainConfig, ranks: usize, json: bool) -> anyhow::Result<()> {
    if !(1..=MOST_RANKS).contains(&ranks) {
        bad_input!("--ranks is {ranks}: give 1 … {MOST_RANKS}");
    }
    let source = Dataset::open(dataset, &dataset.list_train).map_err(fault::classified)?;
    let plan = plan(source.sizes(), dataset, train, ranks);
    if json {
        println!("{}", serde_json::to_string(&plan)?);
    } else {
        print!("{}", report(&plan));
    }
    Ok(())
}

/// The plan of a list of (width, height).
pub fn plan(sizes: &[(u32, u32)], dataset: &DatasetConfig, train: &TrainConfig, ranks: usize) -> Plan {
    let global_batch = train.global_batch_on(ranks);
    let order = Order::new(sizes, OrderSpec::new(dataset, train.seed, global_batch, train.batch_size_per_gpu));
    let steps_per_pass = order.steps_per_pass();
    let steps = STEPS.div_ceil(steps_per_pass) * steps_per_pass;
    let augment = Augment::new(dataset, train.seed);
    let rate = dataset.segm_downsampling_rate.max(1);

    let (mut padded, mut covered, mut slowest) = (0u64, 0u64, 0u64);
    let mut by_rank = vec![0u64; ranks];
    let mut largest_batch = Shape::default();
    for step in 0..steps {
        let step = order.step(step);
        let mut pixels = vec![0u64; ranks];
        for (i, micro) in step.micro_batches.iter().enumerate() {
            let placed = place(sizes, &augment, step.pass, micro);
            let (width, height) = padded_size(&placed, dataset.padding_constant, rate);
            let label_pixels = u64::from(width / rate) * u64::from(height / rate);
            let mut shape = Shape { images: placed.len(), width, height, bytes: 0 };
            shape.bytes = shape.pixels() * 3 * 4 + shape.images as u64 * label_pixels * 8;
            pixels[i % ranks] += shape.pixels();
            covered += placed.iter().map(|&(w, h)| u64::from(w) * u64::from(h)).sum::<u64>();
            if shape.pixels() > largest_batch.pixels() {
                largest_batch = shape;
            }
        }
        padded += pixels.iter().sum::<u64>();
        slowest += pixels.iter().max().copied().unwrap_or(0);
        by_rank.iter_mut().zip(pixels).for_each(|(sum, pixels)| *sum += pixels);
    }
    let share = |part: f64, whole: u64| if whole == 0 { 0.0 } else { part / whole as f64 };
    Plan {
        pixel_balance: share(padded as f64 / ranks as f64, slowest),
        padding_share: share((padded - covered) as f64, padded),
        steps_per_pass,
        steps,
        samples: sizes.len(),
        ranks,
        global_batch,
        largest_batch,
        idle_by_rank: by_rank.iter().map(|&pixels| share((slowest - pixels) as f64, slowest)).collect(),
    }
}

/// Sizes of a micro-batch's samples after augmentation.
fn place(sizes: &[(u32, u32)], augment: &Augment, pass: u64, micro: &MicroBatch) -> Vec<(u32, u32)> {
    let size = |&sample: &u32| augment.place(sizes[sample as usize], pass, sample, micro.short_edge).size();
    micro.samples.iter().map(size).collect()
}

fn report(plan: &Plan) -> String {
    let Plan { pixel_balance, padding_share, steps_per_pass, steps, samples, ranks, global_batch, .. } = plan;
    let Shape { images, width, height, bytes } = plan.largest_batch;
    let mib = bytes as f64 / f64::from(1 << 20);
    format!(
        "{samples} samples on {ranks} ranks, {global_batch} images a step, over {steps} steps\n\
         steps per pass  {steps_per_pass}\n\
         pixel balance   {pixel_balance:.4}  (mean ÷ largest pixels per rank)\n\
         padding share   {:.2} %\n\
         largest batch   {images} x {width} x {height}, {mib:.1} MiB of images and labels on the device\n\
         ranks by idle time:\n{}",
        padding_share * 100.0,
        histogram(&plan.idle_by_rank),
    )
}

/// One line for each bin of idle time between the ranks' least and most.
fn histogram(idle: &[f64]) -> String {
    const BINS: usize = 8;
    const BAR: usize = 40;
    let least = idle.iter().copied().fold(f64::INFINITY, f64::min);
    let width = (idle.iter().copied().fold(0.0, f64::max) - least) / BINS as f64;
    let mut counts = [0; BINS];
    for share in idle {
        // All ranks alike: 0 ÷ 0 is NaN, which casts to bin 0.
        counts[(((share - least) / width) as usize).min(BINS - 1)] += 1;
    }
    let fullest = counts.iter().copied().max().unwrap_or(0).max(1);
    let line = |(bin, &count): (usize, &usize)| {
        let from = 100.0 * (least + bin as f64 * width);
        let to = from + 100.0 * width;
        format!("  {from:6.2} to {to:6.2} %  {count:>6}  {}\n", "#".repeat(count * BAR / fullest))
    };
    counts.iter().enumerate().filter(|&(_, &count)| count > 0).map(line).collect()
}
