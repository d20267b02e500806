//! Gradients of several ranks are summed, whatever fills the buckets and in whatever order.

use segdist::comm::{Comm, threads, trace::Trace};
use segdist::model::layers::{Role, Store, Variable};
use segdist::optim::Flat;
use segdist::sync::Wire;
use segdist::sync::backend::Host;
use segdist::sync::buckets::{Reduced, Reducer};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const LAYERS: usize = 5;

/// A chain of small linear layers and one parameter that nothing uses.
fn store() -> Store {
    let weight = |layer: usize| {
        let values = (Tensor::arange(24 * 24, (Kind::Float, Device::Cpu)) + layer as f64).sin().view([24, 24]) * 0.2;
        Variable {
            name: format!("encoder.{layer}.weight"),
            tensor: values.set_requires_grad(true),
            role: Role::Weight,
            above: 0,
        }
    };
    let mut entries: Vec<Variable> = (0..LAYERS).map(weight).collect();
    let unused = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    entries.insert(2, Variable { name: "encoder.unused".into(), tensor: unused, role: Role::NoDecay, above: 0 });
    Store { variables: entries }
}

fn loss(store: &Store, batch: usize) -> Tensor {
    let mut x = (Tensor::arange(24, (Kind::Float, Device::Cpu)) * (batch as f64 + 1.0)).cos().view([1, 24]);
    for entry in store.variables.iter().filter(|entry| entry.role == Role::Weight) {
        x = x.matmul(&entry.tensor).tanh();
    }
    x.sum(Kind::Float)
}

/// Every rank runs its share of `batches`; returns all gradients and what `wait` said.
fn step(comm: Arc<dyn Comm>, batches: usize, wire: Wire, steps: usize) -> (Vec<f32>, Reduced) {
    let store = store();
    let flat = Flat::new(&store, 4 * 600);
    assert!(flat.buckets.len() > 2);
    let (rank, size) = (comm.rank(), comm.size());
    let mut reducer = Reducer::new(&flat, comm, Arc::new(Host::new(wire)), true, &Trace::default()).unwrap();
    let mut reduced = None;
    for _ in 0..steps {
        reducer.zero();
        for round in 0..batches / size {
            if round + 1 == batches / size {
                reducer.arm();
            }
            loss(&store, round * size + rank).backward();
        }
        reduced = Some(reducer.wait().unwrap());
    }
    (Vec::try_from(&flat.gradients).unwrap(), reduced.unwrap())
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0f32, |most, value| most.max(value.abs()));
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * largest, "{a} for {b}");
    }
}

#[test]
fn ranks_sum_what_one_rank_accumulates() {
    let (alone, norm) = threads::run(1, |comm| step(comm, 4, Wire::F32, 1)).remove(0);
    let expected: f64 = alone.iter().map(|value| f64::from(*value).powi(2)).sum();
    assert!((norm.squared_norm - expected).abs() < 1e-9 * expected);
    for ranks in [2, 4] {
        let all = threads::run(ranks, |comm| step(comm, 4, Wire::F32, 2));
        for (gradients, reduced) in &all {
            assert_close(gradients, &alone, 1e-6);
            assert_eq!(gradients, &all[0].0, "ranks differ");
            assert_eq!(reduced.squared_norm.to_bits(), all[0].1.squared_norm.to_bits());
        }
    }
}

#[test]
fn the_same_step_twice_gives_the_same_bits() {
    let run = || threads::run(3, |comm| step(comm, 3, Wire::F32, 1).0);
    assert_eq!(run(), run());
}

#[test]
fn bf16_on_the_wire_stays_within_its_precision_and_equal_on_all_ranks() {
    for ranks in [2, 3, 5] {
        let exact = threads::run(ranks, |comm| step(comm, ranks, Wire::F32, 1).0).remove(0);
        let all = threads::run(ranks, |comm| step(comm, ranks, Wire::Bf16, 1).0);
        assert_close(&all[0], &exact, 1.0 / 64.0);
        assert_ne!(all[0], exact);
        assert!(all.iter().all(|gradients| *gradients == all[0]), "ranks differ");
    }
}

#[test]
fn a_rank_without_a_backward_counts_as_zero() {
    let gradients = threads::run(2, |comm| {
        let store = store();
        let flat = Flat::new(&store, 4 * 600);
        let rank = comm.rank();
        let mut reducer = Reducer::new(&flat, comm, Arc::new(Host::new(Wire::F32)), true, &Trace::default()).unwrap();
        for batch in 0..2 {
            reducer.zero();
            if rank == batch {
                reducer.arm();
                loss(&store, 0).backward();
            }
            reducer.wait().unwrap();
        }
        Vec::<f32>::try_from(&flat.gradients).unwrap()
    });
    let (alone, _) = threads::run(1, |comm| step(comm, 1, Wire::F32, 1)).remove(0);
    assert_eq!(gradients, [alone.clone(), alone]);
}

#[test]
fn a_non_finite_gradient_shows_in_the_norm_of_every_rank() {
    let norms = threads::run(2, |comm| {
        let store = store();
        let flat = Flat::new(&store, 4 * 600);
        let rank = comm.rank();
        let mut reducer = Reducer::new(&flat, comm, Arc::new(Host::new(Wire::F32)), true, &Trace::default()).unwrap();
        reducer.zero();
        reducer.arm();
        (loss(&store, 0) * if rank == 1 { f64::NAN } else { 1.0 }).backward();
        reducer.wait().unwrap().squared_norm
    });
    assert!(norms.iter().all(|norm| norm.is_nan()));
}
