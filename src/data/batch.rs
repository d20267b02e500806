//! A micro-batch on the host, and its way to the device.

use super::DatasetConfig;
use super::resize::round_up;
use crate::loss::IGNORE;
use crate::torch::memory::f32_slice;
use crate::torch::upload::upload;
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// Mean of ImageNet's red, green and blue in [0, 1]; what the reference's networks expect to be subtracted.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Their standard deviations.
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Decoded, augmented and padded samples.
pub struct HostBatch {
    /// Index in the global batch of the first sample.
    pub first: usize,
    /// Indices into the list.
    pub samples: Vec<u32>,
    /// Padded width.
    pub width: u32,
    /// Padded height.
    pub height: u32,
    /// (width, height) of every image inside the padded area, from the top left corner.
    pub sizes: Vec<(u32, u32)>,
    /// u8 RGB, (n, height, width, 3); bytes outside the images are unspecified.
    pub images: Vec<u8>,
    /// Class or -1 (or the padding label), (n, height ÷ rate, width ÷ rate).
    pub labels: Vec<i64>,
    /// Labels that are not -1.
    pub valid: u64,
    /// Image pixels per label pixel, one direction.
    pub rate: u32,
    /// Where the memory goes back to.
    pub(super) home: Arc<Buffers>,
}

/// A batch as the network takes it.
pub struct DeviceBatch {
    /// f32 (n, 3, height, width): ((value ÷ 255) − mean) ÷ std, 0 in the padding.
    pub images: Tensor,
    /// i64 (n, height ÷ rate, width ÷ rate).
    pub labels: Tensor,
}

impl DeviceBatch {
    /// No images at all: what a rank runs that has no micro-batch left, to take part in batch statistics.
    pub fn empty(device: Device) -> DeviceBatch {
        let (images, labels) = ([0, 3, 64, 64], [0, 8, 8]);
        let (images, labels) =
            (Tensor::zeros(images, (Kind::Float, device)), Tensor::zeros(labels, (Kind::Int64, device)));
        DeviceBatch { images, labels }
    }
}

impl HostBatch {
    /// Images of one size without padding: `size` is (width, height), `pixels` their bytes and labels as in
    /// [`HostBatch::images`] and [`HostBatch::labels`].
    ///
    /// # Panics
    /// When there are more or fewer pixels than `samples` and `size` say.
    pub fn new(
        first: usize,
        samples: Vec<u32>,
        size: (u32, u32),
        rate: u32,
        (images, labels): (Vec<u8>, Vec<i64>),
    ) -> HostBatch {
        let (width, height) = size;
        let area = samples.len() * width as usize * height as usize;
        let label_area = samples.len() * (width / rate) as usize * (height / rate) as usize;
        assert!(images.len() == 3 * area && labels.len() == label_area, "as many pixels as the size says");
        let valid = labels.iter().filter(|&&label| label != IGNORE).count() as u64;
        let sizes = vec![size; samples.len()];
        HostBatch { first, samples, width, height, sizes, images, labels, valid, rate, home: Arc::default() }
    }

    /// Copies the batch to the device and normalises it there.
    pub fn to_device(&self, device: Device) -> DeviceBatch {
        DeviceBatch {
            images: normalise(&self.images, (self.width, self.height), &self.sizes, device),
            labels: self.labels(device),
        }
    }

    /// The labels alone.
    pub fn labels(&self, device: Device) -> Tensor {
        let size = [self.samples.len() as i64, (self.height / self.rate).into(), (self.width / self.rate).into()];
        upload(&Tensor::from_slice(&self.labels).view(size), device)
    }
}

impl Drop for HostBatch {
    fn drop(&mut self) {
        self.home.give((std::mem::take(&mut self.images), std::mem::take(&mut self.labels)));
    }
}

/// Memory of batches that are done, for those to come: fresh pages cost as much as the copy into them.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<(Vec<u8>, Vec<i64>)>>);

impl Buffers {
    /// Buffers of any length, empty ones if all are out.
    pub fn take(&self) -> (Vec<u8>, Vec<i64>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, buffers: (Vec<u8>, Vec<i64>)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
    }
}

/// How large a batch is beside its samples.
#[derive(Clone, Copy, Debug)]
pub struct Padding {
    constant: u32,
    rate: u32,
    /// What it has at least, with DATASET.pad_to_crop.
    least: (u32, u32),
}

impl Padding {
    /// Of training's batches.
    pub fn new(config: &DatasetConfig) -> Padding {
        let least = config.crop_size().filter(|_| config.pad_to_crop).unwrap_or((0, 0));
        Padding { constant: config.padding_constant, rate: config.segm_downsampling_rate, least }
    }

    /// Width and height of a batch of these samples.
    pub fn of(&self, sizes: &[(u32, u32)]) -> (u32, u32) {
        let largest = |edge: fn(&(u32, u32)) -> u32| sizes.iter().chain([&self.least]).map(edge).max().unwrap_or(0);
        padded_size(&[(largest(|size| size.0), largest(|size| size.1))], self.constant, self.rate)
    }
}

/// Width and height of a batch: both hold every sample and are multiples of padding_constant and of the label's rate.
pub fn padded_size(sizes: &[(u32, u32)], padding_constant: u32, rate: u32) -> (u32, u32) {
    let (constant, rate) = (padding_constant.max(1), rate.max(1));
    let multiple = (1..rate).map(|k| k * constant).find(|multiple| multiple % rate == 0).unwrap_or(rate * constant);
    let largest = |edge: fn(&(u32, u32)) -> u32| round_up(sizes.iter().map(edge).max().unwrap_or(0), multiple);
    (largest(|size| size.0), largest(|size| size.1))
}

/// RGB bytes (n, height, width, 3) as the network takes them: f32 (n, 3, height, width), 0 outside `sizes`.
///
/// The arithmetic is torchvision's `Normalize` after a division by 255, in f32.
pub fn normalise(pixels: &[u8], padded: (u32, u32), sizes: &[(u32, u32)], device: Device) -> Tensor {
    let size = [sizes.len() as i64, padded.1.into(), padded.0.into(), 3];
    if device == Device::Cpu {
        let mut images = Tensor::empty([size[0], 3, size[1], size[2]], (Kind::Float, device));
        planes(pixels, padded, sizes, &mut f32_slice(&mut images));
        return images;
    }
    let bytes = upload(&Tensor::from_slice(pixels).view(size), device);
    let constant = |values: &[f32]| upload(&Tensor::from_slice(values).view([1, -1, 1, 1]), device);
    let images = bytes.permute([0, 3, 1, 2]).to_kind(Kind::Float).contiguous();
    let images = images.divide(&constant(&[255.0])).subtract_(&constant(&MEAN)).divide_(&constant(&STD));
    for (i, &(width, height)) in sizes.iter().enumerate() {
        let image = images.get(i as i64);
        let _ = image.narrow(2, width.into(), size[2] - i64::from(width)).zero_();
        let _ = image.narrow(1, height.into(), size[1] - i64::from(height)).zero_();
    }
    images
}

/// Normalises on the host: one table look-up a value instead of four passes over a tensor.
fn planes(pixels: &[u8], (width, height): (u32, u32), sizes: &[(u32, u32)], floats: &mut [f32]) {
    let (width, height) = (width as usize, height as usize);
    let table = |c: usize| -> [f32; 256] { std::array::from_fn(|v| (v as f32 / 255.0 - MEAN[c]) / STD[c]) };
    let tables = [table(0), table(1), table(2)];
    let plane = width * height;
    for (i, &(w, h)) in sizes.iter().enumerate() {
        let (w, h) = (w as usize, h as usize);
        let image = &pixels[i * 3 * plane..][..3 * plane];
        let planes = &mut floats[i * 3 * plane..][..3 * plane];
        let (red, rest) = planes.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        for y in 0..h {
            let row = y * width..y * width + width;
            let (red, green, blue) = (&mut red[row.clone()], &mut green[row.clone()], &mut blue[row.clone()]);
            let values = image[row.start * 3..][..w * 3].chunks_exact(3);
            for (((value, r), g), b) in values.zip(&mut *red).zip(&mut *green).zip(&mut *blue) {
                *r = tables[0][usize::from(value[0])];
                *g = tables[1][usize::from(value[1])];
                *b = tables[2][usize::from(value[2])];
            }
            [red, green, blue].into_iter().for_each(|line| line[w..].fill(0.0));
        }
        [red, green, blue].into_iter().for_each(|plane| plane[h * width..].fill(0.0));
    }
}
