//! An encoder in parts whose activations are computed again: the same scores, gradients and statistics, bit for bit.

use crate::golden::config;
use segdist::model::layers::{DropoutKey, Local};
use segdist::model::{ModelConfig, Network, Pass};
use segdist::optim::freeze;
use tch::{Device, Kind, Tensor};

fn network(encoder: &str, decoder: &str) -> Network {
    let config = ModelConfig { drop_path: 0.4, ..config(encoder, decoder) };
    Network::build(&config, 7, Device::Cpu, 5).unwrap()
}

const KEY: DropoutKey = DropoutKey { seed: 1, step: 2, first: 3 };

fn pass() -> Pass<'static> {
    Pass { train: true, norm: &Local, dropout: Some(KEY), deep_supervision: true }
}

fn images() -> Tensor {
    (Tensor::arange(2 * 3 * 64 * 64, (Kind::Float, Device::Cpu)) * 0.37).sin().view([2, 3, 64, 64])
}

/// Scores, gradients and running statistics after one step.
fn step(network: &Network, in_parts: bool) -> Vec<(String, Tensor)> {
    let (logits, kept) = match in_parts {
        true => {
            let (logits, kept) = network.forward_in_parts(&images(), &pass());
            (logits, Some(kept))
        }
        false => (network.forward(&images(), &pass()), None),
    };
    let heads: Vec<Tensor> = [Some(logits.main), logits.deepsup].into_iter().flatten().collect();
    heads.iter().map(|scores| scores.square().mean(Kind::Float)).sum::<Tensor>().backward();
    if let Some(kept) = kept {
        network.backward_in_parts(kept, &pass(), None).unwrap();
    }
    network.commit_statistics(segdist::model::BnRunning::Debiased);
    let mut found: Vec<(String, Tensor)> = heads.iter().map(|scores| ("scores".into(), scores.detach())).collect();
    for variable in &network.store.variables {
        let gradient = variable.tensor.grad();
        let value = if gradient.defined() { gradient } else { variable.tensor.detach() };
        found.push((variable.name.clone(), value.copy()));
    }
    found
}

#[test]
fn every_family_s_gradients_are_those_of_kept_activations() {
    for (encoder, decoder) in [
        ("mobilenetv2dilated", "ppm_deepsup"),
        ("resnet18", "upernet"),
        ("hrnetv2", "c1"),
        ("mit_b0", "segformer"),
        ("convnext_tiny", "uperhead"),
        ("dinov3_vits16", "uperhead"),
    ] {
        let network = network(encoder, decoder);
        let before: Vec<Tensor> = network.store.variables.iter().map(|variable| variable.tensor.copy()).collect();
        let plain = step(&network, false);
        for (variable, before) in network.store.variables.iter().zip(&before) {
            variable.tensor.shallow_clone().zero_grad();
            tch::no_grad(|| variable.tensor.shallow_clone().copy_(before));
        }
        let parts = step(&network, true);
        assert_eq!(plain.len(), parts.len());
        for ((name, plain), (_, parts)) in plain.iter().zip(&parts) {
            assert_eq!(plain, parts, "{encoder} {decoder}: {name}");
        }
    }
}

#[test]
fn a_frozen_encoder_has_no_graph_and_its_statistics_stay() {
    let network = network("resnet18", "c1");
    freeze(&network.store, &["encoder".into()]).unwrap();
    assert!(!network.trains_encoder());
    assert!(network.feature_maps(&images(), &pass()).iter().all(|map| !map.requires_grad()));
    let before: Vec<Tensor> = network.store.variables.iter().map(|variable| variable.tensor.copy()).collect();
    step(&network, false);
    for (variable, before) in network.store.variables.iter().zip(before) {
        let moves = variable.name.starts_with("decoder.") && variable.name.contains("running");
        assert_eq!(variable.tensor != before, moves, "{}", variable.name);
        assert_eq!(variable.tensor.grad().defined(), variable.tensor.requires_grad(), "{}", variable.name);
    }
}
