//! Packing: the same input makes the same bytes, whatever happens on the way, and bad input is named.

use crate::data_files::{contents, line, pair, png};
use segdist::data::dataset::Dataset;
use segdist::data::layout::Layout;
use segdist::data::source::Sample;
use segdist::data::{DatasetConfig, Io};
use segdist::fault::BadInput;
use segdist::pack::{Input, PackOptions, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Twelve pairs of several sizes under images and labels.
fn folders(root: &Path) {
    for i in 0..12u8 {
        pair(root, &format!("img{i:02}"), (16 + u32::from(i), 12), i);
    }
}

fn options(root: &Path, out: &str) -> PackOptions {
    let input = Input::Folders { images: root.join("images"), labels: root.join("labels"), suffix: None };
    PackOptions { shard_bytes: 700, threads: 2, ..PackOptions::new(input, root.join(out)) }
}

fn refused(options: &PackOptions) -> String {
    let error = run(options).unwrap_err();
    assert!(error.is::<BadInput>(), "{error:?}");
    let text = error.to_string();
    assert!(!text.contains('\n'));
    text
}

/// Cuts the last image of `folders` in half; its path and what it held.
fn halve_last(root: &Path) -> (PathBuf, Vec<u8>) {
    let last = root.join("images/img11.png");
    let good = fs::read(&last).unwrap();
    fs::write(&last, &good[..good.len() / 2]).unwrap();
    (last, good)
}

#[test]
fn the_same_input_makes_the_same_bytes_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    run(&options(dir.path(), "a")).unwrap();
    run(&PackOptions { threads: 1, ..options(dir.path(), "b") }).unwrap();
    let packed = contents(&dir.path().join("a"));
    assert!(packed.len() > 4, "several shards and the index");
    assert!(packed == contents(&dir.path().join("b")));
}

#[test]
fn a_packed_set_reads_as_its_files_do() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    folders(root);
    run(&options(root, "out")).unwrap();
    let config = DatasetConfig { root_dataset: root.to_str().unwrap().into(), ..DatasetConfig::default() };
    let files = Dataset::open(&config, "images:labels").unwrap();
    for io in [Io::Auto, Io::Mmap, Io::Pread] {
        let shards =
            Dataset::open(&DatasetConfig { io, ..config.clone() }, root.join("out").to_str().unwrap()).unwrap();
        assert_eq!(shards.sizes(), files.sizes());
        let (mut one, mut other) = (Sample::default(), Sample::default());
        for i in 0..files.len() {
            files.read(i, &mut one).unwrap();
            shards.read(i, &mut other).unwrap();
            assert_eq!(shards.name(i), files.name(i));
            assert!((&one.image, &one.label) == (&other.image, &other.label));
        }
    }
}

#[test]
fn what_a_failed_run_has_finished_is_used_and_the_bytes_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    folders(root);
    run(&options(root, "whole")).unwrap();

    let (last, good) = halve_last(root);
    assert!(refused(&options(root, "out")).contains("images/img11.png: is not a sound PNG file"));
    assert!(!root.join("out/index.json").exists());
    assert!(root.join("out/.packing/shard-00000.seg").exists());
    fs::write(&last, &good).unwrap();
    run(&options(root, "out")).unwrap();
    assert!(contents(&root.join("whole")) == contents(&root.join("out")));
}

#[test]
fn a_shard_whose_input_changed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    folders(root);
    let (last, good) = halve_last(root);
    refused(&options(root, "out"));
    fs::write(&last, &good).unwrap();
    pair(root, "img00", (20, 20), 7);
    run(&options(root, "out")).unwrap();
    run(&options(root, "whole")).unwrap();
    assert!(contents(&root.join("whole")) == contents(&root.join("out")));
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn child_that_packs() {
    if let Ok(root) = std::env::var("SEGDIST_TEST_PACK_ROOT") {
        run(&options(Path::new(&root), "out")).unwrap();
    }
}

#[test]
fn killed_at_any_time_and_continued_the_bytes_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    folders(root);
    run(&options(root, "whole")).unwrap();
    for delay in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "pack::child_that_packs"])
            .env("SEGDIST_TEST_PACK_ROOT", root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(4 + 3 * delay));
        child.kill().unwrap();
        child.wait().unwrap();
        if !root.join("out/index.json").exists() {
            run(&options(root, "out")).unwrap();
        }
        assert!(contents(&root.join("whole")) == contents(&root.join("out")), "killed after {delay}");
        fs::remove_dir_all(root.join("out")).unwrap();
    }
}

#[test]
fn interrupted_while_shards_are_moved_it_ends_with_one_whole_set() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    folders(root);
    run(&options(root, "whole")).unwrap();
    // A failed run leaves finished shards; the first is moved as publishing would, over another set's.
    let (last, good) = halve_last(root);
    refused(&options(root, "out"));
    fs::write(&last, &good).unwrap();
    let out = root.join("out");
    fs::rename(out.join(".packing/shard-00000.seg"), out.join("shard-00000.seg")).unwrap();
    for number in 1..40 {
        fs::write(out.join(format!("shard-{number:05}.seg")), b"of another set").unwrap();
    }
    run(&options(root, "out")).unwrap();
    assert!(contents(&root.join("whole")) == contents(&out));
}

#[test]
fn a_set_is_replaced_only_with_force_and_only_by_a_whole_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    folders(root);
    run(&options(root, "out")).unwrap();
    let before = contents(&root.join("out"));
    assert!(refused(&options(root, "out")).contains("--force"));

    pair(root, "img00", (30, 30), 9);
    halve_last(root);
    let force = PackOptions { force: true, ..options(root, "out") };
    assert!(refused(&force).contains("img11.png"));
    fs::remove_dir_all(root.join("out/.packing")).unwrap();
    assert!(before == contents(&root.join("out")), "the old set is whole");

    pair(root, "img11", (30, 30), 9);
    run(&force).unwrap();
    let after = contents(&root.join("out"));
    assert!(before != after && after.iter().all(|(name, _)| !name.starts_with('.')));
}

#[test]
fn bad_input_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    pair(root, "a", (4, 3), 6);
    let list = root.join("x.odgt");
    let pack = |text: &str, num_class| {
        fs::write(&list, text).unwrap();
        let input = Input::List { odgt: list.clone(), root: root.into() };
        let error = refused(&PackOptions { num_class, ..PackOptions::new(input, root.join("out")) });
        assert!(!root.join("out").exists(), "{error}");
        error
    };
    let good = line("a", 4, 3);
    assert!(pack(&good.repeat(2), None).contains("images/a.png: is listed twice"));
    assert!(pack(&line("a", 5, 3), None).contains("images/a.png: is 4 x 3 pixels, but the list says 5 x 3"));
    assert!(
        pack(&good, Some(5)).contains("labels/a.png: has the label value 6, which is above the number of classes, 5")
    );
    assert!(pack("x\n", None).contains("x.odgt line 1"));
    png(&root.join("labels/a.png"), (3, 3), png::ColorType::Grayscale, &[0; 9]);
    assert!(pack(&good, None).contains("labels/a.png: is 3 x 3 pixels, but its image says 4 x 3"));
    fs::remove_file(root.join("labels/a.png")).unwrap();
    assert!(pack(&good, None).contains("labels/a.png: cannot be read"));
    assert!(refused(&options(root, "out")).contains("images/a.png: has no label map"));
}

#[test]
fn a_label_map_is_checked_stored_and_applied() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    pair(root, "a", (4, 3), 7);
    pair(root, "b", (4, 3), 255);
    let map = root.join("map.yaml");
    let options = PackOptions { label_map: Some(map.clone()), num_class: Some(2), ..options(root, "out") };
    fs::write(&map, "7: 1\n").unwrap();
    assert!(refused(&options).contains("labels/b.png: has the label value 255, which has no entry in"));
    fs::write(&map, "7: 2\n").unwrap();
    assert!(refused(&options).contains("map.yaml: maps 7 to class 2"));
    fs::write(&map, "7: 1\n255: ignore\n").unwrap();
    run(&options).unwrap();

    let open = |num_class| {
        let config = DatasetConfig { num_class, ..DatasetConfig::default() };
        Dataset::open(&config, root.join("out").to_str().unwrap())
    };
    let source = open(2).unwrap();
    let mut sample = Sample::default();
    source.read(0, &mut sample).unwrap();
    assert_eq!(sample.label[0], 7, "the raw value is kept");
    assert_eq!((source.label_map().class(7), source.label_map().class(255)), (Some(1), Some(-1)));
    assert!(open(1).err().unwrap().to_string().contains("index.json: maps 7 to class 1"));
}

#[test]
fn layouts_find_their_files_and_store_their_classes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let image = |path: &str| png(&root.join(path), (4, 3), png::ColorType::Rgb, &[9; 36]);
    let label = |path: &str, value: u8| png(&root.join(path), (4, 3), png::ColorType::Grayscale, &[value; 12]);
    image("city/leftImg8bit/train/aachen/aachen_0_leftImg8bit.png");
    label("city/gtFine/train/aachen/aachen_0_gtFine_labelIds.png", 7);
    image("ade/images/validation/x.jpg"); // a PNG by its contents, which is what counts
    label("ade/annotations/validation/x.png", 150);
    image("voc/JPEGImages/one.jpg");
    image("voc/JPEGImages/unlisted.jpg");
    label("voc/SegmentationClass/one.png", 255);
    fs::create_dir_all(root.join("voc/ImageSets/Segmentation")).unwrap();
    fs::write(root.join("voc/ImageSets/Segmentation/train.txt"), "one\n").unwrap();

    for (folder, layout, split, class, classes) in
        [("city", "cityscapes", "train", 0, 19), ("ade", "ade20k", "val", 149, 150), ("voc", "voc", "train", -1, 21)]
    {
        let input =
            Input::Layout { layout: Layout::find(layout).unwrap(), root: root.join(folder), split: split.into() };
        let out = root.join(format!("{folder}.packed"));
        run(&PackOptions::new(input, &out)).unwrap();
        let config = DatasetConfig { num_class: classes, ..DatasetConfig::default() };
        let source = Dataset::open(&config, out.to_str().unwrap()).unwrap();
        assert_eq!(
            (source.len(), source.class_names().unwrap().len(), source.palette().unwrap().len()),
            (1, classes, classes)
        );
        let mut sample = Sample::default();
        source.read(0, &mut sample).unwrap();
        assert_eq!(source.label_map().class(sample.label[0]), Some(class));
    }
    assert!(Layout::find("kitti").err().unwrap().to_string().contains("ade20k, cityscapes, voc, coco-stuff, camvid"));
}
