//! One sample on its way into a batch: mirrored, resized, cropped, recoloured; its label shrunk to the network's output.
//!
//! What happens to a sample is a function of (seed, pass, sample) and of its step's short edge, so it is the same on any
//! rank and thread, and its final size is known before its bytes are read. By default it is what the reference does
//! (`TrainDataset.__getitem__`): a flip, and a resize.

use super::DatasetConfig;
use super::label_map::IGNORED;
use super::random::{KeyedRng, Purpose};
use super::resize::{Image, Resizer, nearest, round_up, target_size};
use super::source::Sample;

/// The configured changes.
pub struct Augment {
    seed: u64,
    flip: bool,
    max_size: u32,
    /// Side of a random crop; 0: none.
    crop: u32,
    scale: [f64; 2],
    color: f64,
}

/// What happens to one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Width and height in the batch.
    pub size: (u32, u32),
    /// Mirror left to right, before anything else.
    pub flip: bool,
    /// Width and height before the crop.
    resized: (u32, u32),
    /// Upper left corner of the crop.
    corner: (u32, u32),
    /// Factors of brightness, contrast and saturation.
    color: Option<[f32; 3]>,
}

impl Augment {
    /// Takes the keys that change samples.
    pub fn new(config: &DatasetConfig, seed: u64) -> Augment {
        Augment {
            seed,
            flip: config.random_flip,
            max_size: config.imgMaxSize,
            crop: config.crop,
            scale: config.scale_jitter,
            color: config.color_jitter,
        }
    }

    /// What happens in `pass` to `sample`, whose width and height are `source`.
    pub fn place(&self, source: (u32, u32), pass: u64, sample: u32, short_edge: u32) -> Placement {
        let flip = self.flip && KeyedRng::new(self.seed, Purpose::Flip, pass, sample.into()).below(2) == 1;
        let mut random = KeyedRng::new(self.seed, Purpose::Jitter, pass, sample.into());
        let (width, height) = target_size(source, short_edge, self.max_size);
        let factor = random.between(self.scale[0], self.scale[1]);
        let scaled = |edge: u32| ((f64::from(edge) * factor) as u32).max(1);
        let resized = (scaled(width), scaled(height));
        let side = if self.crop == 0 { u32::MAX } else { self.crop };
        let size = (resized.0.min(side), resized.1.min(side));
        let mut offset = |from: u32, to: u32| random.below(u64::from(from - to) + 1) as u32;
        let corner = (offset(resized.0, size.0), offset(resized.1, size.1));
        let mut strength = || random.between(1.0 - self.color, 1.0 + self.color).max(0.0) as f32;
        let color = (self.color > 0.0).then(|| [strength(), strength(), strength()]);
        Placement { size, flip, resized, corner, color }
    }
}

/// Width and height of a batch: both hold every sample and are multiples of padding_constant and of the label's rate.
pub fn padded_size(sizes: &[(u32, u32)], padding_constant: u32, rate: u32) -> (u32, u32) {
    let (constant, rate) = (padding_constant.max(1), rate.max(1));
    let multiple = (1..rate).map(|k| k * constant).find(|multiple| multiple % rate == 0).unwrap_or(rate * constant);
    let largest = |edge: fn(&(u32, u32)) -> u32| round_up(sizes.iter().map(edge).max().unwrap_or(0), multiple);
    (largest(|size| size.0), largest(|size| size.1))
}

/// Memory that one thread reuses from sample to sample.
#[derive(Default)]
pub struct Scratch {
    /// The decoded sample.
    pub sample: Sample,
    resizer: Resizer,
    resized: Vec<u8>,
    columns: Vec<u32>,
    rows: Vec<u32>,
}

impl Scratch {
    /// Writes the image into `out`, row y at y · `stride` bytes.
    pub fn image(&mut self, placement: &Placement, out: &mut [u8], stride: usize) {
        let Sample { width, height, image, .. } = &self.sample;
        let source = Image { width: *width, height: *height, pixels: image };
        let (width, height) = (placement.size.0 as usize, placement.size.1 as usize);
        if placement.size == placement.resized {
            self.resizer.resize(source, placement.flip, placement.size, out, stride);
        } else {
            let whole = placement.resized.0 as usize * 3;
            self.resized.resize(whole * placement.resized.1 as usize, 0);
            self.resizer.resize(source, placement.flip, placement.resized, &mut self.resized, whole);
            let (left, top) = (placement.corner.0 as usize, placement.corner.1 as usize);
            let rows = self.resized.chunks_exact(whole).skip(top).map(|row| &row[left * 3..][..width * 3]);
            for (to, from) in out.chunks_mut(stride).zip(rows).take(height) {
                to[..width * 3].copy_from_slice(from);
            }
        }
        if let Some(factors) = placement.color {
            recolor(out.chunks_mut(stride).take(height).map(|row| &mut row[..width * 3]), factors);
        }
    }

    /// Writes the label, shrunk by `rate` and mapped by `classes`, into `out`, row y at y · `stride`.
    ///
    /// The reference resizes the label like the image, fills it up with ignored pixels to a multiple of `rate`, and
    /// takes the pixel in the middle of each block of `rate` × `rate`; all by nearest, so one look-up does it.
    pub fn label(&mut self, placement: &Placement, rate: u32, classes: &[i16; 256], out: &mut [i64], stride: usize) {
        let source_width = self.sample.width;
        nearest(source_width, placement.resized.0, &mut self.columns);
        nearest(self.sample.height, placement.resized.1, &mut self.rows);
        if placement.flip {
            self.columns.iter_mut().for_each(|x| *x = source_width - 1 - *x);
        }
        let (width, height) = placement.size;
        let (left, top) = placement.corner;
        for (y, line) in (0..height.div_ceil(rate)).zip(out.chunks_mut(stride)) {
            let middle = y * rate + rate / 2;
            let row = (middle < height).then(|| self.rows[(top + middle) as usize] * source_width);
            for (x, to) in (0..width.div_ceil(rate)).zip(line) {
                let middle = x * rate + rate / 2;
                *to = match row {
                    Some(row) if middle < width => {
                        let raw = self.sample.label[(row + self.columns[(left + middle) as usize]) as usize];
                        classes[usize::from(raw)].into()
                    }
                    _ => IGNORED,
                };
            }
        }
    }
}

/// An image as evaluation takes it: RGB bytes, row by row.
pub struct EvalImage {
    /// A multiple of padding_constant.
    pub width: u32,
    /// A multiple of padding_constant.
    pub height: u32,
    /// 3 · width · height bytes.
    pub pixels: Vec<u8>,
}

/// Resizes a whole image for evaluation at one short edge, into a size that is rounded up and not padded (the
/// reference's `ValDataset`).
pub fn eval_image(sample: &Sample, short_edge: u32, max_size: u32, padding_constant: u32) -> EvalImage {
    let (width, height) = target_size((sample.width, sample.height), short_edge, max_size);
    let (width, height) = (round_up(width, padding_constant), round_up(height, padding_constant));
    let source = Image { width: sample.width, height: sample.height, pixels: &sample.image };
    let stride = width as usize * 3;
    let mut pixels = vec![0; stride * height as usize];
    Resizer::default().resize(source, false, (width, height), &mut pixels, stride);
    EvalImage { width, height, pixels }
}

/// Changes brightness, then contrast about the mean grey, then saturation about each pixel's grey.
///
/// Grey is ITU-R 601 luma, as in torchvision's `ColorJitter`, which draws the order of the three as well.
fn recolor<'a>(rows: impl Iterator<Item = &'a mut [u8]>, [brightness, contrast, saturation]: [f32; 3]) {
    let luma = |pixel: &[u8]| 0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]);
    let mut rows: Vec<&mut [u8]> = rows.collect();
    let (mut sum, mut count) = (0.0, 0.0f64);
    for pixel in rows.iter().flat_map(|row| row.chunks_exact(3)) {
        sum += f64::from(luma(pixel));
        count += 1.0;
    }
    let mean = (sum / count.max(1.0)) as f32 * brightness;
    for pixel in rows.iter_mut().flat_map(|row| row.chunks_exact_mut(3)) {
        let grey = mean + contrast * (luma(pixel) * brightness - mean);
        for value in pixel {
            let bright = f32::from(*value) * brightness;
            let contrasted = mean + contrast * (bright - mean);
            *value = (grey + saturation * (contrasted - grey)).round() as u8;
        }
    }
}
