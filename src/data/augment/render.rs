//! Carries a placement out: pixels and labels of a decoded sample into their place in a batch.

use super::super::label_map::IGNORED;
use super::super::resize::{Image, Resizer, nearest};
use super::super::source::Sample;
use super::{Labels, Pixels, Placement};

/// Memory that one thread reuses from sample to sample.
#[derive(Default)]
pub struct Renderer {
    /// The decoded sample.
    pub sample: Sample,
    resizer: Resizer,
    resized: Vec<u8>,
    columns: Vec<u32>,
    rows: Vec<u32>,
}

impl Renderer {
    /// Writes the image into `out`, row y at y · `stride` bytes.
    pub fn image(&mut self, placement: &Placement, out: &mut [u8], stride: usize) {
        let Sample { width, height, image, .. } = &self.sample;
        let source = Image { width: *width, height: *height, pixels: image };
        let (size, whole) = (placement.size(), placement.whole);
        let mut pixels = Pixels { width: size.0, height: size.1, bytes: out, stride };
        if size == whole {
            self.resizer.resize(source, placement.mirrored, size, pixels.bytes, stride);
        } else {
            let row = whole.0 as usize * 3;
            self.resized.resize(row * whole.1 as usize, 0);
            self.resizer.resize(source, placement.mirrored, whole, &mut self.resized, row);
            let (left, top) = (placement.corner.0 as usize * 3, placement.corner.1 as usize);
            for (to, from) in pixels.rows().zip(self.resized.chunks_exact(row).skip(top)) {
                to.copy_from_slice(&from[left..][..to.len()]);
            }
        }
        placement.edits.iter().for_each(|edit| edit.image(&mut pixels));
    }

    /// Writes the label, shrunk by `rate` and mapped by `classes`, into `out`, row y at y · `stride`.
    ///
    /// The reference resizes the label like the image, fills it up with ignored pixels to a multiple of `rate`, and
    /// takes the pixel in the middle of each block of `rate` × `rate`; all by nearest, so one look-up does it.
    pub fn label(&mut self, placement: &Placement, rate: u32, classes: &[i16; 256], out: &mut [i64], stride: usize) {
        let source_width = self.sample.width;
        nearest(source_width, placement.whole.0, &mut self.columns);
        nearest(self.sample.height, placement.whole.1, &mut self.rows);
        if placement.mirrored {
            self.columns.iter_mut().for_each(|x| *x = source_width - 1 - *x);
        }
        let (width, height) = placement.size();
        let (left, top) = placement.corner;
        let size = (width.div_ceil(rate), height.div_ceil(rate));
        let mut labels = Labels { width: size.0, height: size.1, rate, classes: out, stride };
        for (y, line) in (0..).zip(labels.rows()) {
            let middle = y * rate + rate / 2;
            let row = (middle < height).then(|| self.rows[(top + middle) as usize] * source_width);
            for (x, to) in (0..).zip(line) {
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
        placement.edits.iter().for_each(|edit| edit.label(&mut labels));
    }
}
