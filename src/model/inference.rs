//! A network that only evaluates: batch norms folded into the convolutions before them, one handle a thread.

use super::layers::{BatchNorm2d, Local};
use super::path::Values;
use super::{Network, Pass};
use crate::torch::memory;
use tch::{Device, Tensor};

/// How a network is run that does not train.
pub const EVALUATE: Pass = Pass { train: false, norm: &Local, dropout: None, deep_supervision: false };

impl Network {
    /// `count` networks that give this one's scores in [`EVALUATE`], faster, until this one changes.
    ///
    /// A batch norm with running statistics scales and shifts each channel, and so does a convolution by its weight and
    /// bias: one pass over memory less. On the CPU, weights lie channels last, which makes all activations do so.
    /// The networks share their memory; they are several since a handle to a tensor stays on one thread at a time.
    pub fn for_inference(&self, count: usize) -> Vec<Network> {
        let _guard = tch::no_grad_guard();
        let fold = |(norm, weight): (&BatchNorm2d, &Option<Tensor>)| {
            let (weight, shift) = norm.fold(weight.as_ref()?);
            let weight = if weight.device() == Device::Cpu { memory::to_channels_last(&weight) } else { weight };
            Some((weight, shift))
        };
        let folded: Vec<Option<(Tensor, Tensor)>> = self.norms.iter().zip(&self.normed).map(fold).collect();
        (0..count).map(|_| self.twin(&folded)).collect()
    }

    /// Another handle to this network's memory, but for `folded`: weights and biases in the order of the batch norms.
    fn twin(&self, folded: &[Option<(Tensor, Tensor)>]) -> Network {
        let device = self.store.variables.first().map_or(Device::Cpu, |variable| variable.tensor.device());
        let mut twin =
            Network::assemble(self.blueprint.clone(), device, Values::Zero).expect("it was built from this before");
        for (own, shared) in twin.store.variables.iter().zip(&self.store.variables) {
            own.tensor.shallow_clone().set_data(&shared.tensor);
        }
        for (own, folded) in twin.normed.iter().zip(folded) {
            if let (Some(own), Some((weight, _))) = (own, folded) {
                own.shallow_clone().set_data(weight);
            }
        }
        twin.shifts = folded.iter().map(|folded| folded.as_ref().map(|(_, shift)| shift.shallow_clone())).collect();
        twin
    }
}
