//! `segdist plan`: what the order of samples costs on a number of ranks, without reading an image.
//!
//! Synchronous ranks wait in every step for the one with the most pixels. A rank's pixels are images × padded width ×
//! padded height, summed over the micro-batches that it runs.

use crate::bad_input;
use crate::data::DatasetConfig;
use crate::data::augment::Augment;
use crate::data::batch::Padding;
use crate::data::dataset::Dataset;
use crate::data::order::{MicroBatch, Order, OrderSpec, Step};
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
    /// How often the most frequent sample comes in one pass: more than once by DATASET.rare_class_sampling, or where the
    /// list is shorter than a global batch.
    pub most_repeats: u32,
    /// Part of the samples that a pass takes at least once.
    pub seen_share: f64,
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
    let weights = source.weights(dataset).map_err(fault::classified)?;
    let plan = weighted(source.sizes(), weights, dataset, train, ranks);
    if json {
        println!("{}", serde_json::to_string(&plan)?);
    } else {
        print!("{}", report(&plan));
    }
    Ok(())
}

/// The plan of a list of (width, height).
pub fn plan(sizes: &[(u32, u32)], dataset: &DatasetConfig, train: &TrainConfig, ranks: usize) -> Plan {
    weighted(sizes, None, dataset, train, ranks)
}

/// The same where samples come by their weights (DATASET.rare_class_sampling).
pub fn weighted(
    sizes: &[(u32, u32)],
    weights: Option<Vec<f64>>,
    dataset: &DatasetConfig,
    train: &TrainConfig,
    ranks: usize,
) -> Plan {
    let global_batch = train.global_batch_on(ranks);
    let order = Order::new(sizes, OrderSpec::new(dataset, train.seed, global_batch, train.batch_size_per_gpu))
        .weighted(weights);
    let steps_per_pass = order.steps_per_pass();
    let steps = STEPS.div_ceil(steps_per_pass) * steps_per_pass;
    let augment = Augment::new(dataset, train.seed);
    let (rate, padding) = (dataset.segm_downsampling_rate.max(1), Padding::new(dataset));

    let (mut padded, mut covered, mut slowest) = (0u64, 0u64, 0u64);
    let mut by_rank = vec![0u64; ranks];
    let mut largest_batch = Shape::default();
    let mut times = Times::default();
    for step in 0..steps {
        let step = order.step(step);
        times.count(&step, sizes.len());
        let mut pixels = vec![0u64; ranks];
        for (i, micro) in step.micro_batches.iter().enumerate() {
            let placed = place(sizes, &augment, micro);
            let (width, height) = padding.of(&placed);
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
        most_repeats: times.most,
        seen_share: share(times.seen as f64, times.of),
        steps,
        samples: sizes.len(),
        ranks,
        global_batch,
        largest_batch,
        idle_by_rank: by_rank.iter().map(|&pixels| share((slowest - pixels) as f64, slowest)).collect(),
    }
}

/// How often samples come in a pass.
#[derive(Default)]
struct Times {
    pass: u64,
    of_sample: Vec<u32>,
    most: u32,
    /// Samples that came, summed over passes, and samples that there are.
    seen: u64,
    of: u64,
}

impl Times {
    fn count(&mut self, step: &Step, samples: usize) {
        if self.of_sample.is_empty() || self.pass != step.pass {
            (self.pass, self.of_sample) = (step.pass, vec![0; samples]);
            self.of += samples as u64;
        }
        for &sample in step.micro_batches.iter().flat_map(|micro| &micro.samples) {
            let times = &mut self.of_sample[sample as usize];
            *times += 1;
            self.seen += u64::from(*times == 1);
            self.most = self.most.max(*times);
        }
    }
}

/// Sizes of a micro-batch's samples after augmentation.
fn place(sizes: &[(u32, u32)], augment: &Augment, micro: &MicroBatch) -> Vec<(u32, u32)> {
    let size =
        |(&sample, &draws): (&u32, &u64)| augment.place(sizes[sample as usize], draws, sample, micro.short_edge).size();
    micro.samples.iter().zip(&micro.draws).map(size).collect()
}

fn report(plan: &Plan) -> String {
    let Plan { pixel_balance, padding_share, steps_per_pass, steps, samples, ranks, global_batch, .. } = plan;
    let Plan { most_repeats, seen_share, .. } = plan;
    let Shape { images, width, height, bytes } = plan.largest_batch;
    let mib = bytes as f64 / f64::from(1 << 20);
    format!(
        "{samples} samples on {ranks} ranks, {global_batch} images a step, over {steps} steps\n\
         steps per pass  {steps_per_pass}\n\
         samples         {:.1} % of them in a pass, none more than {most_repeats} times\n\
         pixel balance   {pixel_balance:.4}  (mean ÷ largest pixels per rank)\n\
         padding share   {:.2} %\n\
         largest batch   {images} x {width} x {height}, {mib:.1} MiB of images and labels on the device\n\
         ranks by idle time:\n{}",
        seen_share * 100.0,
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
