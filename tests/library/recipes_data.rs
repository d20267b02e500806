//! Augmentation of later recipes, on real files: crops that the label chooses, padding to the crop, rotation, squares, and
//! images with rare classes more often.

use crate::data_files::png;
use segdist::data::DatasetConfig;
use segdist::data::assemble::Assembler;
use segdist::data::batch::HostBatch;
use segdist::data::dataset::Dataset;
use segdist::data::order::{MicroBatch, Order, OrderSpec};
use segdist::pack::{self, Input, PackOptions};
use segdist::plan;
use segdist::train::TrainConfig;
use std::path::Path;
use std::sync::Arc;

const GREY: [u8; 3] = [124, 116, 104];

/// Images of `size`, brighter by class, whose raw label at (x, y) is `class(number, x, y)`, in two folders.
fn files(root: &Path, count: u32, (width, height): (u32, u32), class: impl Fn(u32, u32, u32) -> u8) {
    for number in 0..count {
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let labels: Vec<u8> = places.map(|(x, y)| class(number, x, y)).collect();
        let pixels: Vec<u8> = labels.iter().flat_map(|class| [60 * class; 3]).collect();
        png(&root.join(format!("images/{number:02}.png")), (width, height), png::ColorType::Rgb, &pixels);
        png(&root.join(format!("labels/{number:02}.png")), (width, height), png::ColorType::Grayscale, &labels);
    }
}

/// Every pixel has its label, nothing is resized or flipped.
fn config(root: &Path, short_edge: u32) -> DatasetConfig {
    DatasetConfig {
        root_dataset: root.to_str().unwrap().into(),
        list_train: "images:labels".into(),
        num_class: 4,
        imgSizes: vec![short_edge],
        padding_constant: 1,
        segm_downsampling_rate: 1,
        random_flip: false,
        ..DatasetConfig::default()
    }
}

fn batch(config: &DatasetConfig, samples: Vec<u32>, pass: u64) -> HostBatch {
    let source = Dataset::open(config, &config.list_train).unwrap();
    let (draws, short_edge) = (vec![pass; samples.len()], config.imgSizes[0]);
    let planned = MicroBatch { first: 0, samples, draws, short_edge };
    Assembler::new(Arc::new(source), config, -1, 304).micro_batch(pass, &planned).unwrap().0
}

/// Colours and labels of a batch's only image, without padding.
fn pixels(batch: &HostBatch) -> Vec<([u8; 3], i64)> {
    let (width, height) = batch.sizes[0];
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (y * batch.width + x) as usize));
    places.map(|at| (batch.images.as_chunks::<3>().0[at], batch.labels[at])).collect()
}

#[test]
fn a_crop_is_the_first_of_ten_that_no_class_fills() {
    let folder = tempfile::tempdir().unwrap();
    // The left half is one class, the right half two of even shares.
    let class = |_, x: u32, y: u32| if x < 64 { 1 } else { 2 + ((x + y) % 2) as u8 };
    files(folder.path(), 1, (128, 32), class);
    let mut dataset = DatasetConfig { crop: 32, ..config(folder.path(), 32) };
    let mut most = |share: f64, pass: u64| {
        dataset.crop_max_share = share;
        let labels: Vec<i64> = pixels(&batch(&dataset, vec![0], pass)).iter().map(|(_, label)| *label).collect();
        assert_eq!(labels.len(), 32 * 32);
        (0..3).map(|class| labels.iter().filter(|label| **label == class).count()).max().unwrap() as f64 / 1024.0
    };
    let filled = (0..30).filter(|pass| most(1.0, *pass) >= 0.75).count();
    assert!(filled > 5, "{filled} crops of 30 are filled by one class where none is refused");
    assert!((0..30).all(|pass| most(0.75, pass) < 0.75));
    // Where none will do, one is taken all the same.
    assert!((0..5).all(|pass| most(1e-9, pass) > 0.0));
}

#[test]
fn a_batch_is_padded_to_its_crop_and_the_padding_has_no_label() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 1, (40, 20), |_, x, _| 1 + (x % 3) as u8);
    let mut dataset = DatasetConfig { crop: 32, crop_width: 48, ..config(folder.path(), 20) };
    let own = batch(&dataset, vec![0], 0);
    assert_eq!((own.width, own.height), (40, 20));
    dataset.pad_to_crop = true;
    let padded = batch(&dataset, vec![0], 0);
    assert_eq!((padded.width, padded.height, padded.sizes[0]), (48, 32, (40, 20)));
    assert_eq!((padded.valid, padded.labels.len()), (800, 48 * 32));
    assert_eq!(pixels(&padded), pixels(&own));
}

#[test]
fn image_and_label_turn_together_and_what_comes_into_view_is_grey_without_label() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 1, (64, 48), |_, x, y| 1 + u8::from(x > 30) + 2 * u8::from(y > 20));
    let dataset = DatasetConfig { rotate: 15.0, ..config(folder.path(), 48) };
    let plain = pixels(&batch(&config(folder.path(), 48), vec![0], 0));
    let turned: Vec<_> =
        (0..20).map(|pass| pixels(&batch(&dataset, vec![0], pass))).filter(|all| *all != plain).collect();
    assert!((4..=16).contains(&turned.len()), "half of the samples are turned, not {} of 20", turned.len());
    let mut most = 0;
    for all in turned {
        let outside = all.iter().filter(|(_, label)| *label == -1).count();
        most = outside.max(most);
        let off = |(colour, label): &&([u8; 3], i64)| match label {
            -1 => *colour != GREY,
            class => u8::abs_diff(colour[0], 60 * (*class as u8 + 1)) > 2,
        };
        let off = all.iter().filter(off).count();
        // Along the three seams, where a colour is a mixture.
        assert!(off < 400, "{off} pixels of {} have another class's colour", all.len());
    }
    assert!((100..1000).contains(&most), "{most} pixels from outside");
}

#[test]
fn a_square_is_grey_and_has_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 1, (64, 48), |_, x, _| 1 + (x % 3) as u8);
    let dataset = DatasetConfig { cutout: 10, ..config(folder.path(), 48) };
    let mut largest = 0;
    for pass in 0..20 {
        let all = pixels(&batch(&dataset, vec![0], pass));
        assert!(all.iter().all(|(colour, label)| (*colour == GREY) == (*label == -1)));
        largest = all.iter().filter(|(_, label)| *label == -1).count().max(largest);
    }
    assert_eq!(largest, 100);
}

#[test]
fn distorted_colours_stay_where_they_are_and_labels_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    files(folder.path(), 1, (32, 32), |_, x, _| 1 + (x % 3) as u8);
    let plain = pixels(&batch(&config(folder.path(), 32), vec![0], 0));
    let dataset = DatasetConfig { photometric: true, ..config(folder.path(), 32) };
    let mut changed = 0;
    for pass in 0..20 {
        let all = pixels(&batch(&dataset, vec![0], pass));
        assert!(all.iter().zip(&plain).all(|(own, plain)| own.1 == plain.1));
        // The pictures are grey: brightness and contrast move them, saturation and hue do not.
        assert!(all.iter().all(|(colour, _)| colour[0] == colour[1] && colour[1] == colour[2]));
        changed += usize::from(all != plain);
    }
    assert!((10..20).contains(&changed), "three of four are brighter, darker, or of other contrast: {changed} of 20");
}

#[test]
fn images_with_a_rare_class_come_more_often_and_the_others_no_more_than_they_must() {
    let folder = tempfile::tempdir().unwrap();
    // One image of 16 shows class 2, on a few pixels.
    files(folder.path(), 16, (16, 16), |number, x, y| if number == 5 && x + y < 3 { 3 } else { 1 + (x % 2) as u8 });
    let path = |name: &str| folder.path().join(name);
    let input = Input::Folders { images: path("images"), labels: path("labels"), suffix: None };
    pack::run(&PackOptions::new(input, path("packed"))).unwrap();
    let list_train = path("packed").to_str().unwrap().to_owned();
    let dataset = DatasetConfig { rare_class_sampling: 0.5, list_train, ..config(folder.path(), 16) };
    let source = Dataset::open(&dataset, &dataset.list_train).unwrap();
    let weights = source.weights(&dataset).unwrap().unwrap();
    assert!(weights[5] > 3.0 * weights[4] && (weights.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{weights:?}");

    let order = || Order::new(source.sizes(), OrderSpec::new(&dataset, 7, 8, 2)).weighted(Some(weights.clone()));
    let (order, fresh) = (order(), order());
    let mut keys = std::collections::BTreeSet::new();
    for pass in 0..20 {
        let steps: Vec<_> = (2 * pass..2 * pass + 2).map(|step| order.step(step)).collect();
        assert_eq!(steps[1].micro_batches, fresh.step(2 * pass + 1).micro_batches, "a function of the step alone");
        let micro = || steps.iter().flat_map(|step| &step.micro_batches);
        for (sample, weight) in weights.iter().enumerate() {
            let times = micro().flat_map(|micro| &micro.samples).filter(|one| **one == sample as u32).count();
            assert!((times as f64 - 16.0 * weight).abs() < 1.0, "{times} times for {}", 16.0 * weight);
        }
        for micro in micro() {
            keys.extend(micro.samples.iter().zip(&micro.draws).map(|(sample, draws)| (*sample, *draws)));
        }
    }
    assert_eq!(keys.len(), 20 * 16, "no two draws of augmentation are the same");
    let plan = plan::weighted(source.sizes(), Some(weights.clone()), &dataset, &TrainConfig::default(), 1);
    assert!(f64::from(plan.most_repeats) >= (16.0 * weights[5]).floor() && plan.seen_share < 1.0);

    let unpacked = DatasetConfig { list_train: "images:labels".into(), ..dataset };
    let error = Dataset::open(&unpacked, &unpacked.list_train).unwrap().weights(&unpacked).unwrap_err().to_string();
    assert!(error.contains("rare_class_sampling") && error.contains("segdist pack"), "{error}");
}
