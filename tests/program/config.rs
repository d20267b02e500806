//! The configuration as a user meets it: precedence, yacs' habits, and errors that name the key.

use crate::common::{run, segdist};
use std::fs;

fn resolved(arguments: &[&str]) -> serde_yaml::Value {
    let ended = run(segdist().arg("config").args(arguments), 20).ok();
    serde_yaml::from_str(&ended.stdout).expect("config prints YAML")
}

fn refused(arguments: &[&str]) -> String {
    let ended = run(segdist().arg("config").args(arguments), 20);
    assert_eq!(ended.code, 2, "{}", ended.all());
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {}", ended.all());
    assert_eq!(ended.stdout, "");
    ended.stderr
}

#[test]
fn defaults_are_the_references() {
    let config = resolved(&[]);
    assert_eq!(config["TRAIN"]["lr_encoder"], serde_yaml::Value::from(0.02));
    assert_eq!(
        config["DATASET"]["imgSizes"],
        serde_yaml::from_str::<serde_yaml::Value>("[300, 375, 450, 525, 600]").unwrap()
    );
    assert_eq!(config["MODEL"]["arch_encoder"], serde_yaml::Value::from("resnet50dilated"));
}

#[test]
fn the_file_comes_over_the_defaults_and_the_command_line_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.yaml");
    fs::write(&file, "TRAIN:\n  num_epoch: 3\n  lr_encoder: 1e-3\n  fix_bn: True\nDATASET:\n  imgSizes: (96, 128)\n")
        .unwrap();
    let file = file.to_str().unwrap();
    let config =
        resolved(&["--cfg", file, "TRAIN.num_epoch", "7", "DATASET.imgMaxSize=200", "TRAIN.padding_label", "-1"]);
    assert_eq!(config["TRAIN"]["num_epoch"], serde_yaml::Value::from(7));
    assert_eq!(config["TRAIN"]["lr_encoder"], serde_yaml::Value::from(0.001));
    assert_eq!(config["TRAIN"]["fix_bn"], serde_yaml::Value::from(true));
    assert_eq!(config["TRAIN"]["epoch_iters"], serde_yaml::Value::from(5000));
    assert_eq!(config["DATASET"]["imgSizes"], serde_yaml::from_str::<serde_yaml::Value>("[96, 128]").unwrap());
    assert_eq!(config["DATASET"]["imgMaxSize"], serde_yaml::Value::from(200));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    assert!(refused(&["TRAIN.nmu_epoch", "3"]).contains("TRAIN.num_epoch"));
    assert!(refused(&["TRAIN.epochs=3"]).contains("unknown key TRAIN.epochs"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.yaml");
    fs::write(&file, "DATASET:\n  imgsizes: (96, 128)\n").unwrap();
    let message = refused(&["--cfg", file.to_str().unwrap()]);
    assert!(message.contains("DATASET.imgSizes") && message.contains("run.yaml"), "{message}");
}

#[test]
fn a_malformed_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.yaml");
    for text in ["TRAIN: [1, 2\n", "- 1\n- 2\n", "just words", "", "TRAIN:\n  seed: {a: 1}\n", "\u{0}"] {
        fs::write(&file, text).unwrap();
        assert!(refused(&["--cfg", file.to_str().unwrap()]).contains("run.yaml"), "{text}");
    }
    assert!(refused(&["--cfg", "no/such.yaml"]).contains("no/such.yaml"));
}

#[test]
fn a_value_of_the_wrong_type_names_its_key() {
    assert!(refused(&["TRAIN.num_epoch", "many"]).contains("TRAIN.num_epoch"));
    assert!(refused(&["TRAIN.num_epoch", "-3"]).contains("TRAIN.num_epoch"));
    assert!(refused(&["TRAIN.optim", "Adam"]).contains("TRAIN.optim"));
    assert!(refused(&["DATASET.imgSizes", "(1, 'a')"]).contains("DATASET.imgSizes"));
    assert!(refused(&["TRAIN.seed"]).contains("TRAIN.seed"));
}

#[test]
fn values_that_do_not_go_together_are_refused_with_what_to_set() {
    let message = refused(&["DATASET.segm_downsampling_rate", "4"]);
    assert!(message.contains("DATASET.segm_downsampling_rate") && message.contains("set it to 8"), "{message}");
    assert!(refused(&["MODEL.arch_encoder", "resnet52dilated"]).contains("resnet50dilated"));
    assert!(refused(&["MODEL.arch_decoder", "pmm"]).contains("ppm"));
    assert!(refused(&["DATASET.num_class", "0"]).contains("DATASET.num_class"));
    assert!(refused(&["TRAIN.batch_size_per_gpu", "0"]).contains("TRAIN.batch_size_per_gpu"));
}

#[test]
fn every_key_is_listed_with_default_and_meaning() {
    let ended = run(segdist().args(["config", "--keys"]), 20).ok();
    assert!(ended.stdout.contains("TRAIN.num_epoch = 20"));
    assert!(ended.stdout.contains("CHECKPOINT.keep_last = 3"));
}

#[test]
fn wrong_usage_ends_with_code_2() {
    for arguments in [&["no-such-verb"][..], &["--no-such-flag"], &["eval", "--nope"], &[]] {
        assert_eq!(run(segdist().args(arguments), 20).code, 2, "{arguments:?}");
    }
    assert_eq!(run(segdist().arg("--help"), 20).code, 0);
    assert_eq!(run(segdist().arg("--version"), 20).code, 0);
}
