//! SGD and AdamW on flat parameter groups whose state can be saved.

use crate::model::layers::Store;
use crate::schedule::TrainConfig;
use tch::Tensor;

/// The optimizer of a network's encoder and decoder, each with its learning rate, weights with decay and the rest without.
pub struct Optimizer {}

impl Optimizer {
    /// Takes the parameters of `store`.
    pub fn new(store: &Store, config: &TrainConfig) -> Optimizer {
        todo!()
    }
    /// One update from the parameters' gradients, each multiplied by `grad_scale` first (clipping).
    pub fn step(&mut self, lr_encoder: f64, lr_decoder: f64, grad_scale: f64) {
        todo!()
    }
    /// The state by name (`momentum.encoder.conv1.weight`, …), sharing memory, in a fixed order.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        todo!()
    }
    /// Updates made so far (AdamW's bias correction needs it).
    pub fn set_updates(&mut self, updates: u64) {
        todo!()
    }
}
