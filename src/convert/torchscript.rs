//! A network with its weights as a TorchScript module, for `torch.jit.load` and libtorch.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tch::{CModule, Device, Kind, Tensor, no_grad};

use super::{Target, load, save_file};
use crate::model::{Pass, layers};

/// Writes encoder and decoder, with the weights of `inputs`, as a function from normalised images, f32 (n, 3, h, w),
/// to class probabilities, f32 (n, classes, h, w), as the reference's module gives them with segSize = (h, w).
///
/// The function is traced: n is free, but (h, w) is fixed to `size`, since the decoders resize to sizes that a trace
/// holds as numbers.
///
/// # Errors
/// [`crate::fault::BadInput`] for a network that does not exist and weights that are not its own.
pub fn export(inputs: &[PathBuf], output: &Path, network: Target, size: (i64, i64)) -> anyhow::Result<()> {
    let network = load(inputs, network)?;
    for variable in &network.store.variables {
        // What the trace keeps as a constant must not ask for gradients.
        let _ = variable.tensor.set_requires_grad(false);
    }
    let (height, width) = size;
    let pass = Pass { train: false, norm: &layers::Local, dropout: None, deep_supervision: false };
    let mut probabilities = |images: &[Tensor]| {
        let logits = network.forward(&images[0], &pass).main;
        vec![logits.upsample_bilinear2d([height, width], false, None, None).softmax(1, Kind::Float)]
    };
    let images = Tensor::zeros([1, 3, height, width], (Kind::Float, Device::Cpu));
    let module = no_grad(|| CModule::create_by_tracing("segdist", "forward", &[images], &mut probabilities))?;
    save_file(output, |unfinished| Ok(module.save(unfinished.path())?)).with_context(|| "TorchScript")?;
    println!(
        "{}: images (n, 3, {height}, {width}), normalised, to class probabilities of the same size",
        output.display()
    );
    Ok(())
}
