//! Resizing exactly as PIL does: images by its antialiased bilinear filter bit for bit, labels by its nearest rule.
//!
//! The image kernel is Pillow's `Resample.c`: a triangle as wide as the scale when shrinking, weights in 22-bit fixed
//! point, a horizontal pass and then a vertical one (the other way round for tall images, as Pillow 13 does), each
//! rounded to u8. The order and the rounding matter: another kernel's off-by-ones change up to 0.2 % of the labels that
//! a network gives.
//!
//! Rows pass through a ring that holds as many as the vertical filter spans, so that they stay in the cache, and all
//! memory is reused from image to image.

use multiversion::multiversion;

/// Fraction bits of a weight; 8 more for the pixel and 2 for the sum fill an i32.
const PRECISION: u32 = 32 - 8 - 2;

/// Width and height of a sample whose short edge becomes `short_edge`, or less where its long edge would pass `max_size`.
///
/// Truncated like the reference's (`TrainDataset.__getitem__`), but never to nothing.
pub fn target_size((width, height): (u32, u32), short_edge: u32, max_size: u32) -> (u32, u32) {
    let by_short = f64::from(short_edge) / f64::from(width.min(height));
    let by_long = f64::from(max_size) / f64::from(width.max(height));
    let scale = by_short.min(by_long);
    let scaled = |edge: u32| ((f64::from(edge) * scale) as u32).max(1);
    (scaled(width), scaled(height))
}

/// `edge` rounded up to a multiple.
pub fn round_up(edge: u32, multiple: u32) -> u32 {
    edge.div_ceil(multiple.max(1)) * multiple.max(1)
}

/// For every target pixel of one axis, the source pixel that PIL's nearest rule takes, into `out`.
///
/// The position is summed up step by step as `ImagingScaleAffine` does, for its rounding errors are part of the result.
pub fn nearest(source: u32, target: u32, out: &mut Vec<u32>) {
    let scale = f64::from(source) / f64::from(target);
    let mut position = scale * 0.5;
    out.clear();
    out.extend((0..target).map(|_| {
        let index = (position as u32).min(source.saturating_sub(1));
        position += scale;
        index
    }));
}

/// An RGB image: 3 · width · height bytes, row by row.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The bytes.
    pub pixels: &'a [u8],
}

/// The image kernel with its memory.
#[derive(Default)]
pub struct Resizer {
    horizontal: Filter,
    vertical: Filter,
    /// One source row, and a byte behind it.
    row: Vec<u8>,
    /// Rows between the passes. Horizontal first: source row y is in slot y modulo the number of slots.
    ring: Vec<u8>,
}

impl Resizer {
    /// Resizes `source` to `width` × `height`, mirrored left to right first if `flip`.
    ///
    /// `out` gets row y at y · `stride` bytes; bytes between rows are left alone.
    ///
    /// # Panics
    /// When `source` is not as long as it says, or `out` is too short.
    pub fn resize(&mut self, source: Image, flip: bool, (width, height): (u32, u32), out: &mut [u8], stride: usize) {
        self.horizontal.set(source.width, width);
        self.vertical.set(source.height, height);
        // Pixels are handled as four bytes, so the last one of a row touches the byte behind it.
        // Spans are handled at full length, the weights behind their end being zero.
        self.row.resize((source.width as usize + self.horizontal.taps) * 3 + 1, 0);
        let rows = out.chunks_mut(stride).take(height as usize).map(|row| &mut row[..width as usize * 3]);
        let shrunk = i64::from(source.height) - i64::from(height);
        if shrunk > 0 && shrunk > 2 * (i64::from(source.width) - i64::from(width)) {
            self.vertical_first(source, flip, rows);
        } else {
            self.horizontal_first(source, flip, rows);
        }
    }

    fn horizontal_first<'a>(&mut self, source: Image, flip: bool, out: impl Iterator<Item = &'a mut [u8]>) {
        let source_bytes = source.width as usize * 3;
        let slots = self.vertical.taps;
        let slot_bytes = self.horizontal.spans.len() * 3 + 1;
        self.ring.resize(slots * slot_bytes, 0);
        let mut filled = 0;
        for (y, to) in out.enumerate() {
            let (start, weights) = self.vertical.at(y);
            for line in filled.max(start)..start + weights.len() {
                copy_row(&source.pixels[line * source_bytes..][..source_bytes], flip, &mut self.row);
                let slot = &mut self.ring[line % slots * slot_bytes..][..slot_bytes];
                horizontal_pass(&self.row, &self.horizontal, slot);
            }
            filled = start + weights.len();
            vertical_pass(Rows { ring: &self.ring, slots, slot_bytes, start: start % slots }, weights, to);
        }
    }

    fn vertical_first<'a>(&mut self, source: Image, flip: bool, out: impl Iterator<Item = &'a mut [u8]>) {
        let source_bytes = source.width as usize * 3;
        let slot_bytes = self.horizontal.spans.len() * 3 + 1;
        self.ring.resize(source_bytes + slot_bytes, 0);
        let (between, last) = self.ring.split_at_mut(source_bytes);
        for (y, to) in out.enumerate() {
            let (start, weights) = self.vertical.at(y);
            let slots = source.height as usize;
            vertical_pass(Rows { ring: source.pixels, slots, slot_bytes: source_bytes, start }, weights, between);
            copy_row(between, flip, &mut self.row);
            horizontal_pass(&self.row, &self.horizontal, &mut last[..slot_bytes]);
            to.copy_from_slice(&last[..slot_bytes - 1]);
        }
    }
}

fn copy_row(pixels: &[u8], flip: bool, row: &mut [u8]) {
    if flip {
        for (to, from) in row.chunks_exact_mut(3).zip(pixels.chunks_exact(3).rev()) {
            to.copy_from_slice(from);
        }
    } else {
        row[..pixels.len()].copy_from_slice(pixels);
    }
}

/// The weights of one axis.
#[derive(Default)]
struct Filter {
    source: u32,
    target: u32,
    /// Most source pixels that a target pixel is made of.
    taps: usize,
    /// First source pixel and number of source pixels, for every target pixel.
    spans: Vec<(usize, usize)>,
    /// `taps` weights for every target pixel, in fixed point.
    weights: Vec<i32>,
}

impl Filter {
    /// Computes the weights (`precompute_coeffs` and `normalize_coeffs_8bpc` of Pillow's `Resample.c`).
    fn set(&mut self, source: u32, target: u32) {
        if (self.source, self.target) == (source, target) {
            return;
        }
        (self.source, self.target) = (source, target);
        let scale = f64::from(source) / f64::from(target);
        let support = scale.max(1.0);
        self.taps = support.ceil() as usize * 2 + 1;
        self.spans.clear();
        self.weights.clear();
        let mut raw = Vec::with_capacity(self.taps);
        for i in 0..target {
            let center = (f64::from(i) + 0.5) * scale;
            let first = (center - support + 0.5) as u32;
            let end = ((center + support + 0.5) as u32).min(source);
            raw.clear();
            raw.extend((first..end).map(|x| {
                let distance = (f64::from(x) - center + 0.5) * (1.0 / support);
                (1.0 - distance.abs()).max(0.0)
            }));
            let sum: f64 = raw.iter().sum();
            let fixed = |weight: &f64| (0.5 + weight / sum * f64::from(1 << PRECISION)) as i32;
            self.spans.push((first as usize, raw.len()));
            self.weights.extend(raw.iter().map(fixed));
            self.weights.resize(self.spans.len() * self.taps, 0);
        }
    }

    fn at(&self, target: usize) -> (usize, &[i32]) {
        let (start, length) = self.spans[target];
        (start, &self.weights[target * self.taps..][..length])
    }
}

/// Rounds a sum of weighted pixels. Weights are not negative and add up to one, so only the upper bound needs care.
#[inline(always)]
fn round(sum: i32) -> u8 {
    (sum >> PRECISION).min(255) as u8
}

/// Half a unit, which makes the shift round to nearest.
const HALF: i32 = 1 << (PRECISION - 1);

#[multiversion(targets("x86_64+avx2", "x86_64+sse4.1"))]
fn horizontal_pass(row: &[u8], filter: &Filter, out: &mut [u8]) {
    // Loops of a known length are unrolled and stay in registers. Enlarging takes 3 taps, halving 5.
    match filter.taps {
        3 => horizontal_taps::<3>(row, filter, out),
        5 => horizontal_taps::<5>(row, filter, out),
        _ => horizontal_any(row, filter, out),
    }
}

#[inline(always)]
fn horizontal_taps<const TAPS: usize>(row: &[u8], filter: &Filter, out: &mut [u8]) {
    let (all_weights, _) = filter.weights.as_chunks::<TAPS>();
    for (x, (&(start, _), weights)) in filter.spans.iter().zip(all_weights).enumerate() {
        let pixels = &row[3 * start..][..3 * TAPS + 1];
        let mut sums = [HALF; 4];
        for tap in 0..TAPS {
            for c in 0..4 {
                sums[c] += i32::from(pixels[3 * tap + c]) * weights[tap];
            }
        }
        for (to, sum) in out[3 * x..3 * x + 4].iter_mut().zip(sums) {
            *to = round(sum);
        }
    }
}

#[inline(always)]
fn horizontal_any(row: &[u8], filter: &Filter, out: &mut [u8]) {
    let all_weights = filter.weights.chunks_exact(filter.taps);
    for (x, (&(start, length), weights)) in filter.spans.iter().zip(all_weights).enumerate() {
        let pixels = &row[3 * start..][..3 * length + 1];
        let mut sums = [HALF; 4];
        for (tap, &weight) in weights[..length].iter().enumerate() {
            for (sum, &value) in sums.iter_mut().zip(&pixels[3 * tap..3 * tap + 4]) {
                *sum += i32::from(value) * weight;
            }
        }
        for (to, sum) in out[3 * x..3 * x + 4].iter_mut().zip(sums) {
            *to = round(sum);
        }
    }
}

/// Neighbouring rows in the ring.
#[derive(Clone, Copy)]
struct Rows<'a> {
    ring: &'a [u8],
    slots: usize,
    slot_bytes: usize,
    /// Slot of the first row.
    start: usize,
}

impl Rows<'_> {
    /// Adds every row's values from byte `from` on, weighted.
    #[inline(always)]
    fn add<const LANES: usize>(&self, from: usize, weights: &[i32]) -> [i32; LANES] {
        let mut sums = [HALF; LANES];
        let mut slot = self.start;
        for &weight in weights {
            let values = &self.ring[slot * self.slot_bytes + from..][..LANES];
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += i32::from(value) * weight;
            }
            // Cheaper than a division for every row.
            slot = if slot + 1 == self.slots { 0 } else { slot + 1 };
        }
        sums
    }
}

#[multiversion(targets("x86_64+avx2", "x86_64+sse4.1"))]
fn vertical_pass(rows: Rows, weights: &[i32], out: &mut [u8]) {
    const LANES: usize = 32;
    let whole = out.len() / LANES * LANES;
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    for (i, block) in blocks.iter_mut().enumerate() {
        let sums = rows.add::<LANES>(i * LANES, weights);
        for (to, sum) in block.iter_mut().zip(sums) {
            *to = round(sum);
        }
    }
    for (i, to) in rest.iter_mut().enumerate() {
        let [sum] = rows.add::<1>(whole + i, weights);
        *to = round(sum);
    }
}
