//! Every encoder and every decoder on the device under test against f32 on the CPU in row-major order.

use crate::{assert_close, device, noise};
use segdist::model::layers::{Local, Role};
use segdist::model::{DECODERS, ENCODERS, Init, ModelConfig, Network, Pass};
use segdist::optim;
use segdist::torch::memory;
use tch::{Device, Kind, Tensor};

const CLASSES: i64 = 5;

/// Each encoder under one decoder and each decoder on one encoder; on the CPU, which computes both sides, a few.
fn pairs(device: Device) -> Vec<(&'static str, &'static str)> {
    let names = |rows: Vec<&'static str>| if device.is_cuda() { rows } else { rows[..1].to_vec() };
    let encoders = names(ENCODERS.concat().iter().map(|row| row.name).collect());
    let decoders = names(DECODERS.concat().iter().map(|row| row.name).collect());
    let with_pyramid = encoders.into_iter().map(|encoder| (encoder, "ppm_deepsup"));
    with_pyramid.chain(decoders.into_iter().map(|decoder| ("resnet18dilated", decoder))).collect()
}

/// A form that a network and its images can be run in.
#[derive(Clone, Copy, Debug)]
struct Form {
    device: Device,
    channels_last: bool,
}

/// The scores of two images and the gradients of the first and the last weight; with batch statistics, or fixed ones.
fn run((encoder, decoder): (&str, &str), form: Form, train: bool) -> [Tensor; 3] {
    let config = ModelConfig {
        arch_encoder: encoder.into(),
        arch_decoder: decoder.into(),
        init: Init::Random,
        ..ModelConfig::default()
    };
    let network = Network::build(&config, CLASSES as usize, form.device, 3).unwrap();
    let mut images = (noise(&[2, 3, 64, 96], 5) * 2.0).to_kind(Kind::Float).to_device(form.device);
    if form.channels_last {
        optim::to_channels_last(&network.store);
        images = memory::to_channels_last(&images);
    }
    let pass = Pass { train, norm: &Local, dropout: None, deep_supervision: true };
    let logits = network.forward(&images, &pass);
    let gradient = noise(&logits.main.size(), 6).to_kind(Kind::Float).to_device(form.device);
    (&logits.main * gradient).mean(Kind::Float).backward();
    let empty = network.forward(&images.narrow(0, 0, 0), &Pass { train: false, ..pass });
    assert_eq!(empty.main.size()[0], 0, "{encoder} {decoder}: an empty batch passes");
    let weights: Vec<Tensor> = network
        .store
        .variables
        .iter()
        .filter(|variable| variable.role == Role::Weight && variable.tensor.grad().defined())
        .map(|variable| variable.tensor.grad())
        .collect();
    [logits.main, weights[0].shallow_clone(), weights[weights.len() - 1].shallow_clone()]
}

#[test]
fn scores_and_gradients_are_those_of_the_cpu() {
    let device = device();
    let plain = Form { device: Device::Cpu, channels_last: false };
    let forms: Vec<Form> = [false, true].map(|channels_last| Form { device, channels_last }).into();
    for pair in pairs(device) {
        // Batch statistics of two images enlarge every rounding error. A gradient hangs on which inputs of a ReLU are above
        // 0, and rounding moves a few over it: the reference against itself in f32 differs by up to 1e-2.
        for (train, of_scores, of_gradients) in [(false, 1e-4, 1e-2), (true, 2e-2, 2e-2)] {
            let expected = run(pair, plain, train);
            for &form in forms.iter().filter(|form| form.device.is_cuda() || form.channels_last) {
                let found = run(pair, form, train);
                let compared =
                    [("scores", of_scores), ("first gradient", of_gradients), ("last gradient", of_gradients)];
                for (index, (what, tolerance)) in compared.into_iter().enumerate() {
                    let what = format!("{pair:?}, {form:?}, batch statistics {train}: the {what}");
                    assert_close(&found[index], &expected[index], (tolerance, 0.0), &what);
                }
            }
        }
    }
}
