//! `segdist demo-data`: a small synthetic data set that a small network learns in minutes, but not by colour.
//!
//! Five classes: a blotched background and, on it, striped discs, chequered squares, dotted triangles and speckled
//! diamonds. All draw their colours from the same range, with noise on top, so a pixel alone says nothing: what tells
//! the classes apart is texture and shape. Label values are 1 to 5; 0, ignored, is a band along every edge.

mod scene;

use crate::{bad_input, fault};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use scene::Scene;
use serde::Serialize;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

const TRAINING: u32 = 256;
const VALIDATION: u32 = 32;

/// A source of numbers that is the same on every machine.
struct Random(ChaCha8Rng);

impl Random {
    /// 0 to `n` - 1; the bias of a remainder is far below what a picture shows.
    fn below(&mut self, n: u32) -> u32 {
        self.0.next_u32() % n
    }

    /// `low` to `high`.
    fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1) as u32) as i32
    }
}

/// A line of the lists.
#[derive(Serialize)]
struct OdgtLine {
    fpath_img: String,
    fpath_segm: String,
    width: u32,
    height: u32,
}

/// Writes images, label maps, training.odgt and validation.odgt into `out`; the same seed makes the same pixels.
pub fn run(out: &Path, seed: u64) -> anyhow::Result<()> {
    if out.exists() && !out.is_dir() {
        bad_input!("{}: is no folder; name a folder to write to", out.display());
    }
    for (split, count, stream) in [("training", TRAINING, 0), ("validation", VALIDATION, 1)] {
        for folder in ["images", "annotations"] {
            let dir = out.join(folder).join(split);
            fs::create_dir_all(&dir).map_err(|cause| fault::unwritable(&dir, cause))?;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let mut random = Random(rng);
        let mut list = String::new();
        for number in 1..=count {
            let scene = Scene::draw(&mut random);
            list += &serde_json::to_string(&write(out, split, number, &scene)?)?;
            list.push('\n');
        }
        let file = out.join(format!("{split}.odgt"));
        fs::write(&file, list).map_err(|cause| fault::unwritable(&file, cause))?;
    }
    println!("{}: {TRAINING} training and {VALIDATION} validation images of {} classes", out.display(), scene::CLASSES);
    Ok(())
}

fn write(out: &Path, split: &str, number: u32, scene: &Scene) -> anyhow::Result<OdgtLine> {
    let fpath_img = format!("images/{split}/demo_{number:04}.png");
    let fpath_segm = format!("annotations/{split}/demo_{number:04}.png");
    write_png(&out.join(&fpath_img), scene, png::ColorType::Rgb, &scene.image)?;
    write_png(&out.join(&fpath_segm), scene, png::ColorType::Grayscale, &scene.label)?;
    Ok(OdgtLine { fpath_img, fpath_segm, width: scene.width, height: scene.height })
}

fn write_png(path: &Path, scene: &Scene, color: png::ColorType, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), scene.width, scene.height);
        encoder.set_color(color);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(bytes)?;
        Ok(writer.finish()?)
    };
    write().map_err(|cause| fault::unwritable(path, cause))
}
