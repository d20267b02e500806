//! Reads, decodes and augments the batches of coming steps on threads of its own, in order.

use super::DatasetConfig;
use super::assemble::Assembler;
use super::batch_source::{BatchSource, Share, StepBatch};
use super::dataset::Dataset;
use super::order::Order;
use super::source::DataError;
use crate::comm;
use crate::fault;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};

/// As many threads as wished for, but no more than this process has cores; 0 wishes for all of them.
pub fn granted(threads: usize) -> usize {
    let cores = comm::cores().len();
    if threads == 0 { cores } else { threads.min(cores) }
}

/// The samples that are loaded, and their order.
#[derive(Clone)]
pub struct Samples {
    /// Where they are read from.
    pub source: Arc<Dataset>,
    /// Which of them make which step.
    pub order: Arc<Order>,
}

/// How samples become batches.
#[derive(Clone, Copy)]
pub struct Preparation<'a> {
    /// Sizes, augmentation, label map.
    pub dataset: &'a DatasetConfig,
    /// TRAIN.padding_label.
    pub padding_label: i64,
    /// TRAIN.seed.
    pub seed: u64,
}

/// A stream of steps. What it yields depends only on (source, order, seed, share), never on the thread count.
///
/// A step is handed to the pool some steps before it is asked for and comes back through a channel of its own; the
/// channels wait in the order of the steps, which keeps both the order and the bound on memory.
pub struct Loader {
    pool: ThreadPool,
    shared: Arc<Shared>,
    coming: VecDeque<(u64, Receiver<Result<StepBatch, DataError>>)>,
    /// The next step that is handed to the pool.
    next: u64,
    /// Steps that are in the pool at once.
    ahead: usize,
}

struct Shared {
    order: Arc<Order>,
    assembler: Assembler,
    share: Share,
    stopped: AtomicBool,
}

impl Loader {
    /// Starts the threads; the first step is `start`. `threads`: at most so many, and no more than the cores that this
    /// process may use; 0 means all of those.
    pub fn start(
        samples: Samples,
        preparation: Preparation,
        share: Share,
        start: u64,
        threads: usize,
    ) -> Result<Loader, DataError> {
        let Samples { source, order } = samples;
        let Preparation { dataset, padding_label, seed } = preparation;
        let threads = granted(threads);
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("loader {i}"))
            // The step's channel closes, which `next` reports; the default would end the process without a word.
            .panic_handler(|_| ())
            .build()
            .map_err(|error| DataError::Loader(error.to_string()))?;
        let assembler = Assembler::new(source, dataset, padding_label, seed);
        let images: usize = order.step(start).micro_batches.iter().map(|micro| micro.samples.len()).sum();
        let ahead = 2 + threads.div_ceil((images / share.ranks.max(1)).max(1));
        let shared = Arc::new(Shared { order, assembler, share, stopped: AtomicBool::new(false) });
        log::debug!("loader: {threads} threads, {ahead} steps ahead");
        let mut loader = Loader { pool, shared, coming: VecDeque::new(), next: start, ahead };
        loader.hand_out();
        Ok(loader)
    }

    /// The next step's batches; waits for them if need be.
    #[allow(clippy::should_implement_trait)] // an iterator that never ends, and whose errors do
    pub fn next(&mut self) -> Result<StepBatch, DataError> {
        self.hand_out();
        let Some((step, coming)) = self.coming.pop_front() else { unreachable!("hand_out keeps steps in the queue") };
        let panicked = |_| DataError::Loader(format!("a thread panicked over step {step}"));
        let batch = coming.recv().map_err(panicked)??;
        self.hand_out();
        Ok(batch)
    }

    /// Keeps `ahead` steps in the pool.
    fn hand_out(&mut self) {
        while self.coming.len() < self.ahead {
            let (sender, receiver) = channel();
            let (shared, step) = (self.shared.clone(), self.next);
            self.pool.spawn_fifo(move || {
                if !shared.stopped.load(Relaxed) {
                    // Nobody waits for it once the loader is dropped.
                    let _ = sender.send(shared.load(step));
                }
            });
            self.coming.push_back((step, receiver));
            self.next += 1;
        }
    }
}

impl BatchSource for Loader {
    fn next(&mut self) -> anyhow::Result<StepBatch> {
        Loader::next(self).map_err(fault::classified)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Relaxed);
    }
}

impl Shared {
    /// Rank k of R runs micro-batch r·R + k in round r.
    fn load(&self, number: u64) -> Result<StepBatch, DataError> {
        let Share { rank, ranks } = self.share;
        let step = self.order.step(number);
        let mut batch = StepBatch { step: number, pass: step.pass, rounds: Vec::new(), substituted: 0 };
        for round in step.micro_batches.chunks(ranks.max(1)) {
            let loaded = round.get(rank).map(|micro| self.assembler.micro_batch(step.pass, micro)).transpose()?;
            batch.substituted += loaded.as_ref().map_or(0, |(_, substituted)| *substituted);
            batch.rounds.push(loaded.map(|(loaded, _)| loaded));
        }
        Ok(batch)
    }
}
