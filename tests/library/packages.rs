//! Networks of torchvision, transformers, timm and segmentation_models_pytorch: the same tensors, the same numbers.

use crate::golden::{self, CLASSES, difference, norm, pass};
use segdist::loss::summed_nll;
use segdist::model::layers::Role;
use segdist::model::{ModelConfig, Network, Stem};
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// What packages.py writes of a network.
#[derive(Deserialize)]
struct Golden {
    encoder: String,
    decoder: Option<String>,
    /// Height and width of the images.
    size: (i64, i64),
    tensors: Digest,
    maps: Vec<Sampled>,
    scores: Option<Sampled>,
    /// Of the smaller networks.
    step: Option<Step>,
}

#[derive(Deserialize, PartialEq, Debug)]
struct Digest {
    count: usize,
    digest: String,
}

#[derive(Deserialize)]
struct Sampled {
    size: Vec<i64>,
    norm: f64,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    gradient: f64,
    gradients: BTreeMap<String, f64>,
}

impl Golden {
    fn name(&self) -> String {
        format!("{} {}", self.encoder, self.decoder.as_deref().unwrap_or("alone"))
    }

    fn network(&self) -> Network {
        let config = ModelConfig {
            arch_encoder: self.encoder.clone(),
            arch_decoder: self.decoder.clone().unwrap_or("c1".into()),
            stem: Stem::Plain,
            ..Default::default()
        };
        let network = Network::blank(&config, CLASSES as usize, Device::Cpu).unwrap();
        golden::fill(&network);
        network
    }
}

/// The rows of a decoder over encoders whose names begin so.
fn goldens(family: &str, decoder: Option<&str>) -> Vec<Golden> {
    let rows: Vec<Golden> = golden::read("packages.json");
    let wanted = |row: &Golden| row.encoder.starts_with(family) && row.decoder.as_deref() == decoder;
    let rows: Vec<Golden> = rows.into_iter().filter(wanted).collect();
    assert!(!rows.is_empty(), "packages.json has rows of {family}");
    rows
}

/// As `digest` in packages.py: batch norm's counters and sums of debiased statistics are not the packages'.
fn digest(network: &Network, golden: &Golden) -> Digest {
    let own = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or_default();
        !last.starts_with('_') && last != "num_batches_tracked" && (golden.decoder.is_some() || name.starts_with("enc"))
    };
    let line = |name: &str, size: Vec<i64>| {
        let size: Vec<String> = size.iter().map(i64::to_string).collect();
        format!("{name} {}\n", size.join("x"))
    };
    let variables = network.store.variables.iter().filter(|variable| own(&variable.name));
    let mut lines: Vec<String> = variables.map(|variable| line(&variable.name, variable.tensor.size())).collect();
    lines.sort();
    let fnv = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let state = lines.concat().bytes().fold(0xCBF2_9CE4_8422_2325, fnv);
    Digest { count: lines.len(), digest: format!("{state:016x}") }
}

fn compare(what: &str, own: &Tensor, golden: &Sampled) {
    assert_eq!(own.size(), golden.size, "{what}");
    assert!(difference(norm(own), golden.norm) < 1e-4, "{what}: norm {} {}", norm(own), golden.norm);
    let flat = own.flatten(0, -1);
    // Places of nearly 0 are compared by what is usual.
    let usual = golden.norm / (flat.numel() as f64).sqrt();
    for (i, expected) in golden.values.iter().enumerate() {
        let place = i as i64 * 7919 % flat.numel() as i64;
        let own = flat.double_value(&[place]);
        assert!((own - expected).abs() < 1e-4 * expected.abs().max(usual), "{what}, place {place}: {own} {expected}");
    }
}

/// The loss as packages.py defines it.
fn loss(network: &Network, golden: &Golden) -> Tensor {
    let images = golden::images_of(golden.size).to_kind(Kind::Double);
    if golden.decoder.is_none() {
        let maps = network.feature_maps(&images, &pass(true));
        return maps.iter().map(|map| map.square().mean(Kind::Double)).reduce(|a, b| a + b).unwrap();
    }
    let logits = network.forward(&images, &pass(true));
    let labels = golden::labels(&logits.main.size());
    let valid = labels.ge(0).sum(Kind::Double);
    let mut loss = summed_nll(&logits.main, &labels) / &valid;
    if let Some(auxiliary) = &logits.deepsup {
        loss += summed_nll(auxiliary, &labels) * 0.4 / &valid;
    }
    loss
}

fn check_step(network: &Network, golden: &Golden, step: &Step) {
    let name = golden.name();
    golden::to_double(network);
    let loss = loss(network, golden);
    loss.backward();
    let own = loss.double_value(&[]);
    assert!(difference(own, step.loss) < 1e-4, "{name}: loss {own} {}", step.loss);
    let mut squares = 0.0;
    let mut found = 0;
    for variable in network.store.variables.iter().filter(|variable| variable.role != Role::Buffer) {
        let gradient = variable.tensor.grad();
        let own = if gradient.defined() { norm(&gradient) } else { 0.0 };
        squares += own * own;
        if let Some(&expected) = step.gradients.get(&variable.name) {
            // A gradient that is zero in exact arithmetic is rounding on both sides.
            let agree = difference(own, expected) < 1e-3 || (own - expected).abs() < 1e-9 * step.gradient;
            assert!(agree, "{name}: gradient of {}: {own} {expected}", variable.name);
            found += 1;
        }
    }
    assert_eq!(found, step.gradients.len(), "{name}");
    assert!(difference(squares.sqrt(), step.gradient) < 1e-3, "{name}: {} {}", squares.sqrt(), step.gradient);
}

/// Tensors, maps, scores and one step of every network of the family.
fn check(family: &str, decoder: Option<&str>) {
    for golden in goldens(family, decoder) {
        let name = golden.name();
        let network = golden.network();
        assert_eq!(digest(&network, &golden), golden.tensors, "{name}: names and shapes");
        let images = golden::images_of(golden.size);
        let maps = tch::no_grad(|| network.feature_maps(&images, &pass(false)));
        assert_eq!(maps.len(), golden.maps.len(), "{name}");
        for (i, (map, expected)) in maps.iter().zip(&golden.maps).enumerate() {
            compare(&format!("{name}: map {i}"), map, expected);
        }
        if let Some(expected) = &golden.scores {
            let scores = tch::no_grad(|| network.forward(&images, &pass(false)).main);
            compare(&format!("{name}: scores"), &scores, expected);
            let folded = network.for_inference(1).remove(0);
            let scores = tch::no_grad(|| folded.forward(&images, &pass(false)).main);
            compare(&format!("{name}: scores for inference"), &scores, expected);
        }
        if let Some(step) = &golden.step {
            check_step(&network, &golden, step);
        }
    }
}

#[test]
fn resnets_with_one_convolution_are_torchvision_s() {
    check("resnet", None);
}

#[test]
fn resnexts_with_one_convolution_are_torchvision_s() {
    check("resnext", None);
}

#[test]
fn segformer_is_that_of_transformers() {
    check("mit", Some("segformer"));
}

#[test]
fn segformer_smp_is_that_of_segmentation_models_pytorch() {
    check("mit", Some("segformer_smp"));
}

#[test]
fn convnext_with_uperhead_is_that_of_transformers() {
    check("convnext", Some("uperhead"));
}

#[test]
fn dinov2_is_timm_s() {
    check("dinov2", Some("linear"));
}

#[test]
fn dinov3_is_timm_s() {
    check("dinov3", Some("linear"));
}

#[test]
fn unet_is_that_of_segmentation_models_pytorch() {
    check("", Some("unet"));
}

#[test]
fn deeplabv3plus_is_that_of_segmentation_models_pytorch() {
    check("", Some("deeplabv3plus"));
}
