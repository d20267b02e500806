//! Learning rates and decays by tensor, against mmsegmentation's rule and PyTorch's optimizer; what parameter_groups.py
//! in tests/golden wrote down.

use crate::golden;
use segdist::model::layers::{Role, Store, Variable};
use segdist::model::{ModelConfig, Network};
use segdist::optim::{Factors, Flat, Group, Optim, Optimizer, Rule, freeze};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

const TABLE: &str = include_str!("../golden/parameter_groups.txt");

fn network(encoder: &str, decoder: &str) -> Network {
    let config = ModelConfig { arch_encoder: encoder.into(), arch_decoder: decoder.into(), ..Default::default() };
    Network::blank(&config, 7, Device::Cpu).unwrap()
}

fn factors(layer_decay: f64, patterns: &[(&str, f64)]) -> Factors {
    let patterns = patterns.iter().map(|(pattern, factor)| (pattern.to_string(), *factor)).collect();
    Factors { patterns, layer_decay }
}

/// mmsegmentation's factor and decay of every tensor of a network in the table.
fn expected(title: &str) -> BTreeMap<&'static str, (f64, bool)> {
    let section = TABLE.split('[').find(|section| section.starts_with(title)).unwrap();
    let row = |line: &'static str| {
        let [name, factor, decay] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        (name, (factor.parse().unwrap(), decay == "decays"))
    };
    section.lines().skip(1).map(row).collect()
}

/// Compares all trained tensors; returns those that decay there and not here.
fn compare(encoder: &str, decoder: &str, factors: &Factors) -> Vec<String> {
    let network = network(encoder, decoder);
    factors.check(&network.store).unwrap();
    let mut expected = expected(&format!("{encoder} {decoder}"));
    let mut differing = Vec::new();
    for variable in network.store.variables.iter().filter(|variable| variable.role != Role::Buffer) {
        let Group { factor, decays, .. } = factors.group(variable);
        let (theirs, decays_there) = expected.remove(variable.name.as_str()).expect(&variable.name);
        assert!((factor / theirs - 1.0).abs() < 1e-12, "{}: {factor} for {theirs}", variable.name);
        assert!(decays_there || !decays, "{} decays", variable.name);
        if decays != decays_there {
            differing.push(variable.name.clone());
        }
    }
    assert!(expected.is_empty(), "{expected:?}");
    differing
}

#[test]
fn segformer_s_groups_are_mmsegmentation_s_but_for_biases_and_norms_without_the_name() {
    let differing = compare("mit_b0", "segformer", &factors(1.0, &[("decoder", 10.0)]));
    // There a norm is known by its name, which these lack.
    let nameless = ["encoder.layer_norm.", "decoder.batch_norm."];
    let explained = |name: &String| name.ends_with(".bias") || nameless.iter().any(|norm| name.starts_with(norm));
    assert!(differing.iter().all(explained), "{differing:?}");
}

#[test]
fn convnext_s_groups_are_mmsegmentation_s_decay_by_stages() {
    assert_eq!(compare("convnext_tiny", "linear", &factors(0.9, &[])), [""; 0]);
}

#[test]
fn a_vit_s_groups_are_mmsegmentation_s_decay_by_layers_but_for_tokens_and_positions() {
    // Its rule means to spare them, too, but looks for names without the backbone in front.
    let differing = compare("dinov2_vits14", "linear", &factors(0.65, &[]));
    assert_eq!(differing, ["encoder.cls_token", "encoder.pos_embed"]);
}

#[test]
fn a_mit_s_layers_lie_one_below_the_other() {
    let network = network("mit_b0", "segformer");
    let above = |name: &str| network.store.variables.iter().find(|variable| variable.name == name).unwrap().above;
    let depths = ["patch_embeddings.0.proj.weight", "block.0.0.layer_norm_1.weight", "block.0.1.layer_norm_1.weight"];
    assert_eq!(depths.map(|name| above(&format!("encoder.{name}"))), [9, 8, 7]);
    let depths = ["patch_embeddings.3.proj.weight", "block.3.0.layer_norm_1.weight", "block.3.1.mlp.dense2.weight"];
    assert_eq!(depths.map(|name| above(&format!("encoder.{name}"))), [2, 2, 1]);
    assert_eq!([above("encoder.layer_norm.3.weight"), above("decoder.classifier.weight")], [1, 0]);
}

#[test]
fn of_patterns_that_match_the_longest_counts() {
    let network = network("resnet18", "c1");
    let factors = factors(1.0, &[("encoder", 0.5), ("encoder.layer4", 0.25), ("*bn1", 2.0)]);
    let factor = |name: &str| {
        factors.group(network.store.variables.iter().find(|variable| variable.name == name).unwrap()).factor
    };
    let names =
        ["encoder.conv1.weight", "encoder.layer4.0.conv1.weight", "encoder.bn1.weight", "decoder.conv_last.weight"];
    assert_eq!(names.map(factor), [0.5, 0.25, 0.5, 1.0]);
}

#[test]
fn a_rule_that_no_tensor_follows_is_named() {
    let store = network("resnet18", "c1").store;
    let error = factors(1.0, &[("encoder.layer5", 0.5)]).check(&store).unwrap_err();
    assert!(error.starts_with("TRAIN.lr_factors: no tensor is named \"encoder.layer5\""), "{error}");
    assert!(factors(0.9, &[]).check(&store).unwrap_err().starts_with("TRAIN.layer_decay"));
    assert!(freeze(&store, &["enc".into()]).unwrap_err().starts_with("TRAIN.freeze: no tensor"));
    assert!(freeze(&store, &["*".into()]).unwrap_err().contains("nothing to train"));
}

#[test]
fn what_is_frozen_has_no_place_among_gradients() {
    let network = network("resnet18", "c1");
    freeze(&network.store, &["encoder".into()]).unwrap();
    let flat = Flat::new(&network.store, 1 << 20);
    assert!(flat.slots.iter().all(|slot| slot.name.starts_with("decoder.")));
    assert_eq!(flat.slots.len(), 5, "two convolutions, a bias, a norm's scale and shift");
}

/// The generator's `ramp`.
fn ramp(size: &[i64], scale: f64, shift: f64) -> Tensor {
    let count: i64 = size.iter().product();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) * scale) + shift).sin().view(size)
}

#[test]
fn ten_steps_of_adamw_with_layer_decay_are_pytorch_s() {
    let sizes: [(&str, &[i64], u32); 7] = [
        ("encoder.0.weight", &[4, 3], 3),
        ("encoder.0.bias", &[4], 3),
        ("encoder.1.weight", &[4, 4], 2),
        ("encoder.2.weight", &[5, 4], 1),
        ("encoder.2.bias", &[5], 1),
        ("decoder.weight", &[3, 5], 0),
        ("decoder.bias", &[3], 0),
    ];
    let variable = |(i, (name, size, above)): (usize, &(&str, &[i64], u32))| Variable {
        name: name.to_string(),
        tensor: ramp(size, 0.37, i as f64).set_requires_grad(true),
        role: if name.ends_with("weight") { Role::Weight } else { Role::NoDecay },
        above: *above,
    };
    let store = Store { variables: sizes.iter().enumerate().map(variable).collect() };
    let flat = Flat::grouped(&store, 64, &factors(0.65, &[("decoder", 10.0)]));
    let rule = Rule { optim: Optim::AdamW, beta1: 0.85, beta2: 0.98, eps: 1e-6, weight_decay: 0.05 };
    let mut optimizer = Optimizer::new(&flat, rule);
    for step in 0..10 {
        for (i, slot) in flat.slots.iter().enumerate() {
            slot.view(&flat.gradients).copy_(&ramp(&slot.size, 0.9, (i + step) as f64));
        }
        optimizer.step(0.01, 0.02, 1.0).unwrap();
    }
    let expected: BTreeMap<String, Vec<f64>> = golden::read("parameter_groups.json");
    assert_eq!(expected.len(), store.variables.len());
    for variable in &store.variables {
        let values = Vec::<f64>::try_from(variable.tensor.detach().flatten(0, -1).to_kind(Kind::Double)).unwrap();
        for (own, theirs) in values.iter().zip(&expected[&variable.name]) {
            assert!((own - theirs).abs() < 1e-5, "{}: {own} for {theirs}", variable.name);
        }
    }
}
