//! SGD and AdamW on flat parameter groups whose state can be saved.
//!
//! The reference's rule (train.py, `create_optimizers` and `group_weight`): encoder and decoder have a learning rate
//! each; weights of convolutions and linear layers decay; biases, norms, tokens, position embeddings and factors of
//! layers do not. [`Factors`] multiply the rates of some.

mod flat;
mod groups;
mod scale;

pub use flat::{Flat, Slot, to_channels_last};
pub use groups::{Factors, Group, freeze};
pub use scale::{Amp, LossScale};

use crate::torch::TorchError;
use crate::torch::fused;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// TRAIN.optim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Optim {
    SGD,
    AdamW,
}

/// By what parameters are updated, besides their learning rates.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// TRAIN.optim.
    pub optim: Optim,
    /// Momentum of SGD, beta1 of AdamW.
    pub beta1: f64,
    /// What is kept of AdamW's mean of squares.
    pub beta2: f64,
    /// Added to AdamW's divisor.
    pub eps: f64,
    /// Of the weights of convolutions and linear layers.
    pub weight_decay: f64,
}

/// The optimizer of a network's encoder and decoder.
pub struct Optimizer {
    groups: Vec<Views>,
    states: Vec<Moment>,
    rule: Rule,
    updates: u64,
}

/// One group's spans of every flat tensor.
struct Views {
    group: Group,
    parameters: Vec<Tensor>,
    gradients: Vec<Tensor>,
    states: Vec<Vec<Tensor>>,
}

/// One value for every parameter value.
struct Moment {
    /// Name and view of every parameter's part, in the order of the network.
    named: Vec<(String, Tensor)>,
    values: Tensor,
}

impl Optimizer {
    /// Takes the parameters and gradients in `flat`; the state is 0.
    pub fn new(flat: &Flat, rule: Rule) -> Optimizer {
        let names: &[&str] = match rule.optim {
            Optim::SGD => &["momentum"],
            Optim::AdamW => &["exp_avg", "exp_avg_sq"],
        };
        let states: Vec<Moment> = names
            .iter()
            .map(|kind| {
                let values = flat.zeros();
                let named = |slot: &Slot| (format!("{kind}.{}", slot.name), slot.view(&values));
                Moment { named: flat.slots.iter().map(named).collect(), values }
            })
            .collect();
        let mut kinds: Vec<Group> = flat.spans.iter().map(|(group, _)| *group).collect();
        kinds.sort();
        kinds.dedup();
        let groups = kinds.into_iter().map(|group| Views::new(flat, group, &states)).collect();
        Optimizer { groups, states, rule, updates: 0 }
    }

    /// One update from the gradients, each multiplied by `grad_scale` first (the divisor of the loss, clipping).
    pub fn step(&mut self, lr_encoder: f64, lr_decoder: f64, grad_scale: f64) -> Result<(), TorchError> {
        self.updates += 1;
        let Rule { optim, beta1, beta2, eps, weight_decay } = self.rule;
        for views in &self.groups {
            let lr = views.group.factor * if views.group.decoder { lr_decoder } else { lr_encoder };
            let decay = if views.group.decays { weight_decay } else { 0.0 };
            let (parameters, gradients, states) = (&views.parameters, &views.gradients, &views.states);
            match optim {
                Optim::SGD => {
                    let with = fused::Sgd { lr, momentum: beta1, decay, grad_scale };
                    fused::sgd(parameters, gradients, &states[0], &with)?
                }
                Optim::AdamW => {
                    let step = self.updates as f64;
                    let with = fused::AdamW { step, lr, beta1, beta2, eps, decay, grad_scale };
                    fused::adamw(parameters, gradients, &states[0], &states[1], &with)?;
                }
            }
        }
        Ok(())
    }

    /// The state by name (`momentum.encoder.conv1.weight`; AdamW: `exp_avg.…`, then `exp_avg_sq.…`), sharing memory,
    /// in the order of the network.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = self.states.iter().flat_map(|state| &state.named);
        named.map(|(name, view)| (name.clone(), view.shallow_clone())).collect()
    }

    /// Updates made so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Updates made so far (AdamW's bias correction needs it); set when a run is resumed.
    pub fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}

impl Views {
    fn new(flat: &Flat, group: Group, states: &[Moment]) -> Views {
        let spans = |values: &Tensor| -> Vec<Tensor> {
            let own = flat.spans.iter().filter(|(of, _)| *of == group);
            own.map(|(_, span)| values.narrow(0, span.start, span.end - span.start)).collect()
        };
        Views {
            group,
            parameters: spans(&flat.parameters),
            gradients: spans(&flat.gradients),
            states: states.iter().map(|state| spans(&state.values)).collect(),
        }
    }
}
