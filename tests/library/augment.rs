//! Transforms: what they decide is a function of their keys, and a new one changes nothing of the others.

use crate::data_files::png;
use proptest::prelude::*;
use segdist::data::DatasetConfig;
use segdist::data::assemble::Assembler;
use segdist::data::augment::{Augment, Edit, Labels, Pixels, Placement, Transform};
use segdist::data::batch::HostBatch;
use segdist::data::dataset::Dataset;
use segdist::data::order::MicroBatch;
use segdist::data::random::{KeyedRng, Purpose};
use segdist::data::resize::target_size;
use std::path::Path;
use std::sync::Arc;

const SEED: u64 = 304;

/// A square of black pixels without labels (DeVries and Taylor, arXiv 1708.04552).
struct Cutout(u32);

impl Transform for Cutout {
    fn purpose(&self) -> Purpose {
        Purpose::Named("cutout")
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        let (width, height) = placement.size();
        let mut from = |edge: u32| random.below(u64::from(edge.saturating_sub(self.0)) + 1) as u32;
        placement.edit(Square { left: from(width), top: from(height), side: self.0 });
    }
}

#[derive(Debug)]
struct Square {
    left: u32,
    top: u32,
    side: u32,
}

impl Square {
    fn holds(&self, x: u32, y: u32) -> bool {
        (self.left..self.left + self.side).contains(&x) && (self.top..self.top + self.side).contains(&y)
    }
}

impl Edit for Square {
    fn image(&self, image: &mut Pixels) {
        for (y, row) in (0..).zip(image.rows()) {
            for (x, pixel) in (0..).zip(row.chunks_exact_mut(3)) {
                if self.holds(x, y) {
                    pixel.fill(0);
                }
            }
        }
    }

    fn label(&self, label: &mut Labels) {
        let rate = label.rate;
        for (y, row) in (0..).zip(label.rows()) {
            for (x, class) in (0..).zip(row) {
                if self.holds(x * rate + rate / 2, y * rate + rate / 2) {
                    *class = -1;
                }
            }
        }
    }
}

/// Pictures without black pixels, every pixel labelled, and what makes batches of them under `config`.
fn assembler(root: &Path, config: impl FnOnce(&mut DatasetConfig)) -> Assembler {
    for (i, (width, height)) in [(40, 30), (33, 47), (64, 25), (30, 30)].into_iter().enumerate() {
        let noise = |at: u32| 1 + (at.wrapping_mul(2654435761) >> 25) as u8;
        let pixels: Vec<u8> = (0..width * height * 3).map(noise).collect();
        png(&root.join(format!("images/{i}.png")), (width, height), png::ColorType::Rgb, &pixels);
        let classes: Vec<u8> = (0..width * height).map(|at| 1 + (at / 7 % 5) as u8).collect();
        png(&root.join(format!("labels/{i}.png")), (width, height), png::ColorType::Grayscale, &classes);
    }
    let mut dataset = DatasetConfig {
        root_dataset: root.to_str().unwrap().into(),
        num_class: 5,
        imgMaxSize: 60,
        padding_constant: 4,
        segm_downsampling_rate: 4,
        ..DatasetConfig::default()
    };
    config(&mut dataset);
    let source = Dataset::open(&dataset, "images:labels").unwrap();
    Assembler::new(Arc::new(source), &dataset, -1, SEED)
}

fn batch(assembler: &Assembler, pass: u64) -> HostBatch {
    let micro = MicroBatch { first: 0, samples: vec![0, 1, 2, 3], draws: vec![pass; 4], short_edge: 32 };
    assembler.micro_batch(pass, &micro).unwrap().0
}

/// The pixels of the images, without the padding, whose bytes are whatever was there.
fn pixels(batch: &HostBatch) -> Vec<[u8; 3]> {
    let (width, height) = (batch.width as usize, batch.height as usize);
    let of_image = |(i, &(w, h)): (usize, &(u32, u32))| {
        let rows = batch.images[i * width * height * 3..].chunks(width * 3).take(h as usize);
        rows.flat_map(|row| row.as_chunks::<3>().0[..w as usize].to_vec()).collect::<Vec<_>>()
    };
    batch.sizes.iter().enumerate().flat_map(of_image).collect()
}

#[test]
fn a_transform_written_here_changes_what_it_says_and_no_draw_of_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let all = |config: &mut DatasetConfig| {
        (config.crop, config.scale_jitter, config.color_jitter) = (28, [0.9, 1.4], 0.2);
    };
    let (plain, cut) = (assembler(folder.path(), all), assembler(folder.path(), all).with(Cutout(12)));
    for pass in 0..3 {
        let (plain, cut) = (batch(&plain, pass), batch(&cut, pass));
        assert_eq!((&plain.sizes, plain.width, plain.height), (&cut.sizes, cut.width, cut.height));
        let (before, after) = (pixels(&plain), pixels(&cut));
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
        let (mut black, mut holes) = (0, 0);
        for (_, pixel) in changed {
            assert_eq!(pixel, &[0, 0, 0]);
            black += 1;
        }
        for (plain, cut) in plain.labels.iter().zip(&cut.labels).filter(|(plain, cut)| plain != cut) {
            assert!(*plain >= 0 && *cut == -1);
            holes += 1;
        }
        assert!(black > 4 * 100 && black <= 4 * 144, "{black} pixels in four squares of 144");
        // A square of 12 holds the middles of three blocks of four, in each direction.
        assert_eq!((holes, cut.valid), (4 * 9, plain.valid - 4 * 9));
        assert!(pixels(&batch(&assembler(folder.path(), all).with(Cutout(12)), pass)) == after);
    }
}

#[test]
fn crops_and_jitter_draw_what_they_drew_when_they_shared_a_stream() {
    let config = DatasetConfig { crop: 40, scale_jitter: [0.5, 2.0], color_jitter: 0.3, ..DatasetConfig::default() };
    let augment = Augment::new(&config, SEED);
    for sample in 0..200 {
        let source = (100 + sample * 3 % 77, 80 + sample * 5 % 91);
        let mut random = KeyedRng::new(SEED, Purpose::ScaleJitter, 2, sample.into());
        let factor = random.between(0.5, 2.0);
        let (width, height) = target_size(source, 60, config.imgMaxSize);
        let whole = [width, height].map(|edge| ((f64::from(edge) * factor) as u32).max(1));
        let size = whole.map(|edge| edge.min(40));
        let corner = [0, 1].map(|axis| random.below(u64::from(whole[axis] - size[axis]) + 1) as u32);
        let color = [0, 1, 2].map(|_| random.between(0.7, 1.3) as f32);
        let placed = format!("{:?}", augment.place(source, 2, sample, 60));
        assert!(
            placed.contains(&format!("whole: ({}, {}), corners: [({}, {})]", whole[0], whole[1], corner[0], corner[1]))
        );
        let [brightness, contrast, saturation] = color;
        let edit = format!("brightness: {brightness:?}, contrast: {contrast:?}, saturation: {saturation:?}");
        assert!(placed.contains(&edit), "{placed}\n{edit}");
    }
}

/// Mirrors, resizes and crops in the order that it is told.
struct Shaken(Vec<u8>);

impl Transform for Shaken {
    fn purpose(&self) -> Purpose {
        Purpose::Named("shaken")
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        for what in &self.0 {
            let mut below = |edge: u32| random.below(u64::from(edge)) as u32;
            let (width, height) = placement.size();
            match what % 3 {
                0 => placement.mirror(),
                1 => placement.resize((below(90), below(90))),
                _ => placement.crop((below(width / 2 + 1), below(height / 2 + 1)), (width / 2 + 1, height / 2 + 1)),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_placement_is_a_function_of_its_keys_and_stays_inside_its_sample(
        source in (1u32..2000, 1u32..2000), crop in 0u32..300, low in 0.1f64..1.0, high in 1.0f64..3.0, seed: u64,
    ) {
        let config = DatasetConfig { crop, scale_jitter: [low, high], ..DatasetConfig::default() };
        let augment = Augment::new(&config, seed);
        let placement = augment.place(source, 3, 5, 300);
        prop_assert_eq!(format!("{placement:?}"), format!("{:?}", augment.place(source, 3, 5, 300)));
        prop_assert!(placement.size().0 >= 1 && placement.size().1 >= 1);
        if crop > 0 {
            prop_assert!(placement.size().0 <= crop && placement.size().1 <= crop);
        }
    }

    #[test]
    fn any_sequence_of_changes_can_be_carried_out(steps in prop::collection::vec(any::<u8>(), 0..6), pass: u64) {
        let folder = tempfile::tempdir().unwrap();
        let made = batch(&assembler(folder.path(), |_| ()).with(Shaken(steps)), pass);
        prop_assert!(made.sizes.iter().all(|size| size.0 >= 1 && size.1 >= 1));
        let inside = made.labels.iter().filter(|label| (0..5).contains(*label)).count() as u64;
        prop_assert_eq!(inside, made.valid);
    }
}
