//! DATASET.stage: one right copy per node, whatever was there before.

use crate::data_files::{contents, pair};
use segdist::comm::{Comm, threads};
use segdist::data::dataset::Dataset;
use segdist::data::source::Sample;
use segdist::data::{DatasetConfig, stage};
use segdist::pack::{self, Input, PackOptions};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder with a set of several shards, and the configuration that stages it.
struct Case {
    dir: tempfile::TempDir,
    config: DatasetConfig,
}

impl Case {
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for i in 0..4u8 {
            pair(root, &i.to_string(), (6, 5), i + 1);
        }
        let input = Input::Folders { images: root.join("images"), labels: root.join("labels"), suffix: None };
        pack::run(&PackOptions { shard_bytes: 300, ..PackOptions::new(input, root.join("set")) }).unwrap();
        let config = DatasetConfig {
            root_dataset: root.to_str().unwrap().into(),
            list_train: root.join("set").to_str().unwrap().into(),
            stage: root.join("local").to_str().unwrap().into(),
            ..DatasetConfig::default()
        };
        Case { dir, config }
    }

    /// Opens the set on three ranks of this node.
    fn open(&self) -> Vec<Result<Dataset, String>> {
        let open = |comm: &dyn Comm| stage::open(comm, &self.config, &self.config.list_train);
        threads::run(3, |comm| open(&*comm).map_err(|error| error.to_string()))
    }

    fn set(&self) -> PathBuf {
        self.dir.path().join("set")
    }

    /// The folders in DATASET.stage.
    fn copies(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.config.stage).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

/// Every sample's pixels and labels.
fn samples(source: &Dataset) -> Vec<(Vec<u8>, Vec<u8>)> {
    let read = |i| {
        let mut sample = Sample::default();
        source.read(i, &mut sample).unwrap();
        (sample.image, sample.label)
    };
    (0..source.len()).map(read).collect()
}

/// Changes a byte in the middle of a file, keeping its length and time.
fn damage(file: &Path) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

#[test]
fn every_rank_reads_the_one_copy() {
    let case = Case::new();
    let original = Dataset::open(&case.config, &case.config.list_train).unwrap();
    let staged = case.open();
    let [copy] = &case.copies()[..] else { panic!("one copy") };
    assert!(contents(copy) == contents(&case.set()));
    // What the ranks have opened is the copy: it stays readable without the original.
    fs::remove_dir_all(case.set()).unwrap();
    for source in staged {
        let source = source.unwrap();
        assert_eq!(source.id(), original.id());
        assert!(samples(&source) == samples(&original));
    }
}

#[test]
fn what_is_right_is_kept_and_what_is_not_is_copied_again() {
    let case = Case::new();
    case.open().into_iter().for_each(|source| drop(source.unwrap()));
    let copy = case.copies()[0].clone();
    let time = |name: &str| fs::metadata(copy.join(name)).unwrap().modified().unwrap();
    let kept = time("shard-00000.seg");
    damage(&copy.join("shard-00001.seg"));
    fs::remove_file(copy.join("index.json")).unwrap();
    case.open().into_iter().for_each(|source| drop(source.unwrap()));
    assert!(contents(&copy) == contents(&case.set()));
    assert_eq!(time("shard-00000.seg"), kept);
}

#[test]
fn a_damaged_original_is_named_and_makes_no_copy() {
    let case = Case::new();
    damage(&case.set().join("shard-00001.seg"));
    let results = case.open();
    let error = results[0].as_ref().err().expect("the rank that copies finds it");
    assert!(error.contains("set/shard-00001.seg: is damaged"), "{error}");
    assert!(results.iter().all(Result::is_err));
    let names: Vec<String> = contents(&case.copies()[0]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["shard-00000.seg"]);
}

#[test]
fn a_copy_that_is_not_kept_is_gone_once_all_have_opened_it() {
    let mut case = Case::new();
    case.config.stage_keep = false;
    let original = Dataset::open(&case.config, &case.config.list_train).unwrap();
    for source in case.open() {
        assert!(samples(&source.unwrap()) == samples(&original));
    }
    assert!(case.copies().is_empty());
}

#[test]
fn lists_of_files_stay_where_they_are() {
    let mut case = Case::new();
    case.config.list_train = "images:labels".into();
    case.open().into_iter().for_each(|source| assert_eq!(source.unwrap().len(), 4));
    assert!(!Path::new(&case.config.stage).exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let mut case = Case::new();
    fs::write(case.dir.path().join("file"), "").unwrap();
    case.config.stage = case.dir.path().join("file").to_str().unwrap().into();
    let error = case.open().swap_remove(0).err().unwrap();
    assert!(error.contains("file/") && error.contains("DATASET.stage"), "{error}");
}
