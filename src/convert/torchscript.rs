//! A network with its weights as a TorchScript module, for `torch.jit.load` and libtorch.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tch::{CModule, Device, Kind, Tensor, no_grad};

use crate::fault;
use crate::model::weights::{Part, load_into};
use crate::model::{ModelConfig, Network, Pass, layers};

/// Writes encoder and decoder, with the weights of `inputs`, as a function from normalised images, f32 (n, 3, h, w),
/// to class probabilities, f32 (n, classes, h, w), as the reference's module gives them with segSize = (h, w).
///
/// The function is traced: n is free, but (h, w) is fixed to `size`, since the decoders resize to sizes that a trace
/// holds as numbers.
///
/// # Errors
/// [`fault::BadInput`] for a network that does not exist and weights that are not its own.
pub fn export(
    inputs: &[PathBuf],
    output: &Path,
    model: &ModelConfig,
    num_class: usize,
    size: (i64, i64),
) -> anyhow::Result<()> {
    let network = Network::build(model, num_class, Device::Cpu, 0).map_err(fault::classified)?;
    let weights = super::gather(inputs)?;
    for part in [Part::Encoder, Part::Decoder] {
        load_into(&network.store, part, &weights, false).map_err(fault::classified)?;
    }
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
    super::save(output, |unfinished| Ok(module.save(unfinished.path())?)).with_context(|| "TorchScript")?;
    println!(
        "{}: images (n, 3, {height}, {width}), normalised, to class probabilities of the same size",
        output.display()
    );
    Ok(())
}
