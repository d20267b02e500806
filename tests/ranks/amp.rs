//! Mixed precision: fp16 learns what f32 learns, and its loss scale follows overflows alike on all ranks and after a kill.

use crate::common::jobs::{Job, tensors, wait_for, wait_for_step};
use crate::common::{events, losses, ranks, run, samples, tiny};
use std::path::{Path, PathBuf};

fn train(count: usize, folder: &Path, name: &str, steps: u64, more: &[&str]) -> PathBuf {
    let dir = folder.join(name);
    run(ranks(count).args(arguments(folder, &dir, steps, more)), 300).ok();
    dir
}

fn arguments(folder: &Path, dir: &Path, steps: u64, more: &[&str]) -> Vec<String> {
    let mut all = tiny(&folder.join("data"), dir, steps);
    all.extend(["TRAIN.lr_encoder=1e-3", "TRAIN.lr_decoder=1e-3"].map(String::from));
    all.extend(more.iter().map(|text| text.to_string()));
    all
}

fn data(folder: &Path) {
    samples(&folder.join("data"), &[(48, 32), (32, 48), (40, 40), (64, 40)], 4, 1);
}

/// The loss scale and its good steps that a checkpoint holds.
fn scale(run: &Path, step: u64) -> (f64, u64) {
    let text = std::fs::read_to_string(run.join(format!("checkpoints/step-{step:08}/state.json"))).unwrap();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    (state["loss_scale"].as_f64().unwrap(), state["loss_scale_steps"].as_u64().unwrap())
}

#[test]
fn sixteen_bits_learn_what_thirty_two_learn() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let more = ["DATASET.imgSizes=(96,)", "DATASET.imgMaxSize=128", "TRAIN.loss_scale=1024"];
    let exact = losses(&train(1, folder.path(), "f32", 3, &more));
    for (amp, tolerance) in [("fp16", 1e-2), ("bf16", 5e-2)] {
        let setting = format!("TRAIN.amp={amp}");
        let more = [&more[..], &["TRAIN.batch_size_per_gpu=1", &setting]].concat();
        let ours = losses(&train(2, folder.path(), amp, 3, &more));
        assert!((ours[0] - exact[0]).abs() < tolerance * exact[0], "{amp}: {ours:?} for {exact:?}");
        assert!((ours[2] - exact[2]).abs() < 0.1 * exact[2], "{amp}: {ours:?} for {exact:?}");
    }
}

#[test]
fn an_overflow_skips_the_step_on_all_ranks_and_halves_the_scale() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let more = ["TRAIN.amp=fp16", "TRAIN.loss_scale=2097152", "DIST.check_replicas=1"];
    let run = train(2, folder.path(), "run", 12, &more);
    let skipped = events(&run, "skipped").len() as i32;
    assert!((1..12).contains(&skipped), "{skipped} skipped");
    let (value, good) = scale(&run, 12);
    assert_eq!(value, 2f64.powi(21 - skipped));
    assert!(good > 0 && losses(&run).iter().all(|loss| loss.is_finite()));
}

#[test]
fn a_killed_run_goes_on_with_its_loss_scale_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let more = ["TRAIN.amp=fp16", "TRAIN.loss_scale=2097152", "CHECKPOINT.every_steps=4", "CHECKPOINT.keep_last=99"];
    let whole = train(2, folder.path(), "whole", 12, &more);
    let broken = folder.path().join("broken");
    let job = Job::start(ranks(2).args(arguments(folder.path(), &broken, 12, &more)));
    wait_for("the checkpoint", 120, || broken.join("checkpoints/step-00000004").exists().then_some(()));
    wait_for_step(&broken, 5);
    job.kill_all();
    drop(job);
    train(2, folder.path(), "broken", 12, &more);
    assert_eq!(losses(&broken), losses(&whole));
    assert_eq!(scale(&broken, 12), scale(&whole, 12));
    assert!(tensors(&broken, 12) == tensors(&whole, 12));
}

#[test]
fn a_loss_that_no_scale_mends_ends_the_run_with_the_rank_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let dir = folder.path().join("run");
    let more = ["TRAIN.amp=fp16", "TRAIN.loss_scale=4", "TRAIN.lr_encoder=1e30", "TRAIN.lr_decoder=1e30"];
    let ended = run(ranks(2).args(arguments(folder.path(), &dir, 12, &more)), 120);
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(ended.errors()[0].contains("is not finite"), "{}", ended.all());
    assert_eq!(events(&dir, "skipped").len(), 2, "4, 2, 1: {}", ended.all());
}
