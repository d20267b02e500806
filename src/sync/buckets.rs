//! Gradients as views of flat buckets that are summed over ranks while backward goes on.

use super::DistConfig;
use crate::comm::{Comm, CommError};
use std::sync::Arc;
use tch::Tensor;

/// What the sums say once the last bucket has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Reduced {
    /// Σ squares of all gradients, the same on every rank; NaN or infinite when any gradient is.
    pub squared_norm: f64,
    /// Seconds the caller waited here.
    pub waited_s: f64,
}

/// Sums the gradients of a list of parameters over ranks.
pub struct Reducer {}

impl Reducer {
    /// Makes every parameter's gradient a view of a bucket and starts the communication thread.
    /// `parameters`: in the order of the network; buckets go in reverse order.
    pub fn new(parameters: &[Tensor], comm: Arc<dyn Comm>, config: &DistConfig) -> Result<Reducer, CommError> {
        todo!()
    }
    /// Zeroes all gradients. Call before the first backward of a step.
    pub fn zero(&mut self) {
        todo!()
    }
    /// From now on buckets are sent as they fill. Call before the last backward of a step.
    pub fn arm(&mut self) {
        todo!()
    }
    /// Sends what backward did not fill, and waits until every gradient holds the sum over ranks.
    pub fn wait(&mut self) -> Result<Reduced, CommError> {
        todo!()
    }
}
