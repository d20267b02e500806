//! Instances in COCO's JSON (cocodataset.org, "Data format"): polygons, run lengths as numbers or as text, crowds.
//!
//! A crowd is drawn like any other object of its category.

use super::{Image, Object, Shape};
use crate::data::walk::read_file;
use crate::shard::MAX_PIXELS;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct File {
    images: Vec<ImageEntry>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct ImageEntry {
    id: i64,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: i64,
    category_id: i64,
    segmentation: Option<Segmentation>,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Polygons(Vec<Vec<f64>>),
    Runs { size: [u32; 2], counts: Counts },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Numbers(Vec<u32>),
    Text(String),
}

/// Category names in the order of their ids, and the images with their objects.
pub fn read(path: &Path) -> Result<(Vec<String>, Vec<Image>), String> {
    let mut bytes = Vec::new();
    read_file(path, &mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let mut file: File = serde_json::from_slice(bytes).map_err(|error| format!("is no COCO file: {error}"))?;
    file.categories.sort_by_key(|category| category.id);
    let categories: BTreeMap<i64, usize> = file.categories.iter().enumerate().map(|(at, c)| (c.id, at)).collect();
    let mut places = BTreeMap::new();
    let mut images = Vec::with_capacity(file.images.len());
    for ImageEntry { id, file_name, width, height } in file.images {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels > MAX_PIXELS {
            return Err(format!("says that {file_name} has {width} x {height} pixels"));
        }
        if places.insert(id, images.len()).is_some() {
            return Err(format!("has two images with the id {id}"));
        }
        images.push(Image { name: file_name, size: (width, height), objects: Vec::new() });
    }
    let (all, mut drawn) = (file.annotations.len(), 0);
    for Annotation { image_id, category_id, segmentation } in file.annotations {
        let &place =
            places.get(&image_id).ok_or(format!("has an object of image {image_id}, which it does not list"))?;
        let &category =
            categories.get(&category_id).ok_or(format!("has an object of the unknown category {category_id}"))?;
        let image: &mut Image = &mut images[place];
        let shape = match segmentation {
            Some(Segmentation::Polygons(polygons)) if !polygons.is_empty() => Shape::Polygons(polygons),
            Some(Segmentation::Runs { size: [height, width], counts }) => {
                if (width, height) != image.size {
                    return Err(format!("has a mask of {width} x {height} pixels for {}", image.name));
                }
                Shape::Runs(counts.runs()?)
            }
            _ => continue,
        };
        drawn += 1;
        image.objects.push(Object { category, shape });
    }
    if drawn == 0 {
        return Err(format!("has {all} objects, but none with an outline: boxes alone make no label map"));
    }
    if drawn < all {
        log::warn!("{}: {} of {all} objects have no outline and are left out", path.display(), all - drawn);
    }
    Ok((file.categories.into_iter().map(|category| category.name).collect(), images))
}

impl Counts {
    /// Text holds each length in groups of 5 bits, lowest first, in characters from '0' on; bit 5 says that more follow,
    /// and from the third length on it is the difference to the one before the last (maskApi.c, rleFrString).
    fn runs(self) -> Result<Vec<u32>, String> {
        let text = match self {
            Counts::Numbers(runs) => return Ok(runs),
            Counts::Text(text) => text,
        };
        let broken = || "has a run length mask whose text is damaged".to_string();
        let mut runs: Vec<u32> = Vec::new();
        let mut bytes = text.bytes();
        while bytes.len() > 0 {
            let (mut value, mut shift) = (0i64, 0);
            loop {
                let bits =
                    bytes.next().and_then(|byte| byte.checked_sub(48)).filter(|bits| *bits < 64).ok_or_else(broken)?;
                value |= i64::from(bits & 31) << shift;
                shift += 5;
                if shift > 40 {
                    return Err(broken());
                }
                if bits & 32 == 0 {
                    if bits & 16 != 0 {
                        value |= -1 << shift;
                    }
                    break;
                }
            }
            if runs.len() > 2 {
                value += i64::from(runs[runs.len() - 2]);
            }
            runs.push(u32::try_from(value).map_err(|_| broken())?);
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_lengths_as_text_are_read_as_pycocotools_writes_them() {
        // pycocotools.mask.encode of a 10 × 10 mask with rows 2 to 4 of columns 3 to 6 set, and row 7 of column 1.
        let runs = Counts::Text("a01>2I00000l0".into()).runs();
        assert_eq!(runs, Ok(vec![17, 1, 14, 3, 7, 3, 7, 3, 7, 3, 35]));
        assert!(Counts::Text("P".into()).runs().is_err());
        assert!(Counts::Text("\u{7f}".into()).runs().is_err());
    }
}
