//! Resizing exactly as PIL does: images by its antialiased bilinear filter bit for bit, labels by its nearest rule.
//!
//! The image kernel is Pillow's `Resample.c`: a triangle as wide as the scale when shrinking, weights in 22-bit fixed
//! point, a horizontal pass and then a vertical one (the other way round for tall images, as Pillow 13 does), each
//! rounded to u8. The order and the rounding matter: another kernel's off-by-ones change up to 0.2 % of the labels that
//! a network gives.
//!
//! The horizontal pass takes several rows at once, side by side, so that one weight serves them all. Rows go on through
//! a ring that holds little more than the vertical filter spans, so that they stay in the cache, and all memory is
//! reused from image to image.

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

/// Rows that pass the horizontal filter together, so that a weight is fetched once for all of them.
const GROUP: usize = 4;

/// The same pixel of [`GROUP`] rows, four bytes each, of which the last counts for nothing.
type Column = [u8; 4 * GROUP];

/// The image kernel with its memory.
#[derive(Default)]
pub struct Resizer {
    horizontal: Filter,
    vertical: Filter,
    /// Source rows, side by side.
    group: Vec<Column>,
    /// Those rows at the target width.
    filtered: Vec<Column>,
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
        // Spans are handled at full length, the weights behind their end being zero.
        self.group.resize(source.width as usize + self.horizontal.taps, [0; 4 * GROUP]);
        self.filtered.resize(width as usize, [0; 4 * GROUP]);
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
        let slot_bytes = self.filtered.len() * 3;
        // A span, and what comes with its first and last row.
        let slots = (self.vertical.taps + GROUP - 1).next_multiple_of(GROUP);
        self.ring.resize(slots * slot_bytes, 0);
        let last = source.height as usize - 1;
        let mut filled = 0;
        for (y, to) in out.enumerate() {
            let (start, weights) = self.vertical.at(y);
            // Rows that are in no span are left out.
            filled = filled.max(start / GROUP * GROUP);
            while filled < start + weights.len() {
                let row = |i: usize| &source.pixels[(filled + i).min(last) * source_bytes..][..source_bytes];
                interleave(std::array::from_fn(row), flip, &mut self.group);
                horizontal_pass(&self.group, &self.horizontal, &mut self.filtered);
                let slot = &mut self.ring[filled % slots * slot_bytes..][..GROUP * slot_bytes];
                separate(&self.filtered, slot.chunks_exact_mut(slot_bytes));
                filled += GROUP;
            }
            vertical_pass(Rows { bytes: &self.ring, slots, slot_bytes, start: start % slots }, weights, to);
        }
    }

    fn vertical_first<'a>(&mut self, source: Image, flip: bool, mut out: impl Iterator<Item = &'a mut [u8]>) {
        let (slots, slot_bytes) = (source.height as usize, source.width as usize * 3);
        self.ring.resize(GROUP * slot_bytes, 0);
        for first in (0..self.vertical.spans.len()).step_by(GROUP) {
            for (y, between) in (first..self.vertical.spans.len()).zip(self.ring.chunks_exact_mut(slot_bytes)) {
                let (start, weights) = self.vertical.at(y);
                vertical_pass(Rows { bytes: source.pixels, slots, slot_bytes, start }, weights, between);
            }
            interleave(std::array::from_fn(|i| &self.ring[i * slot_bytes..][..slot_bytes]), flip, &mut self.group);
            horizontal_pass(&self.group, &self.horizontal, &mut self.filtered);
            separate(&self.filtered, out.by_ref().take(GROUP));
        }
    }
}

/// Lays rows of RGB side by side, mirrored if `flip`.
fn interleave(rows: [&[u8]; GROUP], flip: bool, group: &mut [Column]) {
    let rows = rows.map(|row| row.as_chunks::<3>().0);
    let width = rows[0].len();
    let rows = rows.map(|row| &row[..width]);
    let lay = |(x, to): (usize, &mut Column)| {
        for (to, row) in to.as_chunks_mut::<4>().0.iter_mut().zip(rows) {
            let [r, g, b] = row[x];
            *to = [r, g, b, 0];
        }
    };
    if flip {
        group[..width].iter_mut().rev().enumerate().for_each(lay);
    } else {
        group[..width].iter_mut().enumerate().for_each(lay);
    }
}

/// The inverse of [`interleave`].
fn separate<'a>(group: &[Column], rows: impl Iterator<Item = &'a mut [u8]>) {
    for (i, row) in rows.enumerate() {
        for (to, column) in row.as_chunks_mut::<3>().0.iter_mut().zip(group) {
            to.copy_from_slice(&column[4 * i..4 * i + 3]);
        }
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
    weights: Vec<u32>,
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
        let center = |i: usize| (i as f64 + 0.5) * scale;
        self.spans.clear();
        self.spans.extend((0..target as usize).map(|i| {
            let first = (center(i) - support + 0.5) as usize;
            let end = ((center(i) + support + 0.5) as usize).min(source as usize);
            (first, end - first)
        }));
        self.taps = self.spans.iter().map(|&(_, length)| length).max().unwrap_or(0);
        self.weights.clear();
        let mut raw = Vec::with_capacity(self.taps);
        for (i, &(first, length)) in self.spans.iter().enumerate() {
            let center = center(i);
            raw.clear();
            raw.extend((first..first + length).map(|x| {
                let distance = (x as f64 - center + 0.5) * (1.0 / support);
                (1.0 - distance.abs()).max(0.0)
            }));
            let sum: f64 = raw.iter().sum();
            let fixed = |weight: &f64| (0.5 + weight / sum * f64::from(1 << PRECISION)) as u32;
            self.weights.extend(raw.iter().map(fixed));
            self.weights.resize((i + 1) * self.taps, 0);
        }
    }

    fn at(&self, target: usize) -> (usize, &[u32]) {
        let (start, length) = self.spans[target];
        (start, &self.weights[target * self.taps..][..length])
    }
}

/// Rounds a sum of weighted pixels. The weights of a long span may add up to a little more than one.
#[inline(always)]
fn round(sum: u32) -> u8 {
    (sum >> PRECISION).min(255) as u8
}

/// Half a unit, which makes the shift round to nearest.
const HALF: u32 = 1 << (PRECISION - 1);

#[multiversion(targets("x86_64+avx2", "x86_64+sse4.1"))]
fn horizontal_pass(group: &[Column], filter: &Filter, out: &mut [Column]) {
    // Loops of a known length are unrolled and stay in registers. Enlarging takes 2 taps, halving 4.
    match filter.taps {
        2 => horizontal_taps::<2>(group, filter, out),
        3 => horizontal_taps::<3>(group, filter, out),
        4 => horizontal_taps::<4>(group, filter, out),
        _ => horizontal_any(group, filter, out),
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // iterators make it a tenth slower
fn horizontal_taps<const TAPS: usize>(group: &[Column], filter: &Filter, out: &mut [Column]) {
    let (all_weights, _) = filter.weights.as_chunks::<TAPS>();
    for ((&(start, _), weights), to) in filter.spans.iter().zip(all_weights).zip(out) {
        let pixels = &group[start..start + TAPS];
        // Not in closures: those are compiled without the features of this version.
        let mut sums = [HALF; 4 * GROUP];
        for tap in 0..TAPS {
            for lane in 0..4 * GROUP {
                sums[lane] += u32::from(pixels[tap][lane]) * weights[tap];
            }
        }
        *to = sums.map(round);
    }
}

#[inline(always)]
fn horizontal_any(group: &[Column], filter: &Filter, out: &mut [Column]) {
    let all_weights = filter.weights.chunks_exact(filter.taps);
    for ((&(start, length), weights), to) in filter.spans.iter().zip(all_weights).zip(out) {
        let mut sums = [HALF; 4 * GROUP];
        for (pixels, &weight) in group[start..start + length].iter().zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(pixels) {
                *sum += u32::from(value) * weight;
            }
        }
        *to = sums.map(round);
    }
}

/// Neighbouring rows in a ring of them.
#[derive(Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    slots: usize,
    slot_bytes: usize,
    /// Slot of the first row.
    start: usize,
}

impl<'a> Rows<'a> {
    /// The first `length` bytes of row `number`.
    #[inline(always)]
    fn row(&self, number: usize, length: usize) -> &'a [u8] {
        &self.bytes[(self.start + number) % self.slots * self.slot_bytes..][..length]
    }
}

#[multiversion(targets("x86_64+avx2", "x86_64+sse4.1"))]
fn vertical_pass(rows: Rows, weights: &[u32], out: &mut [u8]) {
    match *weights {
        [a] => vertical_taps(rows, [a], out),
        [a, b] => vertical_taps(rows, [a, b], out),
        [a, b, c] => vertical_taps(rows, [a, b, c], out),
        [a, b, c, d] => vertical_taps(rows, [a, b, c, d], out),
        _ => vertical_any(rows, weights, out),
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop)] // iterators make it a tenth slower
fn vertical_taps<const TAPS: usize>(rows: Rows, weights: [u32; TAPS], out: &mut [u8]) {
    let rows: [&[u8]; TAPS] = std::array::from_fn(|tap| rows.row(tap, out.len()));
    for (x, to) in out.iter_mut().enumerate() {
        let mut sum = HALF;
        for tap in 0..TAPS {
            sum += u32::from(rows[tap][x]) * weights[tap];
        }
        *to = round(sum);
    }
}

/// Sums stay in registers for 32 bytes at a time.
#[inline(always)]
fn vertical_any(rows: Rows, weights: &[u32], out: &mut [u8]) {
    const LANES: usize = 32;
    let length = out.len();
    for (block, to) in out.chunks_mut(LANES).enumerate() {
        let mut sums = [HALF; LANES];
        for (tap, &weight) in weights.iter().enumerate() {
            let values = &rows.row(tap, length)[block * LANES..][..to.len()];
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += u32::from(value) * weight;
            }
        }
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = round(sum);
        }
    }
}
