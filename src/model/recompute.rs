//! MODEL.recompute: the encoder's activations are not kept for backward but computed once more, part by part
//! (Chen et al. 2016, arXiv:1604.06174).
//!
//! Forward runs each part without a graph and keeps what goes in and comes out. Backward begins with the decoder as ever;
//! then the parts, last one first, run again from what they were given, now with a graph, and backward goes through it. All
//! that a pass draws is keyed and batch statistics are functions of the batch, so the second run gives the first one's
//! bits. What it observes of the batch is forgotten: the running statistics have it already.

use super::layers::Context;
use super::{Logits, Network, Pass};
use crate::torch::{TorchError, autograd, precision};
use tch::{Kind, Tensor};

/// What a forward pass leaves behind for [`Network::backward_in_parts`].
pub struct Kept(Vec<Part>);

/// One part's inputs and outputs, cut from the graph. Gradients of outputs gather in them.
struct Part {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Network {
    /// As [`Network::forward`], without a graph of the encoder; call [`Network::backward_in_parts`] after backward.
    pub fn forward_in_parts(&self, images: &Tensor, pass: &Pass) -> (Logits, Kept) {
        let context = self.context(images, pass, None);
        let (mut inputs, mut maps, mut parts) = (vec![images.shallow_clone()], Vec::new(), Vec::new());
        for index in 0..self.encoder.parts() {
            let flow = tch::no_grad(|| self.encoder.part(index, &inputs, &context));
            let [next, left] = [flow.next, flow.maps].map(|tensors| tensors.iter().map(leaf).collect::<Vec<_>>());
            let outputs = share(next.iter().chain(&left));
            parts.push(Part { inputs: std::mem::replace(&mut inputs, next), outputs });
            maps.extend(left);
        }
        maps.drain(..self.hidden);
        (self.decoder.forward(&maps, &context), Kept(parts))
    }

    /// Goes on with a backward pass that has reached the encoder's maps, in the pass and the precision (`amp`) of
    /// the forward pass.
    pub fn backward_in_parts(&self, kept: Kept, pass: &Pass, amp: Option<Kind>) -> Result<(), TorchError> {
        let Some(images) = kept.0.first().map(|part| part.inputs[0].shallow_clone()) else { return Ok(()) };
        let context = self.context(&images, pass, None);
        for (index, part) in kept.0.into_iter().enumerate().rev() {
            self.run_again(index, part, &context, amp)?;
        }
        Ok(())
    }

    fn run_again(&self, index: usize, part: Part, context: &Context, amp: Option<Kind>) -> Result<(), TorchError> {
        let observed: Vec<usize> = self.norms.iter().map(|layer| layer.observed.borrow().len()).collect();
        let device = part.inputs[0].device();
        let flow = precision::autocast(device, amp, || self.encoder.part(index, &part.inputs, context))?;
        for (layer, length) in self.norms.iter().zip(observed) {
            layer.observed.borrow_mut().truncate(length);
        }
        // A map that nobody looks at has no gradient, and what is frozen needs none.
        let pairs = flow.next.into_iter().chain(flow.maps).zip(part.outputs);
        let (outputs, gradients): (Vec<Tensor>, Vec<Tensor>) = pairs
            .map(|(output, first)| (output, first.grad()))
            .filter(|(output, gradient)| output.requires_grad() && gradient.defined())
            .unzip();
        autograd::backward(&outputs, &gradients)
    }

    /// Whether anything in the encoder is trained.
    pub fn trains_encoder(&self) -> bool {
        let mut encoder = self.store.variables.iter().filter(|variable| variable.name.starts_with("encoder."));
        encoder.any(|variable| variable.tensor.requires_grad())
    }
}

/// The same values, where a graph begins.
fn leaf(tensor: &Tensor) -> Tensor {
    tensor.detach().set_requires_grad(true)
}

fn share<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Vec<Tensor> {
    tensors.map(Tensor::shallow_clone).collect()
}
