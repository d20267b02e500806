//! The synthetic data set: whole, reproducible, and not to be told apart by colour.

use segdist::data::DatasetConfig;
use segdist::data::dataset::Dataset;
use segdist::data::source::Sample;
use segdist::demo_data;
use std::fs;
use std::path::Path;

fn open(dir: &Path, split: &str) -> Dataset {
    let root = dir.to_str().unwrap();
    let config = DatasetConfig { root_dataset: root.into(), num_class: 5, ..DatasetConfig::default() };
    Dataset::open(&config, &format!("{root}/{split}.odgt")).unwrap()
}

fn samples(source: &Dataset) -> Vec<Sample> {
    let read = |i| {
        let mut sample = Sample::default();
        source.read(i, &mut sample).unwrap();
        sample
    };
    (0..source.len()).map(read).collect()
}

#[test]
fn every_sample_reads_and_has_all_that_the_set_promises() {
    let dir = tempfile::tempdir().unwrap();
    demo_data::run(dir.path(), 1).unwrap();
    for (split, count) in [("training", 256), ("validation", 32)] {
        let source = open(dir.path(), split);
        assert_eq!(source.len(), count);
        assert!(source.sizes().iter().all(|&(w, h)| (96..=128).contains(&w) && (96..=128).contains(&h)));
        assert!(source.sizes().iter().any(|&(w, h)| w > h) && source.sizes().iter().any(|&(w, h)| w < h));
        let mut pixels = [0usize; 6];
        for sample in samples(&source) {
            sample.label.iter().for_each(|&value| pixels[usize::from(value)] += 1);
        }
        let total: usize = pixels.iter().sum();
        assert!(pixels.iter().all(|&count| count * 50 > total), "every value has 2 % of the pixels: {pixels:?}");
    }
}

#[test]
fn the_seed_decides_every_pixel() {
    let dir = tempfile::tempdir().unwrap();
    let (one, same, other) = (dir.path().join("1"), dir.path().join("same"), dir.path().join("2"));
    demo_data::run(&one, 1).unwrap();
    demo_data::run(&same, 1).unwrap();
    demo_data::run(&other, 2).unwrap();
    let image = |dir: &Path| fs::read(dir.join("images/validation/demo_0024.png")).unwrap();
    assert!(image(&one) == image(&same) && image(&one) != image(&other));
    assert_ne!(image(&one), fs::read(one.join("images/training/demo_0024.png")).unwrap());
}

/// The best guess of the class from a pixel's colour alone, learnt on the training part, is right for few more pixels
/// than always guessing the most frequent class.
#[test]
fn colour_alone_does_not_solve_it() {
    let dir = tempfile::tempdir().unwrap();
    demo_data::run(dir.path(), 1).unwrap();
    let cell = |rgb: &[u8]| rgb.iter().fold(0, |cell, &value| cell * 8 + usize::from(value / 32));
    let mut counts = vec![[0u32; 6]; 512];
    for sample in samples(&open(dir.path(), "training")) {
        for (rgb, &value) in sample.image.chunks_exact(3).zip(&sample.label) {
            counts[cell(rgb)][usize::from(value)] += 1;
        }
    }
    let best = |counts: &[u32; 6]| (1..6).max_by_key(|&value| counts[value]).unwrap();
    let (mut right, mut background, mut all) = (0, 0, 0);
    for sample in samples(&open(dir.path(), "validation")) {
        for (rgb, &value) in sample.image.chunks_exact(3).zip(&sample.label).filter(|(_, value)| **value != 0) {
            all += 1;
            right += usize::from(best(&counts[cell(rgb)]) == usize::from(value));
            background += usize::from(value == 1);
        }
    }
    let (right, background) = (right as f64 / all as f64, background as f64 / all as f64);
    assert!(background < 0.65, "{background}");
    assert!(right < background + 0.15, "{right} against {background}");
}

#[test]
fn a_file_in_the_way_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = demo_data::run(file.path(), 1).unwrap_err();
    assert!(error.is::<segdist::fault::BadInput>() && error.to_string().contains("is no folder"));
}
