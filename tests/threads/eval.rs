//! Evaluation: the reference's label maps, the same integers on any ranks and threads, and errors that name the record.

use crate::common;
use crate::golden;
use segdist::comm::{Comm, Solo, threads};
use segdist::data::DatasetConfig;
use segdist::data::dataset::Dataset;
use segdist::data::resize::{Image, Resizer};
use segdist::eval::scorer::{Scorer, check};
use segdist::eval::{Evaluation, Outcome, ValConfig, fuse, input};
use segdist::model::Network;
use segdist::report::palette::Classes;
use serde::Deserialize;
use std::path::Path;
use tch::Device;

const CLASSES: usize = golden::CLASSES as usize;

#[derive(Deserialize)]
struct Golden {
    images: Vec<(u32, u32)>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    sizes: Vec<u32>,
    /// One digit a pixel.
    labels: Vec<String>,
    mean_iou: f64,
    pixel_accuracy: f64,
}

/// The pixels that eval.py's `image` and `label` give.
fn image((width, height): (u32, u32)) -> Vec<u8> {
    let value = |x: u32, y: u32, c: u32| ((x * x * 3 + y * y * 5 + x * y * (c + 1)) / 16 + 40 * c) as u8;
    (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| value(x, y, c)))).collect()
}

fn label((width, height): (u32, u32)) -> Vec<u8> {
    (0..height).flat_map(|y| (0..width).map(move |x| ((x / 10 + y / 7 * 3) % (CLASSES as u32 + 1)) as u8)).collect()
}

/// Writes images and list.odgt, and opens them.
fn source(folder: &Path, images: &[(u32, u32)], sizes: &[u32]) -> (DatasetConfig, Dataset) {
    let mut list = String::new();
    for (index, &(width, height)) in images.iter().enumerate() {
        let names = [format!("{index}.png"), format!("{index}_label.png")];
        let size = (width, height);
        common::write_png(&folder.join(&names[0]), width, height, png::ColorType::Rgb, &image(size));
        common::write_png(&folder.join(&names[1]), width, height, png::ColorType::Grayscale, &label(size));
        let record = serde_json::json!({
            "fpath_img": names[0], "fpath_segm": names[1], "width": width, "height": height
        });
        list += &format!("{record}\n");
    }
    std::fs::write(folder.join("list.odgt"), list).unwrap();
    let dataset = DatasetConfig {
        root_dataset: folder.to_str().unwrap().into(),
        list_val: folder.join("list.odgt").to_str().unwrap().into(),
        num_class: CLASSES,
        imgSizes: sizes.to_vec(),
        ..Default::default()
    };
    let source = Dataset::open(&dataset, &dataset.list_val).unwrap();
    (dataset, source)
}

/// Evaluates without pictures or progress; the same result on every rank.
fn evaluate(
    network: &Network,
    source: &Dataset,
    dataset: &DatasetConfig,
    val: &ValConfig,
    comm: &dyn Comm,
) -> anyhow::Result<Outcome> {
    let classes = Classes::new(dataset.num_class, source.class_names(), source.palette());
    let (classes, device, overlays, progress) = (&classes, Device::Cpu, None, false);
    Evaluation { source, dataset, val, device, classes, overlays, progress, alive: &|| () }.run(network, comm)
}

#[test]
fn label_maps_and_measures_are_the_references_at_one_size_and_at_two() {
    let _threads = crate::own_threads();
    let golden: Golden = golden::read("eval.json");
    let network = golden::network("resnet18dilated", "c1");
    let val = ValConfig::default();
    for run in &golden.runs {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, source) = source(folder.path(), &golden.images, &run.sizes);
        let scorer = Scorer::several(1, &network, &dataset, &val, Device::Cpu).remove(0);
        for (size, expected) in golden.images.iter().zip(&run.labels) {
            let mut inputs = input::empty_inputs(*size, &dataset);
            let pixels = image(*size);
            let picture = Image { width: size.0, height: size.1, pixels: &pixels };
            input::resize_to_all(&mut Resizer::default(), picture, &mut inputs);
            let labels = fuse::fuse(&scorer.score(&inputs, 1).unwrap()[0], *size, None).labels;
            let differing = labels.iter().zip(expected.bytes()).filter(|(own, digit)| **own != digit - b'0').count();
            assert!(differing * 1000 <= labels.len(), "{differing} of {} pixels at {:?}", labels.len(), run.sizes);
        }
        let outcome = evaluate(&network, &source, &dataset, &val, &Solo).unwrap();
        assert!((outcome.mean_iou - run.mean_iou).abs() < 2e-3, "{} {}", outcome.mean_iou, run.mean_iou);
        assert!((outcome.pixel_accuracy - run.pixel_accuracy).abs() < 2e-3);
        assert_eq!(outcome.images, golden.images.len());
    }
}

/// One evaluation of five small images on `ranks` ranks with `threads` threads each.
fn on_ranks(folder: &Path, val: &ValConfig, ranks: usize, threads: usize) -> Vec<Outcome> {
    let sizes = [(40, 32), (32, 40), (40, 32), (48, 33), (37, 32)];
    let (dataset, source) = source(folder, &sizes, &[32, 40]);
    threads::run(ranks, |comm| {
        tch::set_num_threads(threads as i32);
        let network = golden::network("mobilenetv2dilated", "c1");
        evaluate(&network, &source, &dataset, val, &*comm).unwrap()
    })
}

#[test]
fn any_number_of_ranks_and_threads_counts_the_same_integers() {
    let _threads = crate::own_threads();
    let folder = tempfile::tempdir().unwrap();
    let val = ValConfig { batch_size: 2, flip: true, boundary: true, loss: true, ..Default::default() };
    let alone = on_ranks(folder.path(), &val, 1, 1).remove(0);
    assert!(alone.confusion.pixels() > 0);
    for (ranks, threads) in [(1, 2), (2, 1), (5, 2), (1, 8)] {
        for outcome in on_ranks(folder.path(), &val, ranks, threads) {
            assert_eq!(outcome.confusion, alone.confusion, "{ranks} ranks, {threads} threads");
            assert_eq!(outcome.boundary, alone.boundary);
            assert!((outcome.loss.unwrap() - alone.loss.unwrap()).abs() < 1e-9);
        }
    }
}

#[test]
fn a_window_as_large_as_the_image_changes_nothing_and_a_small_one_covers_every_pixel() {
    let _threads = crate::own_threads();
    let folder = tempfile::tempdir().unwrap();
    let run = |window, stride| {
        on_ranks(folder.path(), &ValConfig { window, stride, ..Default::default() }, 1, 1).remove(0).confusion
    };
    let (whole, large, small) = (run(0, 0), run(64, 0), run(24, 16));
    assert_eq!(whole, large);
    assert_ne!(whole, small);
    assert_eq!(whole.pixels(), small.pixels());
}

#[test]
fn settings_that_cannot_be_evaluated_with_are_named() {
    let _threads = crate::own_threads();
    let dataset = DatasetConfig::default();
    let problem = |dataset: &DatasetConfig, val: &ValConfig| check(dataset, val).unwrap_err().to_string();
    assert!(problem(&dataset, &ValConfig { window: 100, ..Default::default() }).contains("VAL.window is 100"));
    assert!(problem(&dataset, &ValConfig { window: 8, stride: 16, ..Default::default() }).contains("VAL.stride"));
    let many = DatasetConfig { num_class: 257, ..Default::default() };
    assert!(problem(&many, &ValConfig::default()).contains("DATASET.num_class"));
    let none = DatasetConfig { imgSizes: vec![], ..Default::default() };
    assert!(problem(&none, &ValConfig::default()).contains("DATASET.imgSizes"));
}

#[test]
fn a_record_that_cannot_be_read_ends_every_rank_with_its_name() {
    let _threads = crate::own_threads();
    let folder = tempfile::tempdir().unwrap();
    let (dataset, source) = source(folder.path(), &[(40, 32), (32, 40), (40, 40)], &[32]);
    std::fs::write(folder.path().join("1.png"), b"not a picture").unwrap();
    let messages = threads::run(2, |comm| {
        let network = golden::network("mobilenetv2dilated", "c1");
        let outcome = evaluate(&network, &source, &dataset, &ValConfig::default(), &*comm);
        let error = outcome.expect_err("an image is corrupt");
        (segdist::fault::exit_code(&error), error.to_string())
    });
    assert!(messages.iter().all(|(code, text)| *code == 2 && text.contains("1.png")), "{messages:?}");
}

#[test]
fn the_json_object_has_the_contracts_fields() {
    let _threads = crate::own_threads();
    let folder = tempfile::tempdir().unwrap();
    let outcome = on_ranks(folder.path(), &ValConfig::default(), 1, 1).remove(0);
    let json = outcome.json("somewhere");
    for field in ["mean_iou", "pixel_accuracy", "mean_accuracy", "images_per_s"] {
        assert!(json[field].is_f64(), "{field}");
    }
    assert_eq!((json["images"].as_u64(), json["per_class"].as_array().unwrap().len()), (Some(5), CLASSES));
    let class = &json["per_class"][0];
    assert!(class["name"].is_string() && class["iou"].is_number() && class["accuracy"].is_number());
    outcome.write_csv(&folder.path().join("eval.csv")).unwrap();
    let lines = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap().lines().count();
    assert_eq!((lines("eval.csv"), lines("eval.confusion.csv")), (CLASSES + 1, CLASSES + 1));
    assert!(outcome.table().contains("Mean IoU"));
}
