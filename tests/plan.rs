//! The plan of an order: figures from their definition, and degenerate lists.

use proptest::prelude::*;
use segdist::data::{DatasetConfig, SizePer};
use segdist::plan::plan;
use segdist::schedule::TrainConfig;

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
