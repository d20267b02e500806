//! The plan of an order: figures from their definition, and degenerate lists.

use proptest::prelude::*;
use segdist::data::dataset::Dataset;
use segdist::data::order::{Order, OrderSpec};
use segdist::data::{DatasetConfig, SizePer};
use segdist::plan::plan;
use segdist::train::TrainConfig;

fn train(images: usize) -> TrainConfig {
    TrainConfig { batch_size_per_gpu: images, ..TrainConfig::default() }
}

#[test]
fn one_shape_is_perfectly_balanced_and_its_padding_is_the_rounding() {
    let dataset = DatasetConfig { imgSizes: vec![300], ..DatasetConfig::default() };
    let plan = plan(&vec![(401, 300); 100], &dataset, &train(2), 4);
    assert_eq!((plan.steps_per_pass, plan.steps, plan.global_batch), (12, 300, 8));
    assert_eq!(plan.pixel_balance, 1.0);
    let covered = 401.0 * 300.0 / (408.0 * 304.0);
    assert!((plan.padding_share - (1.0 - covered)).abs() < 1e-12);
    let largest = plan.largest_batch;
    assert_eq!((largest.images, largest.width, largest.height), (2, 408, 304));
    assert_eq!(largest.bytes, 2 * 408 * 304 * 12 + 2 * 51 * 38 * 8);
    assert_eq!(plan.idle_by_rank, [0.0; 4]);
}

#[test]
fn a_rank_without_a_micro_batch_waits_all_the_time() {
    let dataset = DatasetConfig { imgSizes: vec![300], ..DatasetConfig::default() };
    let plan = plan(&[(400, 300); 9], &dataset, &TrainConfig { global_batch: 3, ..train(1) }, 4);
    assert_eq!(plan.idle_by_rank, [0.0, 0.0, 0.0, 1.0]);
    assert_eq!(plan.pixel_balance, 0.75);
}

#[test]
fn one_size_per_step_balances_better_than_one_per_rank() {
    let sizes: Vec<(u32, u32)> = (0..500).map(|i| (500 + i % 40, 400)).collect();
    let of = |size_per| plan(&sizes, &DatasetConfig { size_per, ..DatasetConfig::default() }, &train(2), 8);
    assert!(of(SizePer::Step).pixel_balance > of(SizePer::Rank).pixel_balance + 0.2);
}

/// As many sizes as ADE20K's training list has, spread like a photo collection's: half of them 4:3, the others up to
/// 1.9:1, a quarter upright. Fixed for ever: Knuth's linear congruential generator.
fn photos() -> Vec<(u32, u32)> {
    let mut state = 304u64;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % limit) as u32
    };
    let mut photo = || {
        let long = if below(2) == 0 { 683 } else { 512 + below(460) };
        if below(4) == 0 { (512, long) } else { (long, 512) }
    };
    (0..20_210).map(|_| photo()).collect()
}

/// ADE20K's own sizes, where its list lies beside the repository.
fn official() -> Option<Vec<(u32, u32)>> {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/ade20k-lists/training.odgt.gz");
    match Dataset::open(&DatasetConfig::default(), list) {
        Ok(source) => Some(source.sizes().to_vec()),
        Err(error) => {
            println!("not compared with ADE20K's list: {error}");
            None
        }
    }
}

/// Pixel balance and padding share by their definition, over `steps` steps of two images a rank.
fn by_definition(sizes: &[(u32, u32)], ranks: usize, steps: u64) -> (f64, f64) {
    let order = Order::new(sizes, OrderSpec::new(&DatasetConfig::default(), train(2).seed, 2 * ranks, 2));
    let (mut mean, mut largest, mut images, mut all) = (0.0, 0.0, 0.0, 0.0);
    for step in (0..steps).map(|step| order.step(step)) {
        assert_eq!(step.micro_batches.len(), ranks);
        let mut most = 0.0f64;
        for micro in &step.micro_batches {
            let (mut width, mut height) = (0, 0);
            for &sample in &micro.samples {
                let (w, h) = sizes[sample as usize];
                let scale = (f64::from(micro.short_edge) / f64::from(w.min(h))).min(1000.0 / f64::from(w.max(h)));
                let (w, h) = ((f64::from(w) * scale) as u64, (f64::from(h) * scale) as u64);
                images += (w * h) as f64;
                (width, height) = (w.next_multiple_of(8).max(width), h.next_multiple_of(8).max(height));
            }
            let pixels = (micro.samples.len() as u64 * width * height) as f64;
            mean += pixels / ranks as f64;
            all += pixels;
            most = most.max(pixels);
        }
        largest += most;
    }
    (mean / largest, 1.0 - images / all)
}

#[test]
fn figures_are_those_of_the_definition_and_good_on_8_and_on_1024_ranks() {
    for sizes in [Some(photos()), official()].into_iter().flatten() {
        for (ranks, least) in [(8, 0.97), (1024, 0.89)] {
            let plan = plan(&sizes, &DatasetConfig::default(), &train(2), ranks);
            let (balance, padding) = by_definition(&sizes, ranks, plan.steps);
            assert!((plan.pixel_balance - balance).abs() < 1e-9, "{} is not {balance}", plan.pixel_balance);
            assert!((plan.padding_share - padding).abs() < 1e-9, "{} is not {padding}", plan.padding_share);
            assert!(balance >= least, "{ranks} ranks: balance {balance}");
            assert!(padding <= 0.015, "{ranks} ranks: padding {padding}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn shares_are_shares_for_any_list(n in 0usize..60, ranks in 1usize..9, images in 0usize..4, wide in 1u32..5000) {
        let sizes: Vec<(u32, u32)> = (0..n as u32).map(|i| (1 + i * wide % 5000, 1 + i * 37 % 900)).collect();
        let plan = plan(&sizes, &DatasetConfig::default(), &train(images), ranks);
        prop_assert!(plan.steps >= 300 && plan.steps.is_multiple_of(plan.steps_per_pass));
        for share in [plan.pixel_balance, plan.padding_share].into_iter().chain(plan.idle_by_rank) {
            prop_assert!((0.0..=1.0).contains(&share));
        }
    }
}
