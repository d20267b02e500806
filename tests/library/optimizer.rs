//! The optimizers against their formulas, written out value by value.

use segdist::model::layers::{Role, Store, Variable};
use segdist::optim::{Flat, Optim, Optimizer, Rule};
use tch::{Device, Kind, Tensor};

/// Decay and no decay in encoder and decoder; more values than one bucket of 1 KiB takes.
fn store() -> Store {
    let entry = |name: &str, size: &[i64], role: Role| {
        let count: i64 = size.iter().product();
        let values = (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.37).sin().view(size) * 0.1;
        let tensor = if role == Role::Buffer { values } else { values.set_requires_grad(true) };
        Variable { name: name.into(), tensor, role, above: 0 }
    };
    Store {
        variables: vec![
            entry("encoder.conv.weight", &[6, 5, 3, 3], Role::Weight),
            entry("encoder.bn.weight", &[6], Role::NoDecay),
            entry("encoder.bn.running_mean", &[6], Role::Buffer),
            entry("decoder.conv.weight", &[7, 6, 3, 3], Role::Weight),
            entry("decoder.conv.bias", &[7], Role::NoDecay),
        ],
    }
}

fn usual(optim: Optim) -> Rule {
    Rule { optim, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-4 }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().flatten(0, -1).to_kind(Kind::Double)).unwrap()
}

fn set_gradients(flat: &mut Flat, step: usize) {
    for slot in &flat.slots {
        let count = slot.parameter.numel() as i64;
        let gradient = (Tensor::arange(count, (Kind::Float, Device::Cpu)) + step as f64).cos().view(&slot.size[..]);
        slot.view(&flat.gradients).copy_(&gradient);
    }
}

/// Updates all parameters for three steps and compares each value with `reference(parameter, gradients, lr, decay)`.
fn check(optim: Optim, reference: impl Fn(f64, &[f64], f64, f64) -> f64) {
    let store = store();
    let rule = Rule { beta1: 0.8, weight_decay: 0.05, ..usual(optim) };
    let before: Vec<Vec<f64>> = store.variables.iter().map(|entry| values(&entry.tensor)).collect();
    let mut flat = Flat::new(&store, 1024);
    let mut optimizer = Optimizer::new(&flat, rule);
    let mut gradients: Vec<Vec<Vec<f64>>> = Vec::new();
    for step in 0..3 {
        set_gradients(&mut flat, step);
        gradients.push(flat.slots.iter().map(|slot| values(&slot.view(&flat.gradients))).collect());
        optimizer.step(0.1, 0.02, 0.5).unwrap();
    }
    let trained = store.variables.iter().zip(&before).filter(|(entry, _)| entry.role != Role::Buffer);
    for (index, (entry, before)) in trained.enumerate() {
        let lr = if entry.name.starts_with("encoder") { 0.1 } else { 0.02 };
        let decay = if entry.role == Role::Weight { 0.05 } else { 0.0 };
        for (at, after) in values(&entry.tensor).into_iter().enumerate() {
            let scaled: Vec<f64> = gradients.iter().map(|step| 0.5 * step[index][at]).collect();
            let expected = reference(before[at], &scaled, lr, decay);
            assert!((after - expected).abs() < 1e-6, "{} value {at}: {after} for {expected}", entry.name);
        }
    }
    assert_eq!(values(&store.variables[2].tensor), before[2], "a buffer moved");
}

#[test]
fn sgd_follows_its_formula_in_all_groups() {
    check(Optim::SGD, |mut p, gradients, lr, decay| {
        let mut momentum = 0.0;
        for gradient in gradients {
            momentum = 0.8 * momentum + gradient + decay * p;
            p -= lr * momentum;
        }
        p
    });
}

#[test]
fn adamw_follows_its_formula_in_all_groups() {
    check(Optim::AdamW, |mut p, gradients, lr, decay| {
        let (mut mean, mut square) = (0.0, 0.0);
        for (step, gradient) in gradients.iter().enumerate() {
            let step = step as i32 + 1;
            p -= lr * decay * p;
            mean = 0.8 * mean + 0.2 * gradient;
            square = 0.999 * square + 0.001 * gradient * gradient;
            let (mean, square) = (mean / (1.0 - 0.8f64.powi(step)), square / (1.0 - 0.999f64.powi(step)));
            p -= lr * mean / (square.sqrt() + 1e-8);
        }
        p
    });
}

/// Two steps; between them a new optimizer takes over the saved state.
fn resumed(optim: Optim, interrupt: bool) -> Vec<f64> {
    let store = store();
    let rule = usual(optim);
    let mut flat = Flat::new(&store, 1 << 20);
    let mut optimizer = Optimizer::new(&flat, rule);
    set_gradients(&mut flat, 0);
    optimizer.step(0.1, 0.1, 1.0).unwrap();
    if interrupt {
        let mut next = Optimizer::new(&flat, rule);
        for ((old_name, old), (name, mut new)) in optimizer.state().into_iter().zip(next.state()) {
            assert_eq!(old_name, name);
            new.copy_(&old);
        }
        next.set_updates(1);
        optimizer = next;
    }
    set_gradients(&mut flat, 1);
    optimizer.step(0.1, 0.1, 1.0).unwrap();
    values(&flat.parameters)
}

#[test]
fn a_saved_state_goes_on_bit_by_bit() {
    for optim in [Optim::SGD, Optim::AdamW] {
        assert_eq!(resumed(optim, true), resumed(optim, false));
    }
}

#[test]
fn state_has_the_parameters_names_and_shapes_in_their_order() {
    let store = store();
    let flat = Flat::new(&store, 1 << 20);
    let state = Optimizer::new(&flat, usual(Optim::SGD)).state();
    let trained: Vec<_> = store.variables.iter().filter(|entry| entry.role != Role::Buffer).collect();
    assert_eq!(state.len(), trained.len());
    for ((name, tensor), entry) in state.iter().zip(trained) {
        assert_eq!(*name, format!("momentum.{}", entry.name));
        assert_eq!(tensor.size(), entry.tensor.size());
    }
}

#[test]
fn layout_of_buckets_changes_no_bit() {
    let after = |bucket_bytes| {
        let store = store();
        let mut flat = Flat::new(&store, bucket_bytes);
        set_gradients(&mut flat, 0);
        Optimizer::new(&flat, usual(Optim::SGD)).step(0.1, 0.02, 1.0).unwrap();
        store.variables.iter().map(|entry| values(&entry.tensor)).collect::<Vec<_>>()
    };
    assert_eq!(after(64), after(1 << 20));
}
