//! A few integers summed over ranks beside the forward pass: labelled pixels, and whether anyone wants to stop.
//!
//! The sum is started as soon as the batch is known and read when forward is done, so that no rank waits for another
//! one's loader before it has work of its own.

use crate::comm::{Comm, CommError};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What the ranks tell each other about a step. Summed element by element.
pub type Counts = [i64; 2];

/// A thread that sums [`Counts`] on a communicator of its own.
pub struct Agreement {
    questions: Option<Sender<Counts>>,
    answers: Receiver<Result<Counts, CommError>>,
    thread: Option<JoinHandle<()>>,
}

impl Agreement {
    /// `comm` must be used by nothing else.
    pub fn new(comm: Arc<dyn Comm>) -> Self {
        let (questions, to_answer) = channel::<Counts>();
        let (answer, answers) = channel();
        let thread = std::thread::spawn(move || {
            for mut counts in to_answer {
                let result = comm.sum_i64(&mut counts).map(|()| counts);
                if answer.send(result).is_err() {
                    break;
                }
            }
        });
        Agreement { questions: Some(questions), answers, thread: Some(thread) }
    }

    /// Starts the sum; one at a time.
    pub fn start(&mut self, counts: Counts) {
        if let Some(questions) = &self.questions {
            // A thread that is gone has sent its error, which `wait` returns.
            let _ = questions.send(counts);
        }
    }

    /// Waits for the sum started last.
    pub fn wait(&mut self) -> Result<Counts, CommError> {
        self.answers.recv().unwrap_or(Err(CommError::Left { call: "the agreement on a step", rank: 0 }))
    }
}

impl Drop for Agreement {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn counts_are_summed_over_ranks_step_after_step() {
        let sums = threads::run(3, |comm| {
            let mut agreement = Agreement::new(comm.duplicate().expect("threads can be duplicated"));
            (0..4)
                .map(|step| {
                    agreement.start([comm.rank() as i64, step]);
                    agreement.wait().expect("no rank leaves")
                })
                .collect::<Vec<_>>()
        });
        assert!(sums.iter().all(|sums| sums == &[[3, 0], [3, 3], [3, 6], [3, 9]]), "{sums:?}");
    }
}
