//! Memory: what a step takes is said before, and where there is too little, one line says what to lower.

use crate::common::{Ended, run, samples, segdist, tiny};
use std::path::Path;
use std::process::Command;

/// `segdist` that can have a gigabyte of addresses and no more.
fn small(arguments: &[String]) -> Ended {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 1000000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_segdist")]).args(arguments);
    run(command.env("OMP_NUM_THREADS", "1").env("RUST_BACKTRACE", "1"), 120)
}

fn with(verb: &[&str], folder: &Path, more: &[&str]) -> Vec<String> {
    let keys = tiny(&folder.join("data"), &folder.join("run"), 1);
    let words = verb.iter().chain(more).map(ToString::to_string);
    words
        .chain(keys.into_iter().filter(|key| !more.iter().any(|own| own.split('=').next() == key.split('=').next())))
        .collect()
}

#[test]
fn too_little_memory_is_one_line_with_what_was_asked_for_and_what_to_lower() {
    let folder = tempfile::tempdir().unwrap();
    samples(&folder.path().join("data"), &[(48, 32), (32, 48)], 4, 1);
    run(segdist().args(with(&["train"], folder.path(), &[])), 120).ok();
    let large = ["DATASET.imgSizes=(600,)", "DATASET.imgMaxSize=800", "TRAIN.batch_size_per_gpu=16"];
    let other = folder.path().join("other");
    let dir = format!("DIR={}", other.display());
    let training = ["TRAIN.batch_size_per_gpu", "imgSizes", "TRAIN.amp"];
    for (arguments, keys) in [
        (with(&["bench", "step"], folder.path(), &large), training),
        (with(&["train"], folder.path(), &[&large[..], &[dir.as_str()]].concat()), training),
        (
            with(&["eval"], folder.path(), &["DATASET.imgSizes=(3000,)", "DATASET.imgMaxSize=4000"]),
            ["VAL.window", "imgSizes", "imgMaxSize"],
        ),
    ] {
        let ended = small(&arguments);
        let [line] = ended.errors()[..] else { panic!("{}", ended.all()) };
        assert!(ended.code == 2 && line.len() <= 300, "{}", ended.all());
        assert!(line.contains("the host has too little memory"), "{line}");
        assert!(keys.iter().all(|key| line.contains(key)), "{line}");
        assert!(!ended.stderr.contains("frame #") && !ended.stderr.contains("panicked"), "{}", ended.all());
    }
}

#[test]
fn a_step_takes_about_what_is_said_before_it() {
    let folder = tempfile::tempdir().unwrap();
    samples(&folder.path().join("data"), &[(48, 32), (32, 48)], 4, 1);
    let said = run(segdist().args(with(&["train"], folder.path(), &[])), 120).ok();
    assert!(said.stdout.contains("memory") && said.stdout.contains("for a step of 2 x"), "{}", said.stdout);
    for pair in [["resnet18dilated", "c1_deepsup"], ["mobilenetv2dilated", "ppm"]] {
        let [encoder, decoder] = [format!("MODEL.arch_encoder={}", pair[0]), format!("MODEL.arch_decoder={}", pair[1])];
        let size = ["DATASET.imgSizes=(160,)", "DATASET.imgMaxSize=200", &encoder, &decoder];
        let ended = run(segdist().args(with(&["bench", "step", "--json"], folder.path(), &size)), 120).ok();
        let row: serde_json::Value = serde_json::from_str(ended.stdout.trim()).unwrap();
        let [said, taken] = ["estimated_mb", "peak_rss_mb"].map(|key| row[key].as_f64().unwrap());
        assert!((0.65..1.4).contains(&(said / taken)), "{pair:?}: {said} MB were said, {taken} taken");
    }
}
