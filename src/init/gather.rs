//! The pairs of images and labels of whatever the user has.

use super::Input;
use super::write::Files;
use crate::data::folders;
use crate::data::instances::Instances;
use crate::data::layout::Layout;
use crate::data::list::{self, Pair};
use crate::fault;
use crate::report::palette::Classes;
use crate::report::picture;
use std::fs;
use std::path::{Path, PathBuf};

/// The part that a data set itself gives a sample to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Training,
    Validation,
}

/// An image and its label.
pub struct Sample {
    pub name: String,
    pub image: PathBuf,
    pub label: PathBuf,
    pub part: Option<Part>,
}

/// What label values mean, where the data set's form says it.
pub enum Known {
    /// Nothing is known.
    No,
    /// The reference's rule: 0 is ignored, k is class k - 1.
    Reference,
    /// The same rule, with names: labels drawn from outlines.
    Drawn(Vec<String>),
    /// A layout's own map and names.
    Layout(&'static Layout),
}

/// All samples, and what was found beside them.
pub struct Gathered {
    pub samples: Vec<Sample>,
    pub known: Known,
    /// Folders in which lists of class names may lie.
    pub beside: Vec<PathBuf>,
    pub images_alone: Vec<String>,
    pub labels_alone: Vec<String>,
    /// What there is to tell of the names.
    pub notes: Vec<String>,
}

impl Gathered {
    fn new(samples: Vec<Sample>, known: Known, beside: Vec<PathBuf>) -> Gathered {
        Gathered { samples, known, beside, images_alone: vec![], labels_alone: vec![], notes: vec![] }
    }
}

/// Finds the pairs; outlines are drawn into a folder of label files on the way.
pub fn gather(input: &Input, files: &Files) -> anyhow::Result<Gathered> {
    match input {
        Input::Folders { images, labels, suffix } => {
            let matched = folders::pair(images, labels, suffix.as_deref()).map_err(fault::classified)?;
            let sample = |(image, label, name): (PathBuf, PathBuf, String)| {
                let part = part_of(&name);
                Sample { name, image, label, part }
            };
            let samples = matched.files.into_iter().map(sample).collect();
            let above = |folder: &Path| folder.parent().map(Path::to_path_buf);
            let beside = [Some(labels.clone()), above(labels), Some(images.clone()), above(images)];
            let (images_alone, labels_alone) = (matched.images_alone, matched.labels_alone);
            let notes = matched.rule.into_iter().chain(matched.left_out).collect();
            let gathered = Gathered::new(samples, Known::No, beside.into_iter().flatten().collect());
            Ok(Gathered { images_alone, labels_alone, notes, ..gathered })
        }
        Input::List { odgt, root } => {
            let list = list::odgt(odgt, root).map_err(fault::classified)?;
            Ok(Gathered::new(
                list.pairs.into_iter().map(|pair| sample_of(pair, None)).collect(),
                Known::Reference,
                vec![],
            ))
        }
        Input::Layout { layout, root } => {
            let mut samples = Vec::new();
            for (split, part) in [("train", Part::Training), ("val", Part::Validation)] {
                let list = layout.list(root, split).map_err(fault::classified)?;
                samples.extend(list.pairs.into_iter().map(|pair| sample_of(pair, Some(part))));
            }
            Ok(Gathered::new(samples, Known::Layout(layout), vec![]))
        }
        Input::Coco { file, images, background } => {
            let instances = Instances::coco(file, *background).map_err(fault::classified)?;
            let mut samples = Vec::new();
            for image in &instances.images {
                let label = files.masks.join(Path::new(&image.name).with_extension("png"));
                draw(&instances, &image.name, &label)?;
                let (name, image) = (image.name.clone(), images.join(&image.name));
                samples.push(Sample { part: part_of(&name), name, image, label });
            }
            Ok(Gathered::new(samples, Known::Drawn(instances.names), vec![]))
        }
    }
}

fn sample_of(pair: Pair, part: Option<Part>) -> Sample {
    Sample { name: pair.name, image: pair.image, label: pair.label, part }
}

fn draw(instances: &Instances, name: &str, label: &Path) -> anyhow::Result<()> {
    let mut values = Vec::new();
    let (width, height) =
        instances.draw(name, &mut values).map_err(|cause| fault::BadInput(format!("{name}: {cause}")))?;
    // Black is what is ignored, so that the files look like what they are.
    let mut colors = Classes::new(255, None, None).colours;
    colors.insert(0, [0; 3]);
    let file = picture::label_map(width, height, &values, &colors)?;
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(label.parent().unwrap_or(Path::new(".")))?;
        fs::write(label, &file)
    };
    write().map_err(|cause| fault::unwritable(label, cause))
}

/// What the folder of an image says: `train/…`, `val/…`, at any depth.
fn part_of(name: &str) -> Option<Part> {
    let mut folders: Vec<String> = name.split('/').map(str::to_lowercase).collect();
    folders.pop();
    folders.iter().find_map(|folder| match folder.as_str() {
        "train" | "training" => Some(Part::Training),
        "val" | "valid" | "validation" => Some(Part::Validation),
        _ => None,
    })
}
