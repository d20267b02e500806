//! The order of samples: complete, equal for every number of ranks, direct to any step, and balanced.

use proptest::prelude::*;
use segdist::data::order::{Order, OrderSpec};
use segdist::data::resize::{round_up, target_size};
use segdist::data::{OrderKind, SizePer};
use std::collections::BTreeSet;

fn spec(kind: OrderKind, global_batch: usize, micro_batch: usize, seed: u64) -> OrderSpec {
    OrderSpec {
        kind,
        size_per: SizePer::Step,
        seed,
        global_batch,
        micro_batch,
        short_edges: vec![300, 375, 450, 525, 600],
        max_size: 1000,
    }
}

fn samples(order: &Order, step: u64) -> Vec<u32> {
    order.step(step).micro_batches.into_iter().flat_map(|m| m.samples).collect()
}

/// Sizes spread like a photo collection's: mostly 4:3 and 3:2, a fifth of them upright, a tail of panoramas.
fn photos(n: u32) -> Vec<(u32, u32)> {
    (0..n)
        .map(|i| {
            let long = match i % 10 {
                0..=4 => 683,
                5..=7 => 768 + i % 7,
                8 => 520 + 37 * (i % 13),
                _ => 600 + 61 * (i % 17),
            };
            if i % 5 == 3 { (512, long) } else { (long, 512) }
        })
        .collect()
}

/// Pixel balance and padding share, from their definition: rank k of R runs micro-batch r·R + k in round r.
fn balance(sizes: &[(u32, u32)], order: &Order, ranks: usize, steps: u64) -> (f64, f64) {
    let (mut mean, mut largest, mut padded, mut covered) = (0.0, 0.0, 0u64, 0u64);
    for step in 0..steps {
        let mut pixels = vec![0u64; ranks];
        for (i, micro) in order.step(step).micro_batches.iter().enumerate() {
            let targets: Vec<(u32, u32)> =
                micro.samples.iter().map(|&s| target_size(sizes[s as usize], micro.short_edge, 1000)).collect();
            let width = round_up(targets.iter().map(|t| t.0).max().unwrap(), 8);
            let height = round_up(targets.iter().map(|t| t.1).max().unwrap(), 8);
            pixels[i % ranks] += targets.len() as u64 * u64::from(width) * u64::from(height);
            covered += targets.iter().map(|&(w, h)| u64::from(w) * u64::from(h)).sum::<u64>();
        }
        padded += pixels.iter().sum::<u64>();
        mean += pixels.iter().sum::<u64>() as f64 / ranks as f64;
        largest += *pixels.iter().max().unwrap() as f64;
    }
    (mean / largest, (padded - covered) as f64 / padded as f64)
}

#[test]
fn ranks_of_a_step_get_nearly_the_same_pixels_and_little_padding() {
    let sizes = photos(8000);
    for (ranks, least) in [(8, 0.97), (64, 0.96)] {
        let order = Order::new(&sizes, spec(OrderKind::Balanced, 2 * ranks, 2, 304));
        let (balance, padding) = balance(&sizes, &order, ranks, order.steps_per_pass());
        assert!(balance >= least, "{ranks} ranks: balance {balance}");
        assert!(padding <= 0.02, "{ranks} ranks: padding {padding}");
    }
}

#[test]
fn balanced_beats_shuffled() {
    let sizes = photos(2000);
    let of = |kind| balance(&sizes, &Order::new(&sizes, spec(kind, 16, 2, 1)), 8, 125);
    let (balanced, shuffled) = (of(OrderKind::Balanced), of(OrderKind::Shuffled));
    assert!(balanced.0 > shuffled.0 + 0.1 && balanced.1 < shuffled.1, "{balanced:?} {shuffled:?}");
}

#[test]
fn shuffled_mixes_orientations_only_at_the_end_of_a_pass() {
    let sizes = photos(1000);
    let order = Order::new(&sizes, spec(OrderKind::Shuffled, 16, 2, 5));
    let upright = |s: &u32| sizes[*s as usize].1 > sizes[*s as usize].0;
    for step in 0..order.steps_per_pass() - 3 {
        let of_step = samples(&order, step);
        assert!(of_step.iter().all(upright) || !of_step.iter().any(upright), "step {step}");
    }
}

#[test]
fn a_short_list_repeats_and_an_empty_one_has_empty_steps() {
    let order = Order::new(&photos(3), spec(OrderKind::Balanced, 8, 2, 7));
    assert_eq!(order.steps_per_pass(), 1);
    for step in 0..4 {
        let of_step = samples(&order, step);
        assert_eq!(of_step.len(), 8);
        assert_eq!(order.step(step).pass, step);
        for sample in 0..3 {
            assert!((2..=3).contains(&of_step.iter().filter(|&&s| s == sample).count()));
        }
    }
    assert!(Order::new(&[], spec(OrderKind::Balanced, 8, 2, 7)).step(5).micro_batches.is_empty());
}

#[test]
fn left_over_samples_differ_from_pass_to_pass() {
    let order = Order::new(&photos(100), spec(OrderKind::Balanced, 48, 2, 9));
    let of_pass = |pass: u64| (0..2).flat_map(|s| samples(&order, pass * 2 + s)).collect::<BTreeSet<u32>>();
    let seen: BTreeSet<u32> = (0..20).flat_map(of_pass).collect();
    assert_eq!(seen.len(), 100);
    assert_ne!(of_pass(0), of_pass(1));
}

#[test]
fn every_short_edge_is_drawn_for_steps_or_for_ranks() {
    let sizes = photos(400);
    for size_per in [SizePer::Step, SizePer::Rank] {
        let order = Order::new(&sizes, OrderSpec { size_per, ..spec(OrderKind::Balanced, 8, 2, 3) });
        let mut drawn = BTreeSet::new();
        let mut mixed = false;
        for step in 0..50 {
            let edges: BTreeSet<u32> = order.step(step).micro_batches.iter().map(|m| m.short_edge).collect();
            mixed |= edges.len() > 1;
            drawn.extend(edges);
        }
        assert_eq!(drawn.len(), 5);
        assert_eq!(mixed, size_per == SizePer::Rank);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_sample_comes_twice_in_a_pass(
        n in 1u32..400, global in 1usize..70, micro in 1usize..20, seed: u64, shuffled: bool, one_shape: bool,
    ) {
        let sizes = if one_shape { vec![(640, 480); n as usize] } else { photos(n) };
        let kind = if shuffled { OrderKind::Shuffled } else { OrderKind::Balanced };
        let order = Order::new(&sizes, spec(kind, global, micro, seed));
        prop_assert_eq!(order.steps_per_pass(), u64::from(n / global as u32).max(1));
        for pass in 0..2 {
            let mut seen = BTreeSet::new();
            for s in 0..order.steps_per_pass() {
                let step = order.step(pass * order.steps_per_pass() + s);
                prop_assert_eq!(step.pass, pass);
                let mut first = 0;
                for m in &step.micro_batches {
                    prop_assert_eq!(m.first, first);
                    prop_assert!(m.samples.len() == micro || first + m.samples.len() == global);
                    first += m.samples.len();
                    for &sample in &m.samples {
                        prop_assert!(sample < n);
                        prop_assert!(seen.insert(sample) || (n as usize) < global);
                    }
                }
                prop_assert_eq!(first, global);
            }
        }
    }

    #[test]
    fn a_step_is_the_same_for_any_micro_batch(
        n in 1u32..300, ranks in 1usize..9, micro in 1usize..6, seed: u64, step in 0u64..1000,
    ) {
        let sizes = photos(n);
        let global = ranks * micro;
        let whole = Order::new(&sizes, spec(OrderKind::Balanced, global, global, seed));
        let parts = Order::new(&sizes, spec(OrderKind::Balanced, global, micro, seed));
        prop_assert_eq!(samples(&whole, step), samples(&parts, step));
        prop_assert_eq!(whole.step(step).micro_batches[0].short_edge, parts.step(step).micro_batches[0].short_edge);
    }

    #[test]
    fn a_step_does_not_depend_on_what_was_asked_before(
        n in 1u32..300, global in 1usize..20, seed: u64, steps in proptest::collection::vec(0u64..200, 1..10),
    ) {
        let sizes = photos(n);
        let used = Order::new(&sizes, spec(OrderKind::Balanced, global, 2, seed));
        for step in steps {
            let fresh = Order::new(&sizes, spec(OrderKind::Balanced, global, 2, seed));
            prop_assert_eq!(used.step(step), fresh.step(step));
        }
    }
}
