//! Going on after a rank has died (DIST.elastic): the living vote the step under way down, leave the dead out, and deal
//! the same global batches among themselves. No checkpoint is read: every rank holds the whole state.
//!
//! The vote keeps the ranks in step. Each casts one at the end of every update it can make ([`super::Trainer::step`]), or
//! one against it when it fails anywhere, so that whoever gets here has made the same updates as all others.

use super::Run;
use super::recorder::Recorder;
use crate::checkpoint::{Lock, LockError};
use crate::comm::{self, Comm, CommError, agree, handshake};
use std::time::{Duration, Instant};

/// How long the file system may take to let go of what a dead rank 0 had locked.
const UNLOCKED: Duration = Duration::from_secs(20);

/// This rank's number at the start, host and process.
pub fn name(comm: &dyn Comm) -> String {
    format!("rank {} (host {}, pid {})", comm.rank(), comm::hostname(), std::process::id())
}

/// Everyone's text, by rank.
pub fn all_gather_text(comm: &dyn Comm, text: &str) -> Result<Vec<String>, CommError> {
    Ok(comm.all_gather(text.as_bytes())?.iter().map(|text| String::from_utf8_lossy(text).into()).collect())
}

/// The failure between ranks behind an error that the living may go on after.
fn death(error: &anyhow::Error) -> Option<&CommError> {
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<CommError>())?;
    matches!(failure, CommError::Died { .. } | CommError::Outvoted).then_some(failure)
}

impl Run<'_> {
    /// Whether the run goes on after this.
    pub fn outlives(&self, error: &anyhow::Error) -> bool {
        self.job.recipe.dist.elastic && death(error).is_some()
    }

    /// Goes on with the living; others may die meanwhile.
    pub fn go_on_after(&mut self, mut error: anyhow::Error) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Err(another) = self.regroup(&error) {
            if !self.outlives(&another) {
                return Err(another);
            }
            error = another;
        }
        if self.comm.is_root() {
            let (ranks, step) = (self.comm.size(), self.trainer.step);
            let seconds = start.elapsed().as_secs_f64();
            log::warn!(
                "going on from step {step} with {ranks} ranks, after {seconds:.2} s: {}",
                self.members.join(", ")
            );
        }
        Ok(())
    }

    fn regroup(&mut self, error: &anyhow::Error) -> anyhow::Result<()> {
        if !matches!(death(error), Some(CommError::Outvoted)) {
            self.comm.vote(false)?;
        }
        self.trainer.break_off();
        self.comm.shrink()?;

        let left = all_gather_text(&*self.comm, &self.me)?;
        let lost: Vec<&str> = self.members.iter().filter(|one| !left.contains(one)).map(String::as_str).collect();
        if self.comm.is_root() {
            log::warn!("{} died", lost.join(", "));
        }
        let new_root = left[0] != self.members[0];
        self.members = left;
        self.state.ranks = self.comm.size();
        let steps = [("finished updates".to_owned(), self.trainer.step.to_string())];
        handshake::compare(&*self.comm, &steps)?;
        let mut unfinished = [i64::from(self.unfinished || new_root)];
        self.comm.all_reduce_i64(&mut unfinished)?;
        self.unfinished = unfinished[0] > 0 && self.last.is_some();

        let batches = self.data.load(self.job, &self.place, self.trainer.step, &*self.comm);
        self.trainer.go_on_with(agree::agree(&*self.comm, batches)?)?;
        self.watchdog = super::watchdog(self.job, &self.comm, &self.journal)?;
        let taken_over = self.take_over();
        agree::agree(&*self.comm, taken_over)
    }

    /// What rank 0 has and does, where that is this rank now.
    fn take_over(&mut self) -> anyhow::Result<()> {
        if !self.comm.is_root() || self.recorder.is_some() {
            return Ok(());
        }
        let start = Instant::now();
        self.lock = loop {
            match Lock::take(self.job.dir) {
                Err(LockError::Held { .. }) if start.elapsed() < UNLOCKED => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                lock => break Some(lock?),
            }
        };
        let mut recorder = Recorder::open(self.job, self.trainer.step, self.state.global_batch)?;
        recorder.started(self.trainer.step, self.comm.size());
        self.recorder = Some(recorder);
        Ok(())
    }
}
