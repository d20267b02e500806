//! A network with its weights as a TorchScript module, for `torch.jit.load` and libtorch.

use std::path::{Path, PathBuf};

use tch::{CModule, Device, Kind, Tensor, no_grad};

use super::{Target, load, save_file};
use crate::data::batch::{MEAN, STD};
use crate::model::{Pass, layers};
use crate::torch::script;

/// Writes encoder and decoder, with the weights of `inputs`, as a module from images (n, 3, h, w) to class probabilities,
/// f32 (n, classes, h, w), as the reference's module gives them with segSize = (h, w). Images of whole numbers are RGB from
/// 0 to 255, and the module normalises them; those of floating-point numbers are normalised already.
///
/// The network inside is traced: n is free, but (h, w) is fixed to `size`, since the decoders resize to sizes that a trace
/// holds as numbers. Images of another size are refused at run time, with the size in the message.
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
    let constant = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
    save_file(output, |unfinished| {
        module.save(unfinished.path())?;
        let buffers = [("mean", &constant(MEAN)), ("std", &constant(STD))];
        Ok(script::enclose(unfinished.path(), &forward(height, width), &buffers)?)
    })?;
    println!(
        "{}: images (n, 3, {height}, {width}), RGB as uint8 or normalised as float32, to class probabilities of the same size",
        output.display()
    );
    Ok(())
}

/// The module's method, in TorchScript; 6 is float32's number.
fn forward(height: i64, width: i64) -> String {
    format!(
        r#"
def forward(self, images):
    assert images.dim() == 4 and images.size(1) == 3 and images.size(2) == {height} and images.size(3) == {width}, "segdist: images must be (n, 3, {height}, {width}); export for another size with DATASET.imgSizes and DATASET.imgMaxSize"
    if not images.is_floating_point():
        images = (images.to(6) / 255 - self.mean) / self.std
    return self.network.forward(images)
"#
    )
}
