//! Batches: the reference's pixels and labels, in one order whatever the threads and ranks, damage reported or replaced.

use segdist::data::batch_source::{Share, StepBatch};
use segdist::data::dataset::Dataset;
use segdist::data::loader::{Loader, Preparation, Samples};
use segdist::data::order::{Order, OrderSpec};
use segdist::data::resize::{Image, Resizer, nearest, target_size};
use segdist::data::source::Sample;
use segdist::data::{DatasetConfig, OnCorrupt};
use std::fs;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const SEED: u64 = 304;

fn png(path: &Path, width: u32, height: u32, color: png::ColorType, value: impl Fn(u32) -> u8) {
    let channels = if color == png::ColorType::Rgb { 3 } else { 1 };
    let mut encoder = png::Encoder::new(BufWriter::new(fs::File::create(path).unwrap()), width, height);
    encoder.set_color(color);
    let bytes: Vec<u8> = (0..width * height * channels).map(value).collect();
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
}

/// `count` pairs of pictures of different shapes, and the configuration that reads them.
fn data(count: u32) -> (tempfile::TempDir, DatasetConfig) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    fs::create_dir(dir.path().join("labels")).unwrap();
    for i in 0..count {
        let (width, height) = (20 + i * 7 % 23, 20 + i * 5 % 19);
        let name = format!("{i:02}.png");
        let noise = move |at: u32| ((at + 1).wrapping_mul(2654435761 + i) >> 23) as u8;
        png(&dir.path().join("images").join(&name), width, height, png::ColorType::Rgb, noise);
        png(&dir.path().join("labels").join(&name), width, height, png::ColorType::Grayscale, |at| noise(at) % 6);
    }
    let config = DatasetConfig {
        root_dataset: dir.path().to_str().unwrap().into(),
        list_train: "images:labels".into(),
        num_class: 5,
        imgSizes: vec![17, 24, 33],
        imgMaxSize: 40,
        padding_constant: 8,
        segm_downsampling_rate: 4,
        ..DatasetConfig::default()
    };
    (dir, config)
}

fn loader(config: &DatasetConfig, global: usize, micro: usize, rank: usize, ranks: usize, threads: usize) -> Loader {
    let source = Arc::new(Dataset::open(config, &config.list_train).unwrap());
    let order = Arc::new(Order::new(source.sizes(), OrderSpec::new(config, SEED, global, micro)));
    let preparation = Preparation { dataset: config, padding_label: -1, seed: SEED };
    Loader::start(Samples { source, order }, preparation, Share { rank, ranks }, 0, threads).unwrap()
}

/// (list index, image without padding, label) of every sample of a step, in the order of the global batch.
fn contents(step: &StepBatch) -> Vec<(u32, Vec<u8>, Vec<i64>)> {
    let mut all = Vec::new();
    for batch in step.rounds.iter().flatten() {
        let (width, height, rate) = (batch.width as usize, batch.height as usize, batch.rate as usize);
        for (i, (&sample, &(w, h))) in batch.samples.iter().zip(&batch.sizes).enumerate() {
            let image = &batch.images[i * width * height * 3..][..width * height * 3];
            let image = image.chunks(width * 3).take(h as usize).flat_map(|row| row[..w as usize * 3].to_vec());
            let area = width / rate * (height / rate);
            let label = batch.labels[i * area..][..area].chunks(width / rate).take((h as usize).div_ceil(rate));
            let label = label.flat_map(|row| row[..(w as usize).div_ceil(rate)].to_vec());
            all.push((batch.first + i, (sample, image.collect(), label.collect())));
        }
    }
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, content)| content).collect()
}

/// The reference's way, one step after another: flip, resize, fill up to the rate with ignored pixels, shrink, map.
fn by_the_reference(sample: &Sample, flip: bool, (w, h): (u32, u32), rate: u32) -> (Vec<u8>, Vec<i64>) {
    let mirror = |pixels: &[u8], channels: usize| -> Vec<u8> {
        let rows = pixels.chunks(sample.width as usize * channels);
        rows.flat_map(|row| row.chunks(channels).rev().flatten().copied().collect::<Vec<u8>>()).collect()
    };
    let (image, label) = match flip {
        true => (mirror(&sample.image, 3), mirror(&sample.label, 1)),
        false => (sample.image.clone(), sample.label.clone()),
    };
    let mut resized = vec![0; (w * h * 3) as usize];
    let source = Image { width: sample.width, height: sample.height, pixels: &image };
    Resizer::default().resize(source, false, (w, h), &mut resized, w as usize * 3);

    let shrink = |label: &[u8], from: (u32, u32), to: (u32, u32)| -> Vec<u8> {
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        nearest(from.0, to.0, &mut columns);
        nearest(from.1, to.1, &mut rows);
        let at = |y: &u32| columns.iter().map(|x| label[(y * from.0 + x) as usize]).collect::<Vec<u8>>();
        rows.iter().flat_map(at).collect()
    };
    let label = shrink(&label, (sample.width, sample.height), (w, h));
    let (filled_w, filled_h) = (w.next_multiple_of(rate), h.next_multiple_of(rate));
    let mut filled = vec![0; (filled_w * filled_h) as usize];
    for (to, from) in filled.chunks_mut(filled_w as usize).zip(label.chunks(w as usize)) {
        to[..w as usize].copy_from_slice(from);
    }
    let small = shrink(&filled, (filled_w, filled_h), (filled_w / rate, filled_h / rate));
    (resized, small.into_iter().map(|raw| i64::from(raw) - 1).collect())
}

#[test]
fn samples_are_made_as_the_reference_makes_them() {
    for rate in [1, 3, 4, 8] {
        let (_dir, mut config) = data(12);
        config.segm_downsampling_rate = rate;
        let source = Dataset::open(&config, &config.list_train).unwrap();
        let mut loader = loader(&config, 4, 2, 0, 1, 1);
        let mut sample = Sample::default();
        let mut flips = [0, 0];
        for _ in 0..6 {
            let step = loader.next().unwrap();
            for batch in step.rounds.iter().flatten() {
                assert_eq!(batch.valid, batch.labels.iter().filter(|&&label| label >= 0).count() as u64);
                assert_eq!((batch.width % 8, batch.height % 8, batch.width % rate), (0, 0, 0));
            }
            let sizes = step.rounds.iter().flatten().flat_map(|batch| batch.sizes.clone());
            for ((index, image, label), size) in contents(&step).into_iter().zip(sizes) {
                source.read(index as usize, &mut sample).unwrap();
                let short = |edge: &&u32| target_size((sample.width, sample.height), **edge, config.imgMaxSize) == size;
                assert!(config.imgSizes.iter().find(short).is_some());
                let made = (image, label);
                let flip = by_the_reference(&sample, false, size, rate) != made;
                assert!(by_the_reference(&sample, flip, size, rate) == made);
                flips[usize::from(flip)] += 1;
            }
        }
        assert!(flips[0] > 4 && flips[1] > 4, "{flips:?}");
    }
}

#[test]
fn normalisation_is_torchvisions_and_padding_is_zero() {
    let (_dir, config) = data(6);
    let mut loader = loader(&config, 4, 4, 0, 1, 1);
    for _ in 0..3 {
        let step = loader.next().unwrap();
        let batch = step.rounds[0].as_ref().unwrap();
        let images = batch.to_device(Device::Cpu).images;
        let size = [4, i64::from(batch.height), i64::from(batch.width), 3];
        let bytes = Tensor::from_slice(&batch.images).view(size).permute([0, 3, 1, 2]).to_kind(Kind::Float);
        let constant = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
        let all = (bytes / 255.0 - constant([0.485, 0.456, 0.406])) / constant([0.229, 0.224, 0.225]);
        let expected = all.zeros_like();
        for (i, &(w, h)) in batch.sizes.iter().enumerate() {
            let covered = |t: &Tensor| t.get(i as i64).narrow(1, 0, h.into()).narrow(2, 0, w.into());
            covered(&expected).copy_(&covered(&all));
        }
        assert_eq!((images - expected).abs().max().double_value(&[]), 0.0);
    }
}

#[test]
fn steps_are_the_same_for_any_threads_and_ranks() {
    let (_dir, mut config) = data(13);
    (config.crop, config.scale_jitter, config.color_jitter) = (21, [0.8, 1.3], 0.4);
    let mut whole = loader(&config, 4, 2, 0, 1, 1);
    let mut threaded = loader(&config, 4, 2, 0, 1, 2);
    let mut ranks: Vec<Loader> = (0..2).map(|rank| loader(&config, 4, 2, rank, 2, 1)).collect();
    for number in 0..8 {
        let step = whole.next().unwrap();
        assert_eq!(step.step, number);
        let expected = contents(&step);
        assert!(contents(&threaded.next().unwrap()) == expected);
        let parts: Vec<_> = ranks.iter_mut().flat_map(|rank| contents(&rank.next().unwrap())).collect();
        assert!(parts == expected);
    }
}

#[test]
fn ranks_without_a_micro_batch_get_none() {
    let (_dir, config) = data(8);
    let step = loader(&config, 5, 2, 1, 2, 1).next().unwrap();
    assert_eq!(step.rounds.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
    let step = loader(&config, 5, 2, 0, 2, 1).next().unwrap();
    assert_eq!(step.rounds.iter().flatten().map(|b| b.samples.len()).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_corrupt_sample_ends_the_stream_or_is_replaced_the_same_way_everywhere() {
    let (dir, mut config) = data(9);
    let damaged = dir.path().join("images").join("04.png");
    // The header, and with it the size in the list, stays whole.
    let bytes = fs::read(&damaged).unwrap();
    fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();

    let mut aborting = loader(&config, 3, 3, 0, 1, 1);
    let error = (0..3).find_map(|_| aborting.next().err()).expect("a pass meets every sample");
    assert!(error.to_string().contains("04.png"), "{error}");

    config.on_corrupt = OnCorrupt::Substitute;
    let mut whole = loader(&config, 3, 1, 0, 1, 2);
    let mut ranks: Vec<Loader> = (0..3).map(|rank| loader(&config, 3, 1, rank, 3, 1)).collect();
    let mut substituted = 0;
    for _ in 0..6 {
        let step = whole.next().unwrap();
        let parts: Vec<StepBatch> = ranks.iter_mut().map(|rank| rank.next().unwrap()).collect();
        assert_eq!(step.substituted, parts.iter().map(|part| part.substituted).sum::<usize>());
        assert!(contents(&step) == parts.iter().flat_map(contents).collect::<Vec<_>>());
        assert!(contents(&step).iter().all(|(index, ..)| *index != 4));
        substituted += step.substituted;
    }
    assert_eq!(substituted, 2, "once a pass");
}

#[test]
fn a_loader_that_is_dropped_early_lets_its_threads_go() {
    let (_dir, config) = data(8);
    let source = Arc::new(Dataset::open(&config, &config.list_train).unwrap());
    let order = Arc::new(Order::new(source.sizes(), OrderSpec::new(&config, SEED, 4, 2)));
    let preparation = Preparation { dataset: &config, padding_label: -1, seed: SEED };
    let samples = Samples { source: source.clone(), order };
    drop(Loader::start(samples, preparation, Share { rank: 0, ranks: 1 }, 0, 2).unwrap());
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while Arc::strong_count(&source) > 1 {
        assert!(std::time::Instant::now() < end, "the pool still holds the source");
        std::thread::yield_now();
    }
}
