//! What a user reads after a mistake: code 2 and one line that names the key or file, the cause, and what to do.

use crate::common::{events, run, samples, segdist, tiny};
use std::fs;

/// The one line that `segdist ARGUMENTS` refuses with.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let ended = run(segdist().args(arguments), 60);
    assert_eq!(ended.code, 2, "{}", ended.all());
    let short: String = ended.stderr.chars().take(400).collect();
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {short}");
    assert!(ended.stderr.len() <= 300, "at most 300 bytes: {short}");
    ended.stderr
}

#[test]
fn a_mistake_is_answered_with_what_was_probably_meant() {
    for (arguments, words) in [
        (&["TRAIN.lr", "0.1"][..], &["unknown key TRAIN.lr;", "TRAIN.lr_encoder or TRAIN.lr_decoder"][..]),
        (&["TRIAN.seed", "1"], &["TRIAN.seed", "nearest known key is TRAIN.seed"]),
        (&["MODEL.imgSizes", "(300,)"], &["nearest known key is DATASET.imgSizes"]),
        (&["TRAIN.num_epoch", "ten"], &["TRAIN.num_epoch: ten is not a whole number"]),
        (&["TRAIN.num_epoch", "1.5"], &["TRAIN.num_epoch: 1.5 is not a whole number"]),
        (&["TRAIN.lr_encoder", "fast"], &["TRAIN.lr_encoder: fast is not a number"]),
        (&["TRAIN.fix_bn", "maybe"], &["TRAIN.fix_bn: maybe is not True or False"]),
        (&["TRAIN.optim", "Adam"], &["TRAIN.optim: Adam is not one of SGD, AdamW"]),
        (&["DATASET.imgSizes", "large"], &["DATASET.imgSizes: large is not a list of numbers"]),
    ] {
        let line = refused(&[&["config"], arguments].concat());
        words.iter().for_each(|word| assert!(line.contains(word), "no `{word}` in {line}"));
    }
}

#[test]
fn choices_are_understood_in_any_case() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.yaml");
    fs::write(&file, "TRAIN:\n  optim: adamw\nVAL:\n  iou: Present\n").unwrap();
    let ended = run(segdist().args(["config", "--cfg"]).arg(&file).arg("TRAIN.loss_norm=PER_RANK"), 20).ok();
    for line in ["optim: AdamW", "iou: present", "loss_norm: per_rank"] {
        assert!(ended.stdout.contains(line), "{}", ended.stdout);
    }
}

#[test]
fn a_file_that_is_wrong_as_a_whole_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.yaml");
    let with = |text: &str| {
        fs::write(&file, text).unwrap();
        let line = refused(&["config", "--cfg", file.to_str().unwrap()]);
        assert!(line.contains("run.yaml"), "{line}");
        line
    };
    assert!(with("TRAIN:\n\tseed: 1\n").contains("line 2 begins with a tab"));
    assert!(with("TRIAN:\n  seed: 1\n").contains("unknown key TRIAN in"));
    assert!(with(&"[".repeat(100_000)).contains("nested"));
    assert!(with(&"- ".repeat(100_000)).contains("nested"));
    assert!(with(&"a: 1\n".repeat(300_000)).contains("bytes"));
}

#[test]
fn values_that_no_machine_can_compute_with_are_refused() {
    let nested = format!("DATASET.imgSizes={}", "[".repeat(100_000));
    for (arguments, word) in [
        (&["config", "DATASET.imgSizes", "4294967295"][..], "DATASET.imgSizes"),
        (&["config", "DATASET.imgMaxSize", "4294967295"], "DATASET.imgMaxSize"),
        (&["config", "DATASET.padding_constant", "4294967288"], "DATASET.padding_constant"),
        (&["config", "DATASET.scale_jitter", "(1, 1e9)"], "DATASET.scale_jitter"),
        (&["config", "DATASET.scale_jitter", "(1e-300, 1)"], "DATASET.scale_jitter"),
        (&["config", "DATASET.crop", "4294967288"], "DATASET.crop"),
        (&["config", "TRAIN.batch_size_per_gpu", "1000000000000"], "TRAIN.batch_size_per_gpu"),
        (&["config", "TRAIN.global_batch", "18446744073709551615"], "TRAIN.global_batch"),
        (&["config", "CHECKPOINT.every_minutes", "-1"], "CHECKPOINT.every_minutes"),
        (&["config", &nested], "DATASET.imgSizes"),
        (&["plan", "--ranks", "1000000000"], "--ranks"),
    ] {
        let line = refused(arguments);
        assert!(line.contains(word), "no `{word}` in {line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let list = samples(folder.path(), &[(48, 32)], 4, 1);
    let (list, out) = (list.to_str().unwrap().to_owned(), format!("{root}/set"));
    let pack = ["pack", "--odgt", &list, "--root", root, "--out", &out, "--threads", "100000"];
    assert!(refused(&pack).contains("--threads"));
}

#[test]
fn without_a_validation_list_one_trains_without_evaluation_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (root, dir) = (folder.path().join("data"), folder.path().join("run"));
    samples(&root, &[(48, 32), (32, 48)], 4, 1);
    let mut arguments = tiny(&root, &dir, 2);
    arguments.push("DATASET.list_val=".into());
    for _ in 0..2 {
        let ended = run(segdist().args(&arguments), 120).ok();
        assert!(ended.stdout.contains("no validation"), "{}", ended.all());
    }
    assert_eq!([events(&dir, "eval").len(), events(&dir, "finished").len(), events(&dir, "train").len()], [0, 1, 2]);
    let arguments: Vec<&str> = ["eval"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    assert!(refused(&arguments).contains("DATASET.list_val is empty"));
}

#[test]
fn a_name_gives_a_terminal_no_orders() {
    let ended = run(segdist().args(["verify", "no\u{1b}[31m/such\u{7}"]), 20);
    assert_eq!(ended.code, 2, "{}", ended.all());
    assert!(!ended.stderr.contains(['\u{1b}', '\u{7}']) && ended.stderr.contains("\\u{1b}[31m"), "{}", ended.stderr);
}
