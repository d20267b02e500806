//! Prediction: what is written for each image, what is refused before anything is, what is skipped.

use crate::common;
use crate::golden;
use segdist::comm::{Solo, threads};
use segdist::data::DatasetConfig;
use segdist::eval::ValConfig;
use segdist::fault::exit_code;
use segdist::model::ModelConfig;
use segdist::model::weights::write_safetensors;
use segdist::predict::{PredictJob, run};
use std::path::{Path, PathBuf};
use tch::Device;

const PAIR: (&str, &str) = ("mobilenetv2dilated", "c1");

/// A folder with weights of a whole network, and what a job takes from the configuration.
struct Bench {
    folder: tempfile::TempDir,
    weights: String,
    dataset: DatasetConfig,
    model: ModelConfig,
    val: ValConfig,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("network.safetensors");
        let network = golden::network(PAIR.0, PAIR.1);
        let entries = network.store.variables.iter();
        let tensors: Vec<_> = entries.map(|entry| (entry.name.clone(), entry.tensor.shallow_clone())).collect();
        write_safetensors(&tensors, &mut std::fs::File::create(&weights).unwrap()).unwrap();
        let dataset =
            DatasetConfig { num_class: golden::CLASSES as usize, imgSizes: vec![32, 40], ..Default::default() };
        let weights = weights.to_str().unwrap().to_string();
        Bench { folder, weights, dataset, model: golden::config(PAIR.0, PAIR.1), val: ValConfig::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn image(&self, name: &str, (width, height): (u32, u32)) -> PathBuf {
        let path = self.path(name);
        let pixels: Vec<u8> = (0..width * height * 3).map(|at| (at * at / 7 % 251) as u8).collect();
        common::write_png(&path, width, height, png::ColorType::Rgb, &pixels);
        path
    }

    fn predict(&self, ranks: usize, inputs: &[PathBuf], out: &Path) -> Vec<Result<u8, (u8, String)>> {
        threads::run(ranks, |comm| {
            let job = PredictJob {
                dataset: &self.dataset,
                model: &self.model,
                val: &self.val,
                dir: self.folder.path(),
                checkpoint: Some(&self.weights),
                out,
                inputs,
                device: Device::Cpu,
            };
            run(&job, &*comm).map_err(|error| (exit_code(&error), error.to_string()))
        })
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn png_header(path: &Path) -> (u32, u32, png::ColorType) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    (reader.info().width, reader.info().height, reader.info().color_type)
}

#[test]
fn every_image_of_a_folder_tree_is_labelled_once_at_its_own_size_by_any_number_of_ranks() {
    let bench = Bench::new();
    let images = bench.folder.path().join("images");
    bench.image("images/a.png", (50, 37));
    bench.image("images/deeper/b.PNG", (37, 50));
    bench.image("images/deeper/c.png", (33, 33));
    std::fs::write(images.join("notes.txt"), "no image").unwrap();
    let (alone, shared) = (bench.path("alone"), bench.path("images/shared"));
    assert_eq!(bench.predict(1, std::slice::from_ref(&images), &alone), [Ok(0)]);
    assert_eq!(bench.predict(2, std::slice::from_ref(&images), &shared), [Ok(0), Ok(0)]);
    let results = |stem: &str| ["json", "label.png", "overlay.png"].map(|end| format!("{stem}.{end}"));
    assert_eq!(names(&alone), [results("a").to_vec(), vec!["deeper".into()]].concat());
    assert_eq!(names(&alone.join("deeper")), [results("b"), results("c")].concat());
    assert_eq!(png_header(&alone.join("a.label.png")), (50, 37, png::ColorType::Indexed));
    assert!(png_header(&alone.join("deeper/b.overlay.png")).0 > 37);
    for name in [results("a"), results("deeper/b"), results("deeper/c")].concat() {
        assert_eq!(std::fs::read(alone.join(&name)).unwrap(), std::fs::read(shared.join(&name)).unwrap(), "{name}");
    }
    let about: serde_json::Value = serde_json::from_slice(&std::fs::read(alone.join("a.json")).unwrap()).unwrap();
    let shares = about["classes"].as_array().unwrap().iter().map(|class| class["share"].as_f64().unwrap());
    assert!((shares.sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn two_images_of_one_stem_get_the_folders_that_tell_them_apart() {
    let bench = Bench::new();
    let inputs = [bench.image("one/same.png", (40, 40)), bench.image("two/same.png", (40, 40))];
    let out = bench.path("out");
    assert_eq!(bench.predict(1, &inputs, &out), [Ok(0)]);
    assert_eq!(names(&out), ["one", "two"]);
    assert_eq!(names(&out.join("two")), ["same.json", "same.label.png", "same.overlay.png"]);
}

#[test]
fn a_corrupt_image_is_skipped_and_the_exit_code_says_so() {
    let bench = Bench::new();
    let good = bench.image("good.png", (40, 33));
    let bad = bench.path("bad.jpg");
    std::fs::write(&bad, [0xff, 0xd8, 0xff, 0xe0, 0, 1, 2]).unwrap();
    let out = bench.path("out");
    assert_eq!(bench.predict(2, &[bad, good], &out), [Ok(2), Ok(2)]);
    assert_eq!(names(&out), ["good.json", "good.label.png", "good.overlay.png"]);
}

#[test]
fn nothing_to_predict_and_no_weights_are_errors_of_the_user() {
    let mut bench = Bench::new();
    let empty = bench.path("empty/x").parent().unwrap().to_path_buf();
    let missing = bench.folder.path().join("missing.png");
    let image = bench.image("image.png", (40, 40));
    let out = bench.path("out");
    for inputs in [[empty], [missing.clone()]] {
        assert!(matches!(bench.predict(1, &inputs, &out).remove(0), Err((2, _))));
    }
    bench.weights = missing.to_str().unwrap().into();
    assert!(matches!(bench.predict(1, std::slice::from_ref(&image), &out).remove(0), Err((2, _))));
    let job = PredictJob {
        dataset: &bench.dataset,
        model: &bench.model,
        val: &bench.val,
        dir: bench.folder.path(),
        checkpoint: None,
        out: &out,
        inputs: &[image],
        device: Device::Cpu,
    };
    let error = run(&job, &Solo).unwrap_err();
    assert_eq!(exit_code(&error), 2);
    assert!(error.to_string().contains("MODEL.weights_encoder"), "{error}");
    assert!(!out.exists());
}
