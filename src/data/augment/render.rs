//! Carries a placement out: pixels and labels of a decoded sample into their place in a batch.

use super::super::label_map::IGNORED;
use super::super::resize::{Image, Resizer, nearest};
use super::super::source::Sample;
use super::turn::Turn;
use super::{Labels, Pixels, Placement};

/// About the mean of images, which the network sees as 0: what is not part of the image.
pub(super) const GREY: [u8; 3] = [124, 116, 104];

/// Memory that one thread reuses from sample to sample.
#[derive(Default)]
pub struct Renderer {
    /// The decoded sample.
    pub sample: Sample,
    resizer: Resizer,
    resized: Vec<u8>,
    columns: Vec<u32>,
    rows: Vec<u32>,
    /// Upper left corner of what is kept of the resized image.
    corner: (u32, u32),
}

impl Renderer {
    /// Begins with the decoded sample: finds each resized pixel in it, and the corner that the label chooses among the
    /// placement's. `classes`: of the label's values.
    pub fn place(&mut self, placement: &Placement, classes: &[i16; 256]) {
        let (width, height) = (self.sample.width, self.sample.height);
        nearest(width, placement.whole.0, &mut self.columns);
        nearest(height, placement.whole.1, &mut self.rows);
        if placement.mirrored {
            self.columns.iter_mut().for_each(|x| *x = width - 1 - *x);
        }
        let (last, others) = placement.corners.split_last().expect("a placement has a corner");
        let passes = |corner: &&(u32, u32)| self.passes(**corner, placement, classes);
        self.corner = *others.iter().find(passes).unwrap_or(last);
    }

    /// Whether the part from `corner` on shows two classes or more, and none on more than the placement's share of it.
    fn passes(&self, corner: (u32, u32), placement: &Placement, classes: &[i16; 256]) -> bool {
        let (left, top) = (corner.0 as usize, corner.1 as usize);
        let (width, height) = placement.size();
        let mut values = [0u32; 256];
        for row in &self.rows[top..][..height as usize] {
            let line = &self.sample.label[(row * self.sample.width) as usize..];
            for column in &self.columns[left..][..width as usize] {
                values[usize::from(line[*column as usize])] += 1;
            }
        }
        let mut counts = [0u32; 256];
        for (count, class) in values.iter().zip(classes) {
            if let Ok(class) = u8::try_from(*class) {
                counts[usize::from(class)] += count;
            }
        }
        let (most, all) = (counts.iter().max().copied().unwrap_or(0), counts.iter().sum::<u32>());
        counts.iter().filter(|count| **count > 0).count() > 1 && f64::from(most) < placement.share * f64::from(all)
    }

    /// Writes the image into `out`, row y at y · `stride` bytes; after [`Renderer::place`].
    pub fn image(&mut self, placement: &Placement, out: &mut [u8], stride: usize) {
        let Sample { width, height, image, .. } = &self.sample;
        let source = Image { width: *width, height: *height, pixels: image };
        let (size, whole) = (placement.size(), placement.whole);
        let mut pixels = Pixels { width: size.0, height: size.1, bytes: out, stride };
        if size == whole && placement.turn == 0.0 {
            self.resizer.resize(source, placement.mirrored, size, pixels.bytes, stride);
        } else {
            let row = whole.0 as usize * 3;
            self.resized.resize(row * whole.1 as usize, 0);
            self.resizer.resize(source, placement.mirrored, whole, &mut self.resized, row);
            let image = Image { width: whole.0, height: whole.1, pixels: &self.resized };
            match Turn::of(placement, self.corner) {
                Some(turn) => turn.image(image, &mut pixels),
                None => {
                    let (left, top) = (self.corner.0 as usize * 3, self.corner.1 as usize);
                    for (to, from) in pixels.rows().zip(self.resized.chunks_exact(row).skip(top)) {
                        to.copy_from_slice(&from[left..][..to.len()]);
                    }
                }
            }
        }
        placement.edits.iter().for_each(|edit| edit.image(&mut pixels));
    }

    /// Writes the label, shrunk by `rate` and mapped by `classes`, into `out`, row y at y · `stride`; after
    /// [`Renderer::place`].
    ///
    /// The reference resizes the label like the image, fills it up with ignored pixels to a multiple of `rate`, and
    /// takes the pixel in the middle of each block of `rate` × `rate`; all by nearest, so one look-up does it.
    pub fn label(&mut self, placement: &Placement, rate: u32, classes: &[i16; 256], out: &mut [i64], stride: usize) {
        let (width, height) = placement.size();
        let (left, top) = self.corner;
        let turn = Turn::of(placement, self.corner);
        let class = |column: u32, row: u32| {
            let raw = self.sample.label[(row * self.sample.width + column) as usize];
            i64::from(classes[usize::from(raw)])
        };
        let size = (width.div_ceil(rate), height.div_ceil(rate));
        let mut labels = Labels { width: size.0, height: size.1, rate, classes: out, stride };
        for (y, line) in (0..).zip(labels.rows()) {
            let row = y * rate + rate / 2;
            for (x, to) in (0..).zip(line) {
                let column = x * rate + rate / 2;
                let place = match &turn {
                    _ if row >= height || column >= width => None,
                    None => Some(((left + column) as usize, (top + row) as usize)),
                    Some(turn) => turn.nearest(column, row),
                };
                *to = place.map_or(IGNORED, |(x, y)| class(self.columns[x], self.rows[y]));
            }
        }
        placement.edits.iter().for_each(|edit| edit.label(&mut labels));
    }
}
