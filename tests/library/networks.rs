//! The networks are the reference's: the same tensors, the same numbers.

use crate::golden::{self, config, difference, forward_loss, images, norm, pass};
use segdist::model::layers::{DropoutKey, Local, Role};
use segdist::model::{BnRunning, EVALUATE, Network, Pass, shape};
use serde::Deserialize;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

const ENCODERS: [&str; 11] = [
    "mobilenetv2dilated",
    "resnet18",
    "resnet18dilated",
    "resnet34",
    "resnet34dilated",
    "resnet50",
    "resnet50dilated",
    "resnet101",
    "resnet101dilated",
    "resnext101",
    "hrnetv2",
];
const DECODERS: [&str; 6] = ["c1", "c1_deepsup", "ppm", "ppm_deepsup", "upernet", "upernet_lite"];

/// "name shape" of every tensor, by "encoder" and "decoder encoder".
fn reference_tensors() -> BTreeMap<String, Vec<String>> {
    let mut tensors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut sections = Vec::new();
    for line in include_str!("../golden/networks-tensors.txt").lines() {
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections = match title.split_once(" after ") {
                None => vec![title.to_string()],
                Some((decoder, encoders)) => encoders.split(' ').map(|name| format!("{decoder} {name}")).collect(),
            };
            continue;
        }
        let (name, shape) = line.split_once(' ').unwrap();
        let rows: Vec<String> = match shape.strip_prefix("norm ") {
            None => vec![line.to_string()],
            Some(channels) => {
                let channelwise = ["weight", "bias", "running_mean", "running_var"].map(|n| (n, channels));
                let sums = [("_tmp_running_mean", channels), ("_tmp_running_var", channels), ("_running_iter", "1")];
                let all = channelwise.into_iter().chain([("num_batches_tracked", "")]).chain(sums);
                all.map(|(tensor, shape)| format!("{name}.{tensor} {shape}")).collect()
            }
        };
        for section in &sections {
            tensors.entry(section.clone()).or_default().extend(rows.iter().cloned());
        }
    }
    tensors
}

#[test]
fn every_pair_has_the_reference_s_tensors_in_its_order() {
    let reference = reference_tensors();
    for encoder in ENCODERS {
        for decoder in DECODERS {
            let pair = format!("{decoder} {encoder}");
            if !reference.contains_key(&pair) {
                let refusal = shape(&config(encoder, decoder)).unwrap_err().to_string();
                assert!(refusal.contains(encoder) && refusal.contains(decoder), "{refusal}");
                continue;
            }
            let network = Network::blank(&config(encoder, decoder), 150, Device::Cpu).unwrap();
            let expected = reference[encoder].iter().map(|row| format!("encoder.{row}"));
            let expected = expected.chain(reference[&pair].iter().map(|row| format!("decoder.{row}")));
            let expected: Vec<String> = expected.collect();
            let row = |name: &str, size: Vec<i64>| {
                let size: Vec<String> = size.iter().map(i64::to_string).collect();
                format!("{name} {}", size.join("x"))
            };
            let own: Vec<String> = network.store.variables.iter().map(|e| row(&e.name, e.tensor.size())).collect();
            let at = own.iter().zip(&expected).position(|(a, b)| a != b);
            assert!(at.is_none(), "{pair}: {} should be {}", own[at.unwrap()], expected[at.unwrap()]);
            assert_eq!(own.len(), expected.len(), "{pair}");
        }
    }
    assert_eq!(reference.len(), 11 + 11 * 6 - 4);
}

#[derive(Deserialize)]
struct Golden {
    encoder: String,
    decoder: String,
    maps: Vec<f64>,
    size: Vec<i64>,
    log_scores: Vec<f64>,
    step: Step,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    accuracy: f64,
    gradients: Vec<f64>,
}

#[test]
fn feature_maps_and_scores_are_the_reference_s() {
    for golden in golden::read::<Vec<Golden>>("networks.json") {
        let pair = format!("{} {}", golden.encoder, golden.decoder);
        let network = golden::network(&golden.encoder, &golden.decoder);
        let (maps, scores) = tch::no_grad(|| {
            let scores = network.forward(&images(), &pass(false)).main.log_softmax(1, Kind::Float);
            (network.feature_maps(&images(), &pass(false)), scores)
        });
        assert_eq!(maps.len(), golden.maps.len(), "{pair}");
        for (map, expected) in maps.iter().zip(&golden.maps) {
            assert!(difference(norm(map), *expected) < 1e-5, "{pair}: a map's norm {} {expected}", norm(map));
        }
        assert_eq!(scores.size(), golden.size, "{pair}");
        let scores = scores.flatten(0, -1);
        for (i, expected) in golden.log_scores.iter().enumerate() {
            let place = i as i64 * 7919 % scores.numel() as i64;
            let own = scores.double_value(&[place]);
            assert!((own - expected).abs() < 1e-4 * expected.abs().max(1.0), "{pair}: score {place}: {own} {expected}");
        }
    }
}

/// The parameters, in the order of the reference's `named_parameters`.
fn parameters(network: &Network) -> Vec<(&str, Tensor)> {
    let trained = network.store.variables.iter().filter(|entry| entry.role != Role::Buffer);
    trained.map(|entry| (entry.name.as_str(), entry.tensor.shallow_clone())).collect()
}

#[test]
fn a_training_step_has_the_reference_s_loss_and_gradients() {
    for golden in golden::read::<Vec<Golden>>("networks.json") {
        let pair = format!("{} {}", golden.encoder, golden.decoder);
        let network = golden::network(&golden.encoder, &golden.decoder);
        golden::to_double(&network);
        let (loss, scores, labels) = forward_loss(&network, true);
        loss.backward();
        assert!(difference(loss.double_value(&[]), golden.step.loss) < 1e-6, "{pair}: loss {loss:?}");
        let valid = labels.ge(0).sum(Kind::Int64).int64_value(&[]);
        let correct = segdist::loss::correct_pixels(&scores, &labels).int64_value(&[]);
        assert!((correct as f64 / valid as f64 - golden.step.accuracy).abs() < 1e-6, "{pair}: {correct} of {valid}");
        let parameters = parameters(&network);
        assert_eq!(parameters.len(), golden.step.gradients.len(), "{pair}");
        let largest = golden.step.gradients.iter().copied().fold(0.0, f64::max);
        for ((name, parameter), &expected) in parameters.iter().zip(&golden.step.gradients) {
            let own = norm(&parameter.grad());
            // A gradient that is zero in exact arithmetic is rounding on both sides.
            let agree = difference(own, expected) < 1e-5 || (own - expected).abs() < 1e-6 * largest;
            assert!(agree, "{pair}: gradient of {name}: {own} {expected}");
        }
    }
}

#[test]
fn a_training_pass_reaches_every_parameter_and_records_statistics() {
    for (encoder, decoder) in [("resnet18", "ppm_deepsup"), ("mobilenetv2dilated", "upernet_lite")] {
        let network = Network::build(&config(encoder, decoder), 5, Device::Cpu, 3).unwrap();
        let images = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let dropout = Some(DropoutKey { seed: 1, step: 0, first: 0 });
        let pass = Pass { train: true, norm: &Local, dropout, deep_supervision: true };
        let logits = network.forward(&images, &pass);
        let score = |logits: &Tensor| logits.log_softmax(1, Kind::Float).square().mean(Kind::Float);
        let mut loss = score(&logits.main);
        if let Some(deepsup) = &logits.deepsup {
            assert_eq!(deepsup.size(), logits.main.size());
            loss += score(deepsup);
        }
        loss.backward();
        for entry in network.store.variables.iter().filter(|entry| entry.role != Role::Buffer) {
            assert!(entry.tensor.grad().defined(), "{} has no gradient with {decoder}", entry.name);
        }
        network.commit_statistics(BnRunning::Debiased);
        for entry in network.store.variables.iter().filter(|entry| entry.name.ends_with("running_iter")) {
            assert!((entry.tensor.double_value(&[0]) - 1.999).abs() < 1e-6, "{}", entry.name);
        }
    }
}

#[test]
fn unknown_names_and_misfits_are_refused_by_name() {
    let message = |encoder, decoder| shape(&config(encoder, decoder)).unwrap_err().to_string();
    assert!(message("resnet50dilatd", "c1").contains("did you mean \"resnet50dilated\""));
    assert!(message("resnet50", "pmm").contains("did you mean \"ppm\""));
    let wide = segdist::model::ModelConfig { fc_dim: 2048, ..config("resnet18dilated", "c1") };
    assert!(shape(&wide).unwrap_err().to_string().contains("512"));
}

#[test]
fn first_values_are_a_function_of_the_seed() {
    let build = |seed| Network::build(&config("resnet18", "c1"), 5, Device::Cpu, seed).unwrap();
    let (first, other) = (build(1), build(2));
    let _ = Tensor::randn([100], (Kind::Float, Device::Cpu));
    let again = build(1);
    let weight = |network: &Network| network.store.variables[0].tensor.copy();
    assert!(weight(&first).equal(&weight(&again)));
    assert!(!weight(&first).equal(&weight(&other)));
}

#[test]
fn networks_that_only_evaluate_give_the_same_scores_on_any_thread_and_leave_their_origin_as_it_was() {
    let pairs = ["mobilenetv2dilated c1", "resnet18dilated ppm_deepsup", "resnext101 c1", "resnet50 upernet_lite"];
    for pair in pairs.into_iter().chain(["hrnetv2 c1"]) {
        let (encoder, decoder) = pair.split_once(' ').unwrap();
        let network = golden::network(encoder, decoder);
        let forward = |network: &Network| tch::no_grad(|| network.forward(&images(), &EVALUATE).main);
        let expected = forward(&network);
        let others = network.for_inference(2);
        let scores: Vec<Tensor> = std::thread::scope(|scope| {
            let threads: Vec<_> = others.into_iter().map(|other| scope.spawn(move || forward(&other))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for scores in scores {
            let largest = (&scores - &expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[]);
            assert!(largest < 1e-5, "{pair}: scores differ by {largest:e} of the largest");
        }
        assert_eq!(forward(&network), expected, "{pair}");
    }
}
