//! Objects drawn by outline, as annotation tools export them, and the label maps that they make.
//!
//! Large objects come first and small ones on top of them, so that what lies on something is not hidden by it. A pixel
//! belongs to a polygon when its centre is inside.

mod coco;
mod polygon;

use super::source::DataError;
use std::collections::BTreeMap;
use std::path::Path;

/// What pixels are that no object covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// No class.
    Ignored,
    /// A class of its own with this index; the categories take the other indices in their order.
    Class(u8),
}

/// The objects of a set of images.
pub struct Instances {
    /// Class names, by class index.
    pub names: Vec<String>,
    /// The images in the order of the file.
    pub images: Vec<Image>,
    by_name: BTreeMap<String, usize>,
    background: Background,
}

/// One image and its objects.
pub struct Image {
    /// Its file's path under the folder of images.
    pub name: String,
    /// (width, height).
    pub size: (u32, u32),
    objects: Vec<Object>,
}

/// One object.
struct Object {
    /// Number of its category, from 0.
    category: usize,
    shape: Shape,
}

/// The pixels of an object.
enum Shape {
    /// All that one of the polygons holds; corners as x, y, x, y, ….
    Polygons(Vec<Vec<f64>>),
    /// Lengths of runs, outside and inside in turn, column by column.
    Runs(Vec<u32>),
}

impl Instances {
    /// Reads a COCO file of instances.
    pub fn coco(file: &Path, background: Background) -> Result<Instances, DataError> {
        let (categories, images) = coco::read(file).map_err(|cause| DataError::Instances(file.into(), cause))?;
        Instances::new(categories, images, background).map_err(|cause| DataError::Instances(file.into(), cause))
    }

    fn new(mut names: Vec<String>, images: Vec<Image>, background: Background) -> Result<Instances, String> {
        if let Background::Class(class) = background {
            if usize::from(class) > names.len() {
                return Err(format!("has {} categories, so --background is at most {}", names.len(), names.len()));
            }
            names.insert(class.into(), "background".into());
        }
        if names.len() > 255 {
            return Err(format!("has {} classes, more than 255", names.len()));
        }
        let by_name = images.iter().enumerate().map(|(at, image)| (image.name.clone(), at)).collect();
        Ok(Instances { names, images, by_name, background })
    }

    /// Draws the label of an image in bytes of the reference's rule: class + 1, 0 for ignored.
    pub fn draw(&self, name: &str, values: &mut Vec<u8>) -> Result<(u32, u32), String> {
        let image = self.by_name.get(name).map(|&at| &self.images[at]).ok_or("it has no objects in the file")?;
        let (width, height) = (image.size.0 as usize, image.size.1 as usize);
        let mut masks = Vec::with_capacity(image.objects.len());
        for object in &image.objects {
            let spans = object.shape.spans(width, height)?;
            let area: usize = spans.iter().map(|span| span.to - span.from).sum();
            masks.push((area, self.byte(object.category), spans));
        }
        // A stable sort: of equal areas the later one stays on top.
        masks.sort_by_key(|&(area, ..)| std::cmp::Reverse(area));
        values.clear();
        values.resize(width * height, self.background_byte());
        for (_, byte, spans) in masks {
            for span in spans {
                values[span.row * width + span.from..span.row * width + span.to].fill(byte);
            }
        }
        Ok(image.size)
    }

    fn background_byte(&self) -> u8 {
        match self.background {
            Background::Ignored => 0,
            Background::Class(class) => class + 1,
        }
    }

    fn byte(&self, category: usize) -> u8 {
        let shifted = match self.background {
            Background::Class(class) if category >= usize::from(class) => category + 1,
            _ => category,
        };
        shifted as u8 + 1
    }
}

/// Pixels `from` to `to` - 1 of a row.
#[derive(Debug, PartialEq, Eq)]
struct Span {
    row: usize,
    from: usize,
    to: usize,
}

impl Shape {
    /// The pixels that the shape covers, each once.
    fn spans(&self, width: usize, height: usize) -> Result<Vec<Span>, String> {
        match self {
            Shape::Polygons(polygons) => Ok(polygon::spans(polygons, width, height)),
            Shape::Runs(runs) => {
                let length: u64 = runs.iter().map(|&run| u64::from(run)).sum();
                if length != (width * height) as u64 {
                    return Err(format!("a run length mask covers {length} pixels of {}", width * height));
                }
                let mut mask = vec![false; width * height];
                let mut at = 0;
                for (number, &run) in runs.iter().enumerate() {
                    if number % 2 == 1 {
                        (at..at + run as usize).for_each(|at| mask[at % height * width + at / height] = true);
                    }
                    at += run as usize;
                }
                Ok(polygon::spans_of(&mask, width))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(category: usize, corners: &[f64]) -> Object {
        Object { category, shape: Shape::Polygons(vec![corners.to_vec()]) }
    }

    fn drawn(objects: Vec<Object>, background: Background) -> Vec<u8> {
        let image = Image { name: "a".into(), size: (4, 2), objects };
        let instances = Instances::new(vec!["x".into(), "y".into()], vec![image], background).unwrap();
        let mut values = Vec::new();
        assert_eq!(instances.draw("a", &mut values), Ok((4, 2)));
        values
    }

    #[test]
    fn small_objects_lie_on_large_ones_whatever_their_order() {
        let small = || object(1, &[1.0, 0.0, 2.0, 0.0, 2.0, 1.0, 1.0, 1.0]);
        let large = || object(0, &[0.0, 0.0, 3.0, 0.0, 3.0, 2.0, 0.0, 2.0]);
        let expected = [2, 3, 2, 1, 2, 2, 2, 1];
        assert_eq!(drawn(vec![small(), large()], Background::Class(0)), expected);
        assert_eq!(drawn(vec![large(), small()], Background::Class(0)), expected);
        assert_eq!(drawn(vec![large(), small()], Background::Ignored), [1, 2, 1, 0, 1, 1, 1, 0]);
        assert_eq!(drawn(vec![large(), small()], Background::Class(2)), [1, 2, 1, 3, 1, 1, 1, 3]);
    }

    #[test]
    fn run_lengths_go_down_the_columns() {
        let runs = |runs: Vec<u32>| Object { category: 0, shape: Shape::Runs(runs) };
        assert_eq!(drawn(vec![runs(vec![1, 2, 5])], Background::Ignored), [0, 1, 0, 0, 1, 0, 0, 0]);
        let image = Image { name: "a".into(), size: (4, 2), objects: vec![runs(vec![1, 2])] };
        let instances = Instances::new(vec!["x".into()], vec![image], Background::Ignored).unwrap();
        assert!(instances.draw("a", &mut Vec::new()).unwrap_err().contains("3 pixels of 8"));
    }
}
