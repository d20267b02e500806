//! Lists and folders: what is read, and that every wrong file is named.

use crate::data_files::{line, pair, png};
use segdist::data::DatasetConfig;
use segdist::data::assemble::Assembler;
use segdist::data::dataset::Dataset;
use segdist::data::order::{Order, OrderSpec};
use segdist::data::source::{DataError, Sample, Source};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

fn config(root: &Path) -> DatasetConfig {
    DatasetConfig { root_dataset: root.to_str().unwrap().into(), num_class: 5, ..DatasetConfig::default() }
}

fn open(root: &Path, list: &str) -> Result<Dataset, String> {
    Dataset::open(&config(root), list).map_err(|error| error.to_string())
}

/// The error of reading sample 0.
fn read_error(source: &Dataset) -> String {
    source.read(0, &mut Sample::default()).unwrap_err().to_string()
}

#[test]
fn a_list_plain_or_gzipped_and_a_folder_pair_give_the_same_samples() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    pair(root, "a", (4, 3), 1);
    pair(root, "deep/b", (5, 2), 5);
    let text = line("a", 4, 3) + "\n" + &line("deep/b", 5, 2);
    fs::write(root.join("x.odgt"), &text).unwrap();
    let mut gz = flate2::write::GzEncoder::new(fs::File::create(root.join("x.odgt.gz")).unwrap(), Default::default());
    gz.write_all(text.as_bytes()).unwrap();
    gz.finish().unwrap();

    let plain = open(root, root.join("x.odgt").to_str().unwrap()).unwrap();
    let zipped = open(root, root.join("x.odgt.gz").to_str().unwrap()).unwrap();
    let folders = open(root, "images:labels").unwrap();
    assert_eq!(plain.id(), zipped.id());
    for source in [plain, zipped, folders] {
        assert_eq!(source.sizes(), [(4, 3), (5, 2)]);
        let mut sample = Sample::default();
        source.read(1, &mut sample).unwrap();
        assert_eq!((sample.width, sample.height), (5, 2));
        assert_eq!((sample.image.len(), sample.label), (30, vec![5; 10]));
    }
}

#[test]
fn a_bad_line_is_named_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("x.odgt");
    for bad in ["{", "{\"fpath_img\": \"a\"}", "[1]", &line("a", 0, 3), &line("a", 4_000_000_000, 4_000_000_000)] {
        fs::write(&list, line("a", 4, 3) + bad).unwrap();
        let error = open(dir.path(), list.to_str().unwrap()).err().unwrap();
        assert!(error.contains("x.odgt line 2") && !error.contains('\n'), "{error}");
    }
    fs::write(&list, "\n").unwrap();
    assert!(open(dir.path(), list.to_str().unwrap()).err().unwrap().contains("x.odgt: holds no samples"));
    assert!(open(dir.path(), "gone.odgt").err().unwrap().starts_with("gone.odgt: cannot be read"));
    assert!(open(dir.path(), "list.txt").err().unwrap().starts_with("list.txt: is neither"));
}

#[test]
fn an_image_without_a_label_is_named_when_folders_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    pair(dir.path(), "a", (4, 3), 1);
    fs::remove_file(dir.path().join("labels/a.png")).unwrap();
    let error = open(dir.path(), "images:labels").err().unwrap();
    assert!(error.contains("images/a.png: has no label map") && error.contains("labels/a.png"), "{error}");
}

#[test]
fn wrong_sizes_values_and_files_are_named_when_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let list = root.join("x.odgt");
    let write = |width| fs::write(&list, line("a", width, 3)).unwrap();
    let error = || read_error(&open(root, list.to_str().unwrap()).unwrap());

    pair(root, "a", (4, 3), 6);
    write(4);
    assert!(error().contains("labels/a.png: has the label value 6, which is above DATASET.num_class, 5: "));
    write(5);
    assert!(error().contains("images/a.png: is 4 x 3 pixels, but the list says 5 x 3"));
    write(4);
    png(&root.join("labels/a.png"), (3, 3), png::ColorType::Grayscale, &[1; 9]);
    assert!(error().contains("labels/a.png: is 3 x 3 pixels, but its image says 4 x 3"));
    png(&root.join("labels/a.png"), (4, 3), png::ColorType::Rgb, &[1, 2, 3].repeat(12));
    assert!(error().contains("labels/a.png: has colours such as #010203"));
    fs::remove_file(root.join("labels/a.png")).unwrap();
    assert!(error().contains("labels/a.png: cannot be read"));
    fs::write(root.join("images/a.png"), b"GIF89a").unwrap();
    assert!(error().contains("images/a.png: is no JPEG, PNG, TIFF, BMP or WebP file"));
}

#[test]
fn a_label_map_decides_which_values_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    pair(root, "a", (4, 3), 200);
    let map = root.join("map.yaml");
    let with_map = |text: &str| {
        fs::write(&map, text).unwrap();
        let config = DatasetConfig { label_map: map.to_str().unwrap().into(), ..config(root) };
        Dataset::open(&config, "images:labels").map_err(|error| error.to_string())
    };
    let source = with_map("200: 4\n7: ignore\n").unwrap();
    source.read(0, &mut Sample::default()).unwrap();
    assert_eq!(source.label_map().class(200), Some(4));
    let error = read_error(&with_map("7: ignore\n").unwrap());
    assert!(
        error.contains("labels/a.png: has the label value 200, which has no entry in the label map of")
            && error.contains("map.yaml")
    );
    let error = with_map("200: 5\n").err().unwrap();
    assert!(error.contains("map.yaml: maps 200 to class 5, but there are only 5 classes"), "{error}");
    assert!(with_map("x").err().unwrap().contains("map.yaml: is not a YAML mapping"));
}

/// Checkerboards, made when they are asked for.
struct Checkers {
    sizes: Vec<(u32, u32)>,
    /// What the last label has too much of.
    surplus: usize,
}

impl Source for Checkers {
    fn sizes(&self) -> &[(u32, u32)] {
        &self.sizes
    }

    fn name(&self, _: usize) -> &str {
        "checkers"
    }

    fn id(&self) -> &str {
        "checkers of 2 fields"
    }

    fn image(&self, index: usize, rgb: &mut Vec<u8>) -> Result<(), DataError> {
        let (width, height) = self.sizes[index];
        *rgb = (0..width * height * 3).map(|at| at as u8).collect();
        Ok(())
    }

    fn label(&self, index: usize, values: &mut Vec<u8>) -> Result<(), DataError> {
        let (width, height) = self.sizes[index];
        *values = (0..width * height).map(|at| 1 + ((at % width + at / width) % 2) as u8).collect();
        values.resize(values.len() + self.surplus, 1);
        Ok(())
    }

    fn label_place(&self, index: usize) -> String {
        format!("board {index}")
    }
}

#[test]
fn a_source_written_here_makes_batches_and_is_held_to_its_word() {
    let checkers = |surplus| Box::new(Checkers { sizes: vec![(32, 24); 6], surplus });
    let config = DatasetConfig { num_class: 2, imgSizes: vec![24], ..DatasetConfig::default() };
    let dataset = Arc::new(Dataset::new(checkers(0), &config).unwrap());
    let order = Order::new(dataset.sizes(), OrderSpec::new(&config, 7, 4, 2));
    let assembler = Assembler::new(dataset, &config, -1, 7);
    let step = order.step(0);
    let (batch, substituted) = assembler.micro_batch(step.pass, &step.micro_batches[0]).unwrap();
    assert_eq!((batch.width, batch.height, batch.valid, substituted), (32, 24, 2 * 4 * 3, 0));

    let error = |surplus, classes| {
        let config = DatasetConfig { num_class: classes, ..config.clone() };
        read_error(&Dataset::new(checkers(surplus), &config).unwrap())
    };
    assert!(error(0, 1).starts_with("board 0: has the label value 2, which is above DATASET.num_class, 1: "));
    let empty = Dataset::new(Box::new(Checkers { sizes: vec![(32, 24), (7, 0)], surplus: 0 }), &config);
    assert_eq!(empty.err().unwrap().to_string(), "checkers: cannot have 7 x 0 pixels");
    assert_eq!(error(5, 2), "checkers: has 773 bytes of pixels or labels instead of 768");
}
