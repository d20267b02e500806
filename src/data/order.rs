//! Which samples make which step: a pure function of (list, seed, global batch, step).
//!
//! A pass over the N samples of a list is ⌊N/G⌋ global batches of G, taken from a permutation keyed by (seed, pass);
//! the N mod G samples left over differ from pass to pass. Synchronous ranks wait for the one with the most pixels, so
//! `balanced` puts samples of one shape into one step: the permutation is cut into windows of min(32, ⌊N/G⌋) global
//! batches, each window is sorted by aspect ratio and cut into global batches, and these are shuffled.
//! `shuffled` keeps the permutation but for collecting samples of one orientation, as the reference does
//! (`TrainDataset._get_sub_batch`), there for each rank alone.
//!
//! Sorted and cut straight, the global batches at both ends of a window span a wide range of shapes, which costs most
//! where a pass has few of them. A window is therefore cut into units first, runs of neighbours by aspect ratio; units
//! are sorted by the pixels that they are padded to, and global batches are made of whole units: an upright and a lying
//! shape of the same pixel count then meet in one step, but never in one micro-batch.
//!
//! Balance (mean over largest pixels per rank) and padding over 300 steps on ADE20K's 20,210 sizes, two images per rank:
//!
//! | tried | 8 ranks | 64 ranks | 1024 ranks |
//! |---|---|---|---|
//! | sorted by aspect ratio, cut straight | 0.978 / 1.2 % | 0.969 / 1.0 % | 0.890 / 1.0 % |
//! | the same, one window for the whole pass | 0.998 / 1.0 % | 0.994 / 1.0 % | 0.890 / 1.0 % |
//! | samples sorted by pixel count | 0.936 / 2.0 % | 0.930 / 1.1 % | 0.844 / 1.0 % |
//! | units of two | 0.987 / 1.2 % | 0.985 / 1.0 % | 0.936 / 1.0 % |
//! | **units of gcd(G, 10080), sorted by pixels summed over all short edges** | 0.978 / 1.2 % | 0.982 / 1.0 % | 0.936 / 1.0 % |
//! | the same, sorted by pixels at the largest short edge | 0.978 / 1.2 % | 0.952 / 1.0 % | 0.820 / 1.0 % |
//!
//! With DATASET.rare_class_sampling a pass is another list of as many samples, of which some come more than once and some
//! not at all; all else is the same.
//!
//! A whole pass as one window was not taken, as shapes would then hardly mix between the steps of different passes;
//! units of two were not, as micro-batches of more than two would mix orientations. At 1024 ranks a pass has nine
//! global batches, so the ninth with the longest shapes must span 1.5:1 to 3:1 unless samples are left out.

use super::{
    DatasetConfig, OrderKind, SizePer,
    random::{KeyedRng, Purpose},
    rare_classes,
    resize::target_size,
};
use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// Version of the function below; stored in checkpoints, since a resumed run must keep its order.
pub const ORDER_VERSION: u32 = 1;

/// Most global batches in a window.
const WINDOW: u64 = 32;

/// A unit's length is the part of the global batch that divides this (2⁵·3²·5·7), so that every usual micro-batch size
/// divides the unit. It must not depend on the micro-batch: the samples of a step are the same for any.
const UNIT: usize = 10080;

/// What the order is a function of, besides the step.
#[derive(Clone, Debug)]
pub struct OrderSpec {
    /// DATASET.order.
    pub kind: OrderKind,
    /// DATASET.size_per.
    pub size_per: SizePer,
    /// TRAIN.seed.
    pub seed: u64,
    /// Samples in one update.
    pub global_batch: usize,
    /// Samples that a rank runs at once.
    pub micro_batch: usize,
    /// DATASET.imgSizes.
    pub short_edges: Vec<u32>,
    /// DATASET.imgMaxSize.
    pub max_size: u32,
}

impl OrderSpec {
    /// The order that DATASET and TRAIN.seed ask for.
    pub fn new(dataset: &DatasetConfig, seed: u64, global_batch: usize, micro_batch: usize) -> OrderSpec {
        OrderSpec {
            kind: dataset.order,
            size_per: dataset.size_per,
            seed,
            global_batch,
            micro_batch,
            short_edges: dataset.imgSizes.clone(),
            max_size: dataset.imgMaxSize,
        }
    }
}

/// One micro-batch: what a rank runs at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroBatch {
    /// Index in the global batch of the first sample.
    pub first: usize,
    /// Indices into the list.
    pub samples: Vec<u32>,
    /// What the draws of each sample's augmentation are keyed by besides the sample: the pass, or, where a sample may come
    /// more than once in one, its place among all samples of the run.
    pub draws: Vec<u64>,
    /// Short edge that the samples are resized to.
    pub short_edge: u32,
}

/// One global batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which pass over the list.
    pub pass: u64,
    /// In the order in which they are dealt to ranks: rank k of R runs micro-batch r·R + k in round r.
    pub micro_batches: Vec<MicroBatch>,
}

/// The order of a list.
pub struct Order {
    sizes: Vec<(u32, u32)>,
    spec: OrderSpec,
    /// What each sample is due of all draws, where they do not come alike.
    weights: Option<Vec<f64>>,
    /// What the last step was cut from: the next one is most often cut from it as well.
    recent: Mutex<Recent>,
}

/// A list of sample numbers and what it was made for.
type Made<Key> = Option<(Key, Arc<Vec<u32>>)>;

#[derive(Clone, Default)]
struct Recent {
    permutation: Made<u64>,
    window: Made<(u64, u64)>,
}

impl Order {
    /// `sizes`: (width, height) of every sample.
    pub fn new(sizes: &[(u32, u32)], mut spec: OrderSpec) -> Order {
        spec.global_batch = spec.global_batch.max(1);
        spec.micro_batch = spec.micro_batch.max(1);
        if sizes.len() < spec.global_batch {
            let (n, g) = (sizes.len(), spec.global_batch);
            log::warn!("the list has {n} samples, fewer than a global batch of {g}: samples repeat within a step");
        }
        Order { sizes: sizes.to_vec(), spec, weights: None, recent: Mutex::default() }
    }

    /// The same order of passes that take each sample by its weight; see [`rare_classes`].
    pub fn weighted(self, weights: Option<Vec<f64>>) -> Order {
        Order { weights, ..self }
    }

    /// Global batches in one pass.
    pub fn steps_per_pass(&self) -> u64 {
        (self.sizes.len() / self.spec.global_batch).max(1) as u64
    }

    /// The global batch of step `step`, 0-based, found without walking through earlier ones.
    pub fn step(&self, step: u64) -> Step {
        let (pass, step_of_pass) = (step / self.steps_per_pass(), step % self.steps_per_pass());
        let window = self.window(pass, step_of_pass / self.window_steps());
        let first = (step_of_pass % self.window_steps()) as usize * self.spec.global_batch;
        let samples = window.get(first..first + self.spec.global_batch).unwrap_or_default();

        let mut edges = KeyedRng::new(self.spec.seed, Purpose::ShortEdge, step, 0);
        let mut draw = || {
            let choices = &self.spec.short_edges;
            choices.get(edges.below(choices.len() as u64) as usize).copied().unwrap_or(1)
        };
        let of_step = draw();
        let draw_of = |index: usize| match self.weights {
            None => pass,
            Some(_) => 1 << 63 | (step * self.spec.global_batch as u64 + index as u64),
        };
        let micro_batches = samples
            .chunks(self.spec.micro_batch)
            .enumerate()
            .map(|(i, samples)| MicroBatch {
                first: i * self.spec.micro_batch,
                samples: samples.to_vec(),
                draws: (0..samples.len()).map(|at| draw_of(i * self.spec.micro_batch + at)).collect(),
                short_edge: if self.spec.size_per == SizePer::Step || i == 0 { of_step } else { draw() },
            })
            .collect();
        Step { pass, micro_batches }
    }

    /// Global batches in one window.
    fn window_steps(&self) -> u64 {
        match self.spec.kind {
            OrderKind::Balanced => self.steps_per_pass().min(WINDOW),
            OrderKind::Shuffled => self.steps_per_pass(),
        }
    }

    /// A window's samples in their final order; whole global batches.
    fn window(&self, pass: u64, window: u64) -> Arc<Vec<u32>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((key, samples)) = &recent.window
            && *key == (pass, window)
        {
            return samples.clone();
        }
        let permutation = match &recent.permutation {
            Some((key, permutation)) if *key == pass => permutation.clone(),
            _ => Arc::new(self.permutation(pass)),
        };
        recent.permutation = Some((pass, permutation.clone()));
        let length = self.window_steps() as usize * self.spec.global_batch;
        let samples = permutation.chunks(length).nth(window as usize).unwrap_or_default().to_vec();
        let samples = Arc::new(match self.spec.kind {
            OrderKind::Balanced => self.balance(samples, pass, window),
            OrderKind::Shuffled => self.by_orientation(&samples),
        });
        recent.window = Some(((pass, window), samples.clone()));
        samples
    }

    /// The samples of a pass, shuffled and cut to whole global batches; a list shorter than one repeats.
    fn permutation(&self, pass: u64) -> Vec<u32> {
        if let Some(weights) = &self.weights {
            let length = self.steps_per_pass() as usize * self.spec.global_batch;
            return rare_classes::pass(weights, length, self.spec.seed, pass);
        }
        let mut samples: Vec<u32> = (0..self.sizes.len() as u32).collect();
        KeyedRng::new(self.spec.seed, Purpose::Permutation, pass, 0).shuffle(&mut samples);
        let length = self.steps_per_pass() as usize * self.spec.global_batch;
        samples.iter().copied().cycle().take(length).collect()
    }

    /// Height over width.
    fn aspect(&self, sample: u32) -> f64 {
        let (width, height) = self.sizes[sample as usize];
        f64::from(height) / f64::from(width)
    }

    fn by_aspect(&self, a: &u32, b: &u32) -> Ordering {
        self.aspect(*a).total_cmp(&self.aspect(*b))
    }

    /// Arranges a window so that the micro-batches of a global batch have nearly the same pixel count.
    fn balance(&self, mut samples: Vec<u32>, pass: u64, window: u64) -> Vec<u32> {
        samples.sort_by(|a, b| self.by_aspect(a, b));
        let unit = unit(self.spec.global_batch);
        let mut units: Vec<&[u32]> = samples.chunks(unit).collect();
        units.sort_by_cached_key(|unit| self.padded_pixels(unit));
        let mut batches: Vec<Vec<u32>> =
            units.chunks(self.spec.global_batch / unit).map(|units| units.concat()).collect();
        for batch in &mut batches {
            batch.sort_by(|a, b| self.by_aspect(a, b));
        }
        KeyedRng::new(self.spec.seed, Purpose::Window, pass, window).shuffle(&mut batches);
        batches.concat()
    }

    /// Pixels that a unit's samples are padded to as one batch, summed over the short edges.
    fn padded_pixels(&self, unit: &[u32]) -> u64 {
        let padded = |edge: &u32| {
            let sizes = unit.iter().map(|&i| target_size(self.sizes[i as usize], *edge, self.spec.max_size));
            let (width, height) = sizes.fold((0, 0), |(w, h), (width, height)| (w.max(width), h.max(height)));
            u64::from(width) * u64::from(height)
        };
        self.spec.short_edges.iter().map(padded).sum()
    }

    /// Collects units of one orientation in the order of the list; what is left over at its end is mixed.
    fn by_orientation(&self, samples: &[u32]) -> Vec<u32> {
        let unit = unit(self.spec.global_batch);
        let mut arranged = Vec::with_capacity(samples.len());
        let mut waiting = [Vec::new(), Vec::new()];
        for &sample in samples {
            let same = &mut waiting[usize::from(self.aspect(sample) <= 1.0)];
            same.push(sample);
            if same.len() == unit {
                arranged.append(same);
            }
        }
        arranged.extend(waiting.concat());
        arranged
    }
}

/// Samples in a unit: a divisor of the global batch, and all of it where a micro-batch may straddle smaller units.
fn unit(global_batch: usize) -> usize {
    let mut rest = global_batch;
    for prime in [2, 3, 5, 7] {
        while rest.is_multiple_of(prime) {
            rest /= prime;
        }
    }
    if rest == 1 { gcd(global_batch, UNIT) } else { global_batch }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
