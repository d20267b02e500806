//! One micro-batch from its samples: read, decoded, augmented and padded, on all threads of the pool it is called in.

use super::augment::{Augment, Placement, Renderer, Transform};
use super::batch::{Buffers, HostBatch, Padding};
use super::dataset::Dataset;
use super::order::MicroBatch;
use super::random::{KeyedRng, Purpose};
use super::source::DataError;
use super::{DatasetConfig, OnCorrupt};
use crate::stages::{self, Stage};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Samples that are tried in place of a corrupt one before its error counts.
const SUBSTITUTES: usize = 16;

/// What makes micro-batches out of a source.
pub struct Assembler {
    source: Arc<Dataset>,
    augment: Augment,
    seed: u64,
    padding: Padding,
    rate: u32,
    padding_label: i64,
    on_corrupt: OnCorrupt,
    /// One for each thread that is at work.
    renderers: Mutex<Vec<Renderer>>,
    buffers: Arc<Buffers>,
}

impl Assembler {
    /// With the transforms that `config` asks for; `seed` is TRAIN.seed, and padding gets `padding_label`.
    pub fn new(source: Arc<Dataset>, config: &DatasetConfig, padding_label: i64, seed: u64) -> Assembler {
        Assembler {
            source,
            augment: Augment::new(config, seed),
            seed,
            padding: Padding::new(config),
            rate: config.segm_downsampling_rate.max(1),
            padding_label,
            on_corrupt: config.on_corrupt,
            renderers: Mutex::default(),
            buffers: Arc::default(),
        }
    }

    /// The same with another transform, after all others.
    pub fn with(mut self, transform: impl Transform + 'static) -> Assembler {
        self.augment = self.augment.with(transform);
        self
    }

    /// The batch, and how many of its samples stand in for corrupt ones.
    ///
    /// What stands in for a sample is drawn from a stream of (seed, pass, sample), so it is the same on any rank.
    pub fn micro_batch(&self, pass: u64, planned: &MicroBatch) -> Result<(HostBatch, usize), DataError> {
        let mut samples = planned.samples.clone();
        let mut draws: Vec<Option<(KeyedRng, usize)>> = samples.iter().map(|_| None).collect();
        loop {
            // A substitute has a size of its own, so the whole batch is laid out anew.
            let mut batch = self.lay_out(planned, samples.clone());
            let mut again = false;
            for (i, outcome) in self.fill(planned, &mut batch).into_iter().enumerate() {
                let Err(error) = outcome else { continue };
                let (stream, drawn) = draws[i].get_or_insert_with(|| {
                    let sample = planned.samples[i].into();
                    (KeyedRng::new(self.seed, Purpose::Substitute, pass, sample), 0)
                });
                if self.on_corrupt == OnCorrupt::Abort || !error.is_corrupt() || *drawn == SUBSTITUTES {
                    return Err(error);
                }
                *drawn += 1;
                samples[i] = stream.below(self.source.len() as u64) as u32;
                log::warn!("{error}; {} takes its place", self.source.name(samples[i] as usize));
                again = true;
            }
            if !again {
                batch.valid = batch.labels.iter().filter(|&&label| label != -1).count() as u64;
                return Ok((batch, draws.iter().flatten().count()));
            }
        }
    }

    /// What happens to `sample`, number `at` of the micro-batch that was planned.
    fn place(&self, planned: &MicroBatch, at: usize, sample: u32) -> Placement {
        self.augment.place(self.source.sizes()[sample as usize], planned.draws[at], sample, planned.short_edge)
    }

    /// A batch of the right size that holds no pixels yet.
    fn lay_out(&self, planned: &MicroBatch, samples: Vec<u32>) -> HostBatch {
        let sizes: Vec<(u32, u32)> =
            samples.iter().enumerate().map(|(at, &sample)| self.place(planned, at, sample).size()).collect();
        let (width, height) = self.padding.of(&sizes);
        let (mut images, mut labels) = self.buffers.take();
        images.resize(sizes.len() * 3 * width as usize * height as usize, 0);
        labels.clear();
        labels.resize(sizes.len() * (width / self.rate) as usize * (height / self.rate) as usize, self.padding_label);
        let (first, rate, home) = (planned.first, self.rate, self.buffers.clone());
        HostBatch { first, samples, width, height, sizes, images, labels, valid: 0, rate, home }
    }

    /// Fills every sample's part of the batch.
    fn fill(&self, planned: &MicroBatch, batch: &mut HostBatch) -> Vec<Result<(), DataError>> {
        let stride = batch.width as usize * 3;
        let label_stride = (batch.width / batch.rate) as usize;
        let image_bytes = (stride * batch.height as usize).max(1);
        let label_count = (label_stride * (batch.height / batch.rate) as usize).max(1);
        let samples = &batch.samples;
        let parts = batch.images.par_chunks_mut(image_bytes).zip(batch.labels.par_chunks_mut(label_count));
        let fill = |(at, (image, label)): (usize, (&mut [u8], &mut [i64]))| {
            let sample = samples[at];
            let mut renderer = self.renderers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let read = self.source.read(sample as usize, &mut renderer.sample);
            if read.is_ok() {
                let placement = self.place(planned, at, sample);
                let classes = self.source.label_map().table();
                stages::time(Stage::Label, || renderer.place(&placement, classes));
                stages::time(Stage::Augment, || renderer.image(&placement, image, stride));
                stages::time(Stage::Label, || renderer.label(&placement, self.rate, classes, label, label_stride));
            }
            self.renderers.lock().unwrap_or_else(PoisonError::into_inner).push(renderer);
            read
        };
        parts.take(samples.len()).enumerate().map(fill).collect()
    }
}
