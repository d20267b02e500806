//! Random batches of one size, for measuring and testing a step without a data set.

use super::batch::HostBatch;
use super::batch_source::{BatchSource, Share, StepBatch};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What the batches look like.
#[derive(Clone, Debug)]
pub struct SyntheticSpec {
    /// Width and height of all images, multiples of `rate`.
    pub size: (u32, u32),
    /// Image pixels per label pixel, one direction.
    pub rate: u32,
    /// Labels are -1 … num_class - 1.
    pub num_class: usize,
    /// Images in an update.
    pub global_batch: usize,
    /// Images in a micro-batch.
    pub micro_batch: usize,
    /// Of the random values.
    pub seed: u64,
}

/// The same global batch in every step, dealt to ranks as the [`super::loader::Loader`] deals them. Values depend on the
/// seed and the place in the global batch alone, so that any number of ranks trains on the same images.
pub struct Synthetic {
    spec: SyntheticSpec,
    rounds: Vec<Option<Pixels>>,
    step: u64,
}

/// What one micro-batch holds.
struct Pixels {
    first: usize,
    count: usize,
    images: Vec<u8>,
    labels: Vec<i64>,
}

impl Synthetic {
    /// The batches of one rank from step 0 on.
    pub fn new(spec: SyntheticSpec, share: Share) -> Synthetic {
        let micro = spec.micro_batch.max(1);
        let firsts: Vec<usize> = (0..spec.global_batch).step_by(micro).collect();
        let deal = |round: &[usize]| round.get(share.rank).map(|&first| Pixels::draw(&spec, first));
        let rounds = firsts.chunks(share.ranks.max(1)).map(deal).collect();
        Synthetic { spec, rounds, step: 0 }
    }
}

impl Pixels {
    fn draw(spec: &SyntheticSpec, first: usize) -> Pixels {
        let count = spec.micro_batch.min(spec.global_batch - first);
        let (width, height) = (spec.size.0 as usize, spec.size.1 as usize);
        let rate = spec.rate.max(1) as usize;
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for image in first..first + count {
            let mut stream = ChaCha8Rng::seed_from_u64(spec.seed);
            stream.set_stream(image as u64);
            let start = images.len();
            images.resize(start + 3 * width * height, 0);
            stream.fill_bytes(&mut images[start..]);
            let label = |_| i64::from(stream.next_u32() % (spec.num_class as u32 + 1)) - 1;
            labels.extend((0..(width / rate) * (height / rate)).map(label));
        }
        Pixels { first, count, images, labels }
    }
}

impl BatchSource for Synthetic {
    fn next(&mut self) -> anyhow::Result<StepBatch> {
        let SyntheticSpec { size, rate, .. } = self.spec;
        let batch = |pixels: &Pixels| {
            let samples = (pixels.first..pixels.first + pixels.count).map(|image| image as u32).collect();
            HostBatch::new(pixels.first, samples, size, rate, (pixels.images.clone(), pixels.labels.clone()))
        };
        let rounds = self.rounds.iter().map(|pixels| pixels.as_ref().map(batch)).collect();
        self.step += 1;
        Ok(StepBatch { step: self.step - 1, pass: 0, rounds, substituted: 0 })
    }
}
