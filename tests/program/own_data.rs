//! One's own data: every kind of folder goes through init, pack, verify, training, evaluation and prediction.

use crate::cases::{self, Case};
use crate::common::{Ended, run, segdist};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A network and sizes that take seconds.
const SMALL: [&str; 8] = [
    "DATASET.imgSizes=(32,)",
    "DATASET.imgMaxSize=64",
    "DATASET.crop=32",
    "TRAIN.global_batch=2",
    "TRAIN.batch_size_per_gpu=2",
    "TRAIN.num_epoch=1",
    "TRAIN.epoch_iters=10",
    "VAL.every_epochs=1",
];

fn program(words: &[&str]) -> Ended {
    run(segdist().args(words), 240)
}

fn json(ended: Ended) -> Value {
    serde_json::from_str(&ended.ok().stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Says what the case is, packs it by its own label map and by the one that init wrote, and checks every byte. Returns
/// the configuration that init wrote.
fn is_packed(case: &Case) -> PathBuf {
    let config = case.folder.join("made/data.yaml");
    let mut words = vec!["init", "--json", "--out", text(&config)];
    words.extend(case.input.iter().map(String::as_str));
    let made = json(program(&words));
    assert_eq!(made["images"], case.images, "{}: {made}", case.name);
    assert!(made["classes"].as_array().unwrap().len() >= 3, "{}: {made}", case.name);

    // By the label map that belongs to the case, and by the one that init wrote: the same pixels, class by class.
    let shards = case.folder.join("shards");
    let mut words = vec!["pack", "--json", "--out", text(&shards)];
    words.extend(case.input.iter().chain(&case.pack).map(String::as_str));
    let packed = json(program(&words));
    assert_eq!(packed["classes"], serde_json::json!(case.classes), "{}: {packed}", case.name);
    assert_eq!((&packed["images"], &packed["ignored"]), (&case.images.into(), &0.into()), "{}", case.name);
    program(&["verify", text(&shards)]).ok();
    if !case.input.iter().any(|word| word == "--coco") {
        let map = case.folder.join("made/data-labels.yaml");
        let again = case.folder.join("again");
        let mut words = vec!["pack", "--json", "--out", text(&again), "--label-map", text(&map)];
        words.extend(case.input.iter().map(String::as_str));
        assert_eq!(json(program(&words))["classes"], packed["classes"], "{}", case.name);
    }

    config
}

/// Trains, evaluates and predicts on the files, as they are.
fn is_learnt(case: &Case, config: &Path) {
    let with = |verb: &[&str]| {
        let words: Vec<&str> = verb.iter().copied().chain(["--cfg", text(config)]).chain(SMALL).collect();
        program(&words)
    };
    with(&["train"]).ok();
    let evaluated = json(with(&["eval", "--json"]));
    assert!(evaluated["mean_iou"].as_f64().unwrap() >= 0.0, "{}: {evaluated}", case.name);
    let out = case.folder.join("out");
    let images = case.folder.join("images");
    with(&["predict", text(&images), "--out", text(&out)]).ok();
    let label_maps = fs::read_dir(&out)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".label.png"));
    assert_eq!(label_maps.count(), case.images, "{}", case.name);
}

#[test]
fn every_kind_of_folder_goes_all_the_way() {
    let dir = tempfile::tempdir().unwrap();
    for case in cases::all(dir.path(), 1) {
        let config = is_packed(&case);
        is_learnt(&case, &config);
    }
    // Other sizes and pixels.
    for seed in [4, 7] {
        cases::all(dir.path(), seed).iter().for_each(|case| _ = is_packed(case));
    }
}

#[test]
fn what_cannot_be_taken_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let refused = |words: &[&str], expected: &[&str]| {
        let ended = program(words);
        let error = ended.errors().join("\n");
        assert_eq!(ended.code, 2, "{}", ended.all());
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    };
    let (images, labels, out) = (root.join("images"), root.join("labels"), root.join("out"));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&labels).unwrap();
    (0..3).for_each(|number| fs::write(images.join(format!("{number}.heic")), b"x").unwrap());
    let pack = ["pack", "--images", text(&images), "--labels", text(&labels), "--out", text(&out)];
    refused(&pack, &["3 .heic files", ".jpg"]);

    let rgb = [200u8, 0, 0, 199, 1, 0];
    let write = |path: &Path| cases::png(path, (2, 1), png::ColorType::Rgb, png::BitDepth::Eight, &rgb);
    write(&images.join("a.png"));
    write(&labels.join("a.png"));
    refused(&pack, &["labels/a.png", "#c80000", "label map"]);
    let map = root.join("map.yaml");
    fs::write(&map, "\"#c80000\": 0\n").unwrap();
    let with_map = [&pack[..], &["--label-map", text(&map)]].concat();
    refused(&with_map, &["labels/a.png", "#c70100 (1 pixels", "nearest #c80000"]);
    let packed = json(program(&[&with_map[..], &["--nearest-color", "3", "--json"]].concat()));
    assert_eq!(packed["classes"], serde_json::json!([2]));
    let again = ["init", "--images", text(&images), "--labels", text(&labels), "--out", text(&map)];
    refused(&again, &["map.yaml: is there already", "--force"]);
}
