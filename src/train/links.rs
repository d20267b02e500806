//! What ranks exchange in a step: a word on whether to make it, batch statistics, gradients.

use super::Recipe;
use crate::comm::journal::Journal;
use crate::comm::trace::Lane;
use crate::comm::{Comm, CommError};
use crate::model::BnVariance;
use crate::model::layers::Normalize;
use crate::optim::Flat;
use crate::sync::backend::Backend;
use crate::sync::batch_norm::SyncBatchNorm;
use crate::sync::buckets::Reducer;
use crate::sync::{tensor_sum, transport};
use std::sync::Arc;

/// The ends of this rank's channels to the others, one for each kind of message.
pub struct Links {
    /// Agrees on a step before it is made.
    pub(super) comm: Arc<dyn Comm>,
    /// Sums gradients.
    pub(super) reducer: Reducer,
    /// Batch statistics of all ranks.
    pub(super) norm: Box<dyn Normalize>,
    pub(super) journal: Journal,
    variance: BnVariance,
}

impl Links {
    /// Among the ranks of `comm`, gradients over the backend that DIST.transport asks for. A collective.
    pub fn connect(recipe: &Recipe, flat: &Flat, comm: &Arc<dyn Comm>, journal: &Journal) -> anyhow::Result<Links> {
        let backend = transport::choose(&**comm, flat.gradients.device(), recipe.dist)?;
        Links::over(backend, recipe, flat, comm, journal)
    }

    /// The same with gradients over a backend of the caller's choice.
    pub fn over(
        backend: Backend,
        recipe: &Recipe,
        flat: &Flat,
        comm: &Arc<dyn Comm>,
        journal: &Journal,
    ) -> anyhow::Result<Links> {
        let (comm, journal, variance) = (comm.clone(), journal.clone(), recipe.model.bn_variance);
        let gradients = channel(&*comm, &journal, Lane::Gradients)?;
        let statistics = channel(&*comm, &journal, Lane::BatchNorm)?;
        let statistics = tensor_sum::beside(&backend, statistics, flat.gradients.device(), recipe.dist)?;
        let norm = Box::new(SyncBatchNorm::over(statistics, variance));
        let reducer = Reducer::new(flat, gradients, backend, recipe.dist.overlap, &journal.trace)?;
        Ok(Links { comm, reducer, norm, journal, variance })
    }

    /// Lets go of the channels, which are of no use any more.
    pub fn disconnect(&mut self) {
        self.reducer.disconnect();
    }

    /// New channels among the ranks that are left, after [`Links::disconnect`]. A collective.
    pub fn reconnect(&mut self) -> anyhow::Result<()> {
        self.reducer.reconnect(channel(&*self.comm, &self.journal, Lane::Gradients)?)?;
        // NCCL does not outlive a rank.
        let statistics = channel(&*self.comm, &self.journal, Lane::BatchNorm)?;
        self.norm = Box::new(SyncBatchNorm::new(statistics, self.variance));
        Ok(())
    }
}

fn channel(comm: &dyn Comm, journal: &Journal, lane: Lane) -> Result<Arc<dyn Comm>, CommError> {
    Ok(journal.channel(comm.duplicate()?, lane))
}
