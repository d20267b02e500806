//! Bad input is one line that names the file or key, code 2 on every rank count, and nothing half-written.

use crate::common::{Ended, ranks, run, samples, segdist, tiny, write_png};
use std::fs;
use std::path::Path;

/// A folder with a good data set and the overrides that train on it.
struct Case {
    folder: tempfile::TempDir,
    overrides: Vec<String>,
}

impl Case {
    fn new() -> Case {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        samples(&root, &[(48, 32); 4], 4, 1);
        let overrides = tiny(&root, &folder.path().join("run"), 2);
        Case { folder, overrides }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn set(mut self, key: &str, value: impl std::fmt::Display) -> Case {
        self.overrides.push(format!("{key}={value}"));
        self
    }

    /// Trains on 1 and on 2 ranks; each must end with code 2 and one line that holds all of `words`.
    fn is_refused(&self, words: &[&str]) {
        for count in [1, 2] {
            let ended = run(ranks(count).args(&self.overrides), 60);
            assert_refused(&ended, words);
            assert!(!self.folder.path().join("run/checkpoints").exists(), "{}", ended.all());
        }
    }
}

fn assert_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, 2, "{}", ended.all());
    let errors = ended.errors();
    assert_eq!(errors.len(), 1, "one line: {}", ended.all());
    for word in words {
        assert!(errors[0].contains(word), "{word}: {}", ended.all());
    }
}

#[test]
fn a_configuration_file_that_is_missing_or_malformed() {
    let case = Case::new();
    let file = case.folder.path().join("run.yaml");
    for text in [None, Some("TRAIN: [1\n")] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        for count in [1, 2] {
            let ended = run(ranks(count).arg("--cfg").arg(&file), 60);
            assert_refused(&ended, &["run.yaml"]);
        }
    }
}

#[test]
fn a_key_or_a_network_that_does_not_exist() {
    Case::new().set("TRAIN.nmu_epoch", 3).is_refused(&["TRAIN.nmu_epoch", "TRAIN.num_epoch"]);
    Case::new().set("MODEL.arch_encoder", "resnet19dilated").is_refused(&["resnet19dilated", "resnet18dilated"]);
    Case::new().set("MODEL.arch_decoder", "c2").is_refused(&["c2", "c1"]);
}

#[test]
fn a_label_rate_that_is_not_the_networks() {
    Case::new().set("DATASET.segm_downsampling_rate", 4).is_refused(&["DATASET.segm_downsampling_rate", "8"]);
}

#[test]
fn no_initial_weights() {
    let words = ["MODEL.pretrained_dir", "MODEL.init"];
    Case::new().set("MODEL.init", "pretrained").is_refused(&words);
    Case::new().set("MODEL.weights_encoder", "no/such.pth").is_refused(&["no/such.pth"]);
}

#[test]
fn lists_and_folders_that_are_not_there_or_empty() {
    Case::new().set("DATASET.list_train", "no/such.odgt").is_refused(&["no/such.odgt"]);
    let case = Case::new();
    fs::write(case.data().join("list.odgt"), "").unwrap();
    case.is_refused(&["list.odgt"]);
    let case = Case::new();
    fs::write(case.data().join("list.odgt"), "{\"fpath_img\": 3}\n").unwrap();
    case.is_refused(&["list.odgt", "1"]);
}

#[test]
fn an_image_without_a_label() {
    let case = Case::new();
    let folder = |name: &str| case.data().join(name);
    fs::create_dir(folder("images")).unwrap();
    fs::create_dir(folder("labels")).unwrap();
    fs::copy(folder("0.png"), folder("images/lonely.png")).unwrap();
    let case = case.set("DATASET.list_train", "images:labels");
    case.is_refused(&["lonely"]);
}

#[test]
fn a_label_of_another_size_than_its_image() {
    let case = Case::new();
    for index in 0..4 {
        write_png(&case.data().join(format!("{index}_label.png")), 40, 32, png::ColorType::Grayscale, &[1; 40 * 32]);
    }
    case.is_refused(&["_label.png"]);
}

#[test]
fn a_label_value_above_the_classes() {
    let case = Case::new();
    for index in 0..4 {
        write_png(&case.data().join(format!("{index}_label.png")), 48, 32, png::ColorType::Grayscale, &[77; 48 * 32]);
    }
    case.is_refused(&["_label.png", "77"]);
}

#[test]
fn a_truncated_shard() {
    let case = Case::new();
    let shards = case.folder.path().join("shards");
    let pack = [
        "pack",
        "--odgt",
        case.data().join("list.odgt").to_str().unwrap(),
        "--root",
        case.data().to_str().unwrap(),
        "--out",
        shards.to_str().unwrap(),
    ]
    .map(str::to_owned);
    run(segdist().args(&pack), 60).ok();
    let shard = largest_file(&shards);
    let length = fs::metadata(&shard).unwrap().len();
    let case = case.set("DATASET.list_train", shards.display());
    for cut in [length - 1, length / 2, 10, 0] {
        make_writable(&shard);
        fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(cut).unwrap();
        case.is_refused(&[shard.file_name().unwrap().to_str().unwrap()]);
        assert_eq!(run(segdist().arg("verify").arg(&shards), 60).code, 2);
    }
}

#[test]
fn a_second_job_on_the_same_folder() {
    let case = Case::new().set("TRAIN.epoch_iters", 100_000);
    let mut first = segdist().args(&case.overrides).stdout(std::process::Stdio::null()).spawn().unwrap();
    let lock = case.folder.path().join("run/metrics.jsonl");
    let start = std::time::Instant::now();
    while !lock.exists() && start.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let second = [1, 2].map(|count| run(ranks(count).args(&case.overrides), 60));
    first.kill().unwrap();
    first.wait().unwrap();
    for ended in second {
        assert_refused(&ended, &["in use", &first.id().to_string()]);
    }
}

fn largest_file(folder: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    files.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn make_writable(path: &Path) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false)] // a file of this test alone
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
}
