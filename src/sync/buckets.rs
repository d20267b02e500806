//! Gradients in flat buckets that are summed over ranks while backward goes on.
//!
//! A hook on every parameter moves its gradient into the flat memory as soon as backward has finished it. When all
//! parameters of a bucket have theirs, the bucket goes to the communication thread, in the order of the buckets on
//! every rank, whatever the order in which they fill. With one rank there is no thread and nothing is sent.

use super::backend::Backend;
use super::transfer::{Transfers, squared_norm};
use crate::comm::trace::{Lane, Span, Trace};
use crate::comm::{Comm, CommError};
use crate::fault;
use crate::optim::{Flat, Slot};
use crate::torch::stream::Event;
use crate::torch::{TorchError, autograd, failed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;
use tch::{Device, Tensor};

/// What the sums say once the last bucket has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Reduced {
    /// Σ squares of all gradients, the same on every rank; NaN or infinite when any gradient is.
    pub squared_norm: f64,
    /// Seconds the caller waited here.
    pub waited_s: f64,
}

/// Sums the gradients of a network over ranks.
pub struct Reducer {
    slots: Vec<(Tensor, Tensor)>,
    buckets: Vec<Tensor>,
    progress: Arc<Mutex<Progress>>,
    backend: Backend,
    worker: Option<Worker>,
}

/// Which gradients and buckets of a step are done; shared with the hooks.
struct Progress {
    /// Slots whose gradient has arrived since `zero`.
    arrived: Vec<bool>,
    /// Parameters still missing in each bucket in the backward that is armed.
    missing: Vec<usize>,
    /// How many parameters each bucket has.
    members: Vec<usize>,
    armed: bool,
    /// DIST.overlap.
    overlap: bool,
    /// The next bucket to send; 0 between steps.
    next: usize,
    send: Option<Sender<Filled>>,
    device: Device,
    trace: Trace,
}

/// A bucket to be sent, the time it waits for that, and the place in the device's work where it is full.
type Filled = (usize, Span, Event);

/// The communication thread: takes bucket numbers, gives back the squared norm of each step.
struct Worker {
    thread: JoinHandle<()>,
    done: Receiver<Result<f64, CommError>>,
    rank: usize,
}

impl Reducer {
    /// Puts a hook on every parameter of `flat` and starts the communication thread, if there is more than one rank.
    ///
    /// `comm` must be used by nothing else, and `backend` must be one that works between its ranks. With `overlap` buckets
    /// are sent while backward goes on, without it after it. From here on gradients
    /// are found in `flat.gradients` alone; the parameters' own `.grad()` stays undefined.
    pub fn new(
        flat: &Flat,
        comm: Arc<dyn Comm>,
        backend: Backend,
        overlap: bool,
        trace: &Trace,
    ) -> Result<Reducer, TorchError> {
        let bucket = |range: &std::ops::Range<i64>| flat.gradients.narrow(0, range.start, range.end - range.start);
        let buckets: Vec<Tensor> = flat.buckets.iter().map(bucket).collect();
        let mut members = vec![0; buckets.len()];
        flat.slots.iter().for_each(|slot| members[slot.bucket] += 1);
        let (worker, send) = Worker::start(&buckets, comm, &backend, trace)?.unzip();
        let progress = Arc::new(Mutex::new(Progress {
            arrived: vec![false; flat.slots.len()],
            missing: members.clone(),
            members,
            armed: false,
            overlap,
            next: 0,
            send,
            device: flat.gradients.device(),
            trace: trace.clone(),
        }));
        for (index, slot) in flat.slots.iter().enumerate() {
            collect(index, slot, &flat.gradients, progress.clone())?;
        }
        let slots = flat.slots.iter().map(|slot| (slot.parameter.shallow_clone(), slot.view(&flat.gradients)));
        Ok(Reducer { slots: slots.collect(), buckets, progress, backend, worker })
    }

    /// Ends the communication thread. What it was sending must be done, or fail.
    pub fn disconnect(&mut self) {
        lock(&self.progress).send = None;
        if let Some(worker) = self.worker.take()
            && worker.thread.join().is_err()
        {
            log::error!("the communication thread has panicked");
        }
    }

    /// Goes on over `comm` after [`Reducer::disconnect`], with the step that was under way forgotten.
    pub fn reconnect(&mut self, comm: Arc<dyn Comm>) -> Result<(), TorchError> {
        let mut progress = lock(&self.progress);
        let (worker, send) = Worker::start(&self.buckets, comm, &self.backend, &progress.trace)?.unzip();
        (progress.send, progress.next, progress.armed) = (send, 0, false);
        drop(progress);
        self.worker = worker;
        Ok(())
    }

    /// Starts a step: the first gradient of each parameter replaces the old one, further ones are added to it.
    pub fn zero(&mut self) {
        let mut progress = lock(&self.progress);
        progress.arrived.fill(false);
        progress.armed = false;
    }

    /// From now on buckets are sent as they fill. Call before the last backward of a step.
    pub fn arm(&mut self) {
        let mut progress = lock(&self.progress);
        progress.missing = progress.members.clone();
        progress.armed = progress.overlap;
    }

    /// Sends what backward did not fill, and waits until every gradient holds the sum over ranks.
    ///
    /// A parameter without a gradient in this step counts as 0.
    pub fn wait(&mut self) -> Result<Reduced, CommError> {
        let start = Instant::now();
        let mut progress = lock(&self.progress);
        for ((_, gradient), arrived) in self.slots.iter_mut().zip(&progress.arrived) {
            if !arrived {
                let _ = gradient.zero_();
            }
        }
        let rank = self.worker.as_ref().map_or(0, |worker| worker.rank);
        progress.send_up_to(self.buckets.len()).map_err(failed("cudaEventRecord", rank))?;
        progress.armed = false;
        drop(progress);
        let squared_norm = match &self.worker {
            None => self.buckets.iter_mut().map(squared_norm).sum(),
            Some(worker) => worker.squared_norm()?,
        };
        lock(&self.progress).next = 0;
        Ok(Reduced { squared_norm, waited_s: start.elapsed().as_secs_f64() })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        for (parameter, _) in &self.slots {
            if let Err(error) = autograd::clear_hook(parameter) {
                log::error!("a gradient hook could not be removed: {error}");
            }
        }
        // Between steps the thread is idle and ends at once, and with it its communicator. In a step that failed it
        // may wait for ranks that never come.
        if lock(&self.progress).next == 0 {
            self.disconnect();
        }
    }
}

/// Moves every gradient of `slot` into its place.
fn collect(index: usize, slot: &Slot, gradients: &Tensor, progress: Arc<Mutex<Progress>>) -> Result<(), TorchError> {
    let (bucket, mut place) = (slot.bucket, slot.view(gradients));
    autograd::on_gradient(&slot.parameter, move |gradient| {
        fault::point("hook");
        let first = !std::mem::replace(&mut lock(&progress).arrived[index], true);
        let copied = if first { place.f_copy_(&gradient) } else { place.f_add_(&gradient).map(drop) };
        copied.map_err(|error| error.to_string())?;
        lock(&progress).filled(bucket).map_err(|error| error.to_string())
    })
}

impl Progress {
    /// One more parameter of `bucket` has its gradient.
    fn filled(&mut self, bucket: usize) -> Result<(), TorchError> {
        if !self.armed {
            return Ok(());
        }
        self.missing[bucket] = self.missing[bucket].saturating_sub(1);
        let ready = self.missing[self.next..].iter().take_while(|missing| **missing == 0).count();
        self.send_up_to(self.next + ready)
    }

    fn send_up_to(&mut self, end: usize) -> Result<(), TorchError> {
        while self.next < end {
            if let Some(send) = &self.send {
                // A thread that is gone is found out by `wait`.
                let waits = self.trace.overlapping(Lane::Gradients, "queued", self.next);
                let full = Event::record(self.device)?;
                let _ = send.send((self.next, waits.with("bucket", self.next as u64), full));
            }
            self.next += 1;
        }
        Ok(())
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().expect("nothing panics while it holds this lock")
}

impl Worker {
    fn start(
        buckets: &[Tensor],
        comm: Arc<dyn Comm>,
        backend: &Backend,
        trace: &Trace,
    ) -> Result<Option<(Worker, Sender<Filled>)>, TorchError> {
        if comm.size() == 1 {
            return Ok(None);
        }
        let rank = comm.rank();
        let (send, receive) = channel::<Filled>();
        let (report, done) = channel();
        let mut transfers = Transfers::new(buckets, comm, backend.clone())?;
        let trace = trace.clone();
        let work = move || {
            for (bucket, waits, full) in receive {
                drop(waits);
                fault::point("gradients");
                let bytes = transfers.bytes(bucket);
                let transfer =
                    trace.span(Lane::Gradients, "transfer").with("bucket", bucket as u64).with("bytes", bytes);
                let result = tch::no_grad(|| transfers.sum(bucket, &full)).transpose();
                drop(transfer);
                let Some(result) = result else { continue };
                let failed = result.is_err();
                if report.send(result).is_err() || failed {
                    transfers.abort();
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("segdist-buckets".into()).spawn(work);
        let thread = thread.expect("the system starts a thread at start-up");
        Ok(Some((Worker { thread, done, rank }, send)))
    }

    /// Waits for the last bucket of a step.
    fn squared_norm(&self) -> Result<f64, CommError> {
        self.done.recv().unwrap_or_else(|_| {
            let cause = "the communication thread has panicked".into();
            Err(CommError::Failed { call: "gradient sum", rank: self.rank, cause })
        })
    }
}
