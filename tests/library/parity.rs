//! Training is the reference's: losses and running statistics over several steps of its SGD.

use crate::golden::{self, Run, difference, forward_loss, norm};
use segdist::model::layers::Role;
use segdist::model::{BnRunning, Network};
use serde::Deserialize;
use tch::Tensor;

/// See networks.py.
const BATCH_LR: f64 = 1e-5;

#[derive(Deserialize)]
struct Golden {
    encoder: String,
    decoder: String,
    batch: Run,
    debiased: Run,
    fix_bn: Vec<f64>,
}

/// Losses of `steps` updates: momentum 0.9, weight decay 1e-4 on weights, learning rate falling to 0 by power 0.9.
fn train(network: &Network, steps: usize, lr: f64, rule: Option<BnRunning>) -> Vec<f64> {
    let mut velocities: Vec<Option<Tensor>> = network.store.variables.iter().map(|_| None).collect();
    let mut losses = Vec::new();
    for step in 0..steps {
        let (loss, ..) = forward_loss(network, rule.is_some());
        loss.backward();
        losses.push(loss.double_value(&[]));
        let lr = lr * (1.0 - step as f64 / steps as f64).powf(0.9);
        let _guard = tch::no_grad_guard();
        for (entry, velocity) in network.store.variables.iter().zip(&mut velocities) {
            if entry.role == Role::Buffer {
                continue;
            }
            let decay = if entry.role == Role::Weight { 1e-4 } else { 0.0 };
            let gradient = entry.tensor.grad() + &entry.tensor * decay;
            let moved = velocity.take().map_or_else(|| gradient.copy(), |old| old * 0.9 + &gradient);
            let _ = entry.tensor.shallow_clone().g_sub_(&(&moved * lr));
            *velocity = Some(moved);
            entry.tensor.shallow_clone().zero_grad();
        }
        if let Some(rule) = rule {
            network.commit_statistics(rule);
        }
    }
    losses
}

fn assert_losses(pair: &str, own: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(own.len(), expected.len());
    for (own, expected) in own.iter().zip(expected) {
        assert!(difference(*own, *expected) < tolerance, "{pair}: loss {own} {expected}");
    }
}

fn assert_statistics(pair: &str, network: &Network, expected: &[[f64; 2]]) {
    let norms = |suffix: &str| -> Vec<f64> {
        let entries = network.store.variables.iter().filter(|entry| entry.name.ends_with(suffix));
        entries.map(|entry| norm(&entry.tensor)).collect()
    };
    let (means, variances) = (norms(".running_mean"), norms(".running_var"));
    assert_eq!(means.len(), expected.len());
    for (i, [mean, variance]) in expected.iter().enumerate() {
        assert!(difference(means[i], *mean) < 1e-5, "{pair}: mean of layer {i}: {} {mean}", means[i]);
        assert!(
            difference(variances[i], *variance) < 1e-5,
            "{pair}: variance of layer {i}: {} {variance}",
            variances[i]
        );
    }
}

#[test]
fn two_steps_with_batch_statistics_are_the_reference_s_by_either_rule() {
    for golden in golden::read::<Vec<Golden>>("parity.json") {
        for (rule, expected) in [(BnRunning::Plain, &golden.batch), (BnRunning::Debiased, &golden.debiased)] {
            let pair = format!("{} {} {rule:?}", golden.encoder, golden.decoder);
            let network = golden::network(&golden.encoder, &golden.decoder);
            let losses = train(&network, 2, BATCH_LR, Some(rule));
            assert_losses(&pair, &losses, &expected.losses, 1e-5);
            assert_statistics(&pair, &network, &expected.statistics);
            assert_eq!(network.reset_debias(), 0, "{pair}: the sums stand for the running statistics");
        }
    }
}

#[test]
fn ten_steps_with_fixed_statistics_are_the_reference_s() {
    for golden in golden::read::<Vec<Golden>>("parity.json") {
        let pair = format!("{} {}", golden.encoder, golden.decoder);
        let network = golden::network(&golden.encoder, &golden.decoder);
        assert_losses(&pair, &train(&network, 10, 1e-3, None), &golden.fix_bn, 1e-4);
    }
}
