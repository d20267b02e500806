//! Images as the network's inputs: read, resized to every size.

use crate::data::DatasetConfig;
use crate::data::dataset::Dataset;
use crate::data::resize::{self, Resizer};
use crate::data::source::Sample;
use crate::fault;
use std::collections::BTreeMap;

/// Images of one shape at one input size.
pub struct Input {
    /// (width, height), multiples of DATASET.padding_constant.
    pub size: (u32, u32),
    /// RGB of all images of the batch, one after the other.
    pub pixels: Vec<u8>,
}

/// One image and its truth.
pub struct Prepared {
    /// In the source.
    pub index: usize,
    /// (width, height) of the image and its labels.
    pub size: (u32, u32),
    /// RGB.
    pub pixels: Vec<u8>,
    /// Class or -1 of every pixel.
    pub truth: Vec<i16>,
}

/// Images that go through the network at once.
pub struct Batch {
    /// In the order of `Input::pixels`.
    pub images: Vec<Prepared>,
    /// One per size in DATASET.imgSizes.
    pub inputs: Vec<Input>,
}

/// The input sizes of an image, one per DATASET.imgSizes: its short edge that long unless the long one would pass
/// imgMaxSize, both rounded up to padding_constant (`ValDataset` in mit_semseg/dataset.py).
pub fn input_sizes(size: (u32, u32), dataset: &DatasetConfig) -> Vec<(u32, u32)> {
    let fit = |&short: &u32| {
        let (width, height) = resize::target_size(size, short, dataset.imgMaxSize);
        let round_up = |edge| resize::round_up(edge, dataset.padding_constant);
        (round_up(width), round_up(height))
    };
    dataset.imgSizes.iter().map(fit).collect()
}

/// Groups images into batches of at most `most`, all of equal input sizes; a function of the sizes alone.
///
/// Batches of similar size are neighbours, so that dealing them in turn gives every rank about the same work.
pub fn batches(sizes: &[(u32, u32)], dataset: &DatasetConfig, most: usize) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<Vec<(u32, u32)>, Vec<usize>> = BTreeMap::new();
    for (index, size) in sizes.iter().enumerate() {
        groups.entry(input_sizes(*size, dataset)).or_default().push(index);
    }
    groups.values().flat_map(|group| group.chunks(most.max(1)).map(<[usize]>::to_vec)).collect()
}

/// Resizes an RGB image to every input size, appending to `inputs`.
pub fn resize_to_all(resizer: &mut Resizer, image: resize::Image, inputs: &mut [Input]) {
    for input in inputs {
        let (width, height) = (input.size.0 as usize, input.size.1 as usize);
        let start = input.pixels.len();
        input.pixels.resize(start + 3 * width * height, 0);
        resizer.resize(image, false, input.size, &mut input.pixels[start..], 3 * width);
    }
}

/// Reads and resizes the images `indices` of `source`, whose input sizes are equal.
pub fn prepare(
    source: &Dataset,
    dataset: &DatasetConfig,
    indices: &[usize],
    resizer: &mut Resizer,
) -> anyhow::Result<Batch> {
    let mut images = Vec::with_capacity(indices.len());
    let mut inputs = indices.first().map_or_else(Vec::new, |first| empty_inputs(source.sizes()[*first], dataset));
    for &index in indices {
        let mut sample = Sample::default();
        source.read(index, &mut sample).map_err(fault::classified)?;
        let (width, height) = (sample.width, sample.height);
        resize_to_all(resizer, resize::Image { width, height, pixels: &sample.image }, &mut inputs);
        let classes = source.label_map().table();
        let truth = sample.label.iter().map(|raw| classes[usize::from(*raw)]).collect();
        images.push(Prepared { index, size: (width, height), pixels: sample.image, truth });
    }
    Ok(Batch { images, inputs })
}

/// Inputs for images of `size`, without pixels yet.
pub fn empty_inputs(size: (u32, u32), dataset: &DatasetConfig) -> Vec<Input> {
    input_sizes(size, dataset).into_iter().map(|size| Input { size, pixels: Vec::new() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(sizes: &[u32]) -> DatasetConfig {
        DatasetConfig { imgSizes: sizes.to_vec(), imgMaxSize: 1000, padding_constant: 8, ..Default::default() }
    }

    #[test]
    fn sizes_are_the_references() {
        assert_eq!(input_sizes((683, 512), &dataset(&[300, 600])), [(400, 304), (800, 600)]);
        assert_eq!(input_sizes((4000, 100), &dataset(&[300])), [(1000, 32)]);
        assert_eq!(input_sizes((1, 1), &dataset(&[300])), [(304, 304)]);
    }

    #[test]
    fn batches_hold_every_image_once_and_only_equal_shapes() {
        let sizes = [(640, 480), (480, 640), (320, 240), (640, 480), (641, 480)];
        let dataset = dataset(&[300]);
        let batches = batches(&sizes, &dataset, 2);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        for batch in batches {
            assert!(batch.len() <= 2);
            assert!(batch.iter().all(|i| input_sizes(sizes[*i], &dataset) == input_sizes(sizes[batch[0]], &dataset)));
        }
    }
}
