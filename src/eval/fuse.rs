//! From scores at the network's stride to labels at the image's own size, pixel by pixel.
//!
//! The reference (test.py, eval.py) upsamples every scale's scores to the image (classes · height · width floats, 2.6 GB
//! for 4.4 megapixels and 150 classes), takes their softmax, adds the scales up and looks for the largest. Here each
//! pixel runs through all of that at once, in the first-level cache: bilinear interpolation (`align_corners=False`),
//! softmax, mean over maps, argmax. Nothing of the image's size is kept but the labels, and no pixel's result depends on
//! threads. One map alone needs no softmax, for it does not change which score is the largest.

use multiversion::multiversion;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Classes are handled in groups of this many, so that a compiler can use vector registers.
const LANES: usize = 8;
/// The score of the classes that fill up the last group: no class is ever less likely.
const FILLER: f32 = -1e30;

/// The scores of one pass over an image, before softmax.
pub struct ScoreMap {
    width: usize,
    height: usize,
    /// Floats a pixel: the classes, rounded up to whole groups.
    depth: usize,
    /// (height, width, depth).
    scores: Vec<f32>,
}

impl ScoreMap {
    /// Takes logits (classes, h, w) of any device.
    pub fn new(logits: &Tensor) -> Result<ScoreMap, tch::TchError> {
        let (classes, height, width) = logits.size3()?;
        let depth = (classes as usize).next_multiple_of(LANES);
        let filled = [0, depth as i64 - classes];
        let pixels = logits.to_kind(Kind::Float).to_device(Device::Cpu).permute([1, 2, 0]);
        let pixels = pixels.f_pad(filled, "constant", f64::from(FILLER))?.contiguous().flatten(0, -1);
        let (width, height) = (width as usize, height as usize);
        Ok(ScoreMap { width, height, depth, scores: Vec::try_from(&pixels)? })
    }
}

/// What the maps say of an image.
pub struct Fused {
    /// The most likely class of every pixel, row by row.
    pub labels: Vec<u8>,
    /// Σ over labelled pixels of −log of the mean score of their truth; 0 where no truth was given.
    pub nll: f64,
}

/// Fuses the maps of one image, `maps` of any size over the same classes, at most 256, to its own `width` × `height`.
///
/// `truth`: class or negative of every pixel, where the likelihood is asked for.
pub fn fuse(maps: &[ScoreMap], (width, height): (u32, u32), truth: Option<&[i16]>) -> Fused {
    let (width, height) = (width as usize, height as usize);
    let columns: Vec<Vec<Position>> = maps.iter().map(|map| positions(map.width, width)).collect();
    let rows: Vec<Vec<Position>> = maps.iter().map(|map| positions(map.height, height)).collect();
    let mut labels = vec![0u8; width * height];
    let fuse_one = |memory: &mut Memory, (y, labels): (usize, &mut [u8])| {
        for ((map, rows), row) in maps.iter().zip(&rows).zip(&mut memory.rows) {
            let line = map.width * map.depth;
            let scores = |y: usize| &map.scores[y * line..(y + 1) * line];
            row.resize(line, 0.0);
            interpolate(scores(rows[y].low), scores(rows[y].high), rows[y].weight, row);
        }
        let truth = truth.map(|truth| &truth[y * width..(y + 1) * width]);
        fuse_row(memory, &columns, labels, truth)
    };
    let memory = || Memory::new(maps);
    let lines = labels.par_chunks_mut(width.max(1)).enumerate();
    // Summed in the order of rows, so that threads do not show in the last digits.
    let nll = lines.map_init(memory, fuse_one).collect::<Vec<f64>>().iter().sum();
    Fused { labels, nll }
}

/// Where an output pixel lies between two input pixels.
struct Position {
    low: usize,
    high: usize,
    weight: f32,
}

/// The positions of `output` pixels over `input` ones, in f32 as torch computes them.
fn positions(input: usize, output: usize) -> Vec<Position> {
    let scale = input as f32 / output as f32;
    let position = |at: usize| {
        let source = (scale * (at as f32 + 0.5) - 0.5).max(0.0);
        let low = (source as usize).min(input - 1);
        Position { low, high: (low + 1).min(input - 1), weight: (source - low as f32).clamp(0.0, 1.0) }
    };
    (0..output).map(position).collect()
}

/// What one thread needs, kept from row to row.
struct Memory {
    depth: usize,
    /// Per map: its scores at the height of the present output row, (map width, depth).
    rows: Vec<Vec<f32>>,
    /// One pixel's scores of one map.
    pixel: Vec<f32>,
    /// One pixel's summed softmax of all maps.
    sum: Vec<f32>,
}

impl Memory {
    fn new(maps: &[ScoreMap]) -> Memory {
        let depth = maps.first().map_or(0, |map| map.depth);
        Memory { depth, rows: vec![Vec::new(); maps.len()], pixel: vec![0.0; depth], sum: vec![0.0; depth] }
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn interpolate(low: &[f32], high: &[f32], weight: f32, out: &mut [f32]) {
    lerp(low, high, weight, out);
}

/// Labels one output row; returns its summed negative log likelihood.
#[multiversion(targets("x86_64+avx2"))]
fn fuse_row(memory: &mut Memory, columns: &[Vec<Position>], labels: &mut [u8], truth: Option<&[i16]>) -> f64 {
    let Memory { depth, rows, pixel, sum } = memory;
    let mut nll = 0.0;
    for (x, label) in labels.iter_mut().enumerate() {
        let at_pixel = |map: usize, pixel: &mut [f32]| {
            let Position { low, high, weight } = columns[map][x];
            lerp(&rows[map][low * *depth..][..*depth], &rows[map][high * *depth..][..*depth], weight, pixel);
        };
        if rows.len() == 1 && truth.is_none() {
            at_pixel(0, pixel);
            *label = largest(pixel) as u8;
            continue;
        }
        sum.fill(0.0);
        for map in 0..rows.len() {
            at_pixel(map, pixel);
            add_softmax(pixel, sum);
        }
        *label = largest(sum) as u8;
        if let Some(class) = truth.and_then(|truth| usize::try_from(truth[x]).ok()) {
            nll -= f64::from((sum[class] / rows.len() as f32).max(f32::MIN_POSITIVE)).ln();
        }
    }
    nll
}

#[inline(always)]
fn lerp(low: &[f32], high: &[f32], weight: f32, out: &mut [f32]) {
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = low * (1.0 - weight) + high * weight;
    }
}

/// Adds the softmax of `scores` to `sum`.
#[inline(always)]
fn add_softmax(scores: &mut [f32], sum: &mut [f32]) {
    let mut most = [f32::MIN; LANES];
    for group in scores.as_chunks::<LANES>().0 {
        for (most, score) in most.iter_mut().zip(group) {
            *most = if score > most { *score } else { *most };
        }
    }
    let most = most.into_iter().fold(f32::MIN, f32::max);
    let mut totals = [0.0; LANES];
    for group in scores.as_chunks_mut::<LANES>().0 {
        for (total, score) in totals.iter_mut().zip(group) {
            *score = exp(*score - most);
            *total += *score;
        }
    }
    let scale = 1.0 / totals.iter().sum::<f32>();
    for (sum, score) in sum.iter_mut().zip(scores) {
        *sum += *score * scale;
    }
}

/// Index of the largest value; the first of equal ones.
#[inline(always)]
fn largest(values: &[f32]) -> usize {
    let mut most = [f32::MIN; LANES];
    let mut groups = [0u32; LANES];
    for (at, group) in values.as_chunks::<LANES>().0.iter().enumerate() {
        for lane in 0..LANES {
            let larger = group[lane] > most[lane];
            most[lane] = if larger { group[lane] } else { most[lane] };
            groups[lane] = if larger { at as u32 } else { groups[lane] };
        }
    }
    let index = |lane: usize| groups[lane] as usize * LANES + lane;
    let better = |a: usize, b: usize| most[b] > most[a] || (most[b] == most[a] && index(b) < index(a));
    index((1..LANES).fold(0, |best, lane| if better(best, lane) { lane } else { best }))
}

/// e^x for x ≤ 0, to 2 units in the last place down to e^-87, which stands for all that is smaller.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 ÷ 2; the Taylor polynomial gives e^r, the float's exponent 2^n. Written out because
/// the library's function cannot be vectorised.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2^23: added to a small float, it rounds it to a whole number in the sum's lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let tail = 1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0)));
    let power = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    (1.0 + r * (1.0 + r * (0.5 + r * tail))) * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The reference's way: upsample everything, softmax, mean, argmax.
    fn by_torch(logits: &[Tensor], (width, height): (u32, u32)) -> Tensor {
        let scores = logits.iter().map(|map| {
            let size = [i64::from(height), i64::from(width)];
            map.unsqueeze(0).upsample_bilinear2d(size, false, None, None).softmax(1, Kind::Float)
        });
        scores.reduce(|a, b| a + b).unwrap().squeeze_dim(0) / logits.len() as f64
    }

    #[test]
    fn exp_is_exact_to_the_last_bits() {
        for step in 0..8700 {
            let x = -(step as f32) / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "{x}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(-1e30) < 1e-37);
    }

    #[test]
    fn the_first_of_equal_scores_wins() {
        let mut values = vec![0.5f32; 24];
        assert_eq!(largest(&values), 0);
        (values[19], values[12]) = (0.75, 0.75);
        assert_eq!(largest(&values), 12);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn labels_and_likelihood_are_those_of_whole_tensors(
            seed in 0i64..1000, classes in 2i64..20, sizes in prop::collection::vec((1i64..9, 1i64..9), 1..4),
            width in 1u32..40, height in 1u32..40,
        ) {
            tch::manual_seed(seed);
            let draw = |(h, w): &(i64, i64)| Tensor::randn([classes, *h, *w], (Kind::Float, Device::Cpu)) * 4.0;
            let logits: Vec<Tensor> = sizes.iter().map(draw).collect();
            let maps: Vec<ScoreMap> = logits.iter().map(|map| ScoreMap::new(map).unwrap()).collect();
            let expected = by_torch(&logits, (width, height));
            let truth: Vec<i16> = (0..width * height).map(|at| (at as i64 % (classes + 1) - 1) as i16).collect();
            let with_truth = fuse(&maps, (width, height), Some(&truth));
            prop_assert_eq!(&fuse(&maps, (width, height), None).labels.len(), &with_truth.labels.len());
            let mut nll = 0.0;
            for (at, label) in with_truth.labels.iter().enumerate() {
                let pixel = [at as i64 / i64::from(width), at as i64 % i64::from(width)];
                let scores: Vec<f64> = (0..classes).map(|c| expected.double_value(&[c, pixel[0], pixel[1]])).collect();
                let most = scores.iter().copied().fold(0.0, f64::max);
                prop_assert!(scores[usize::from(*label)] >= most - 1e-5, "{:?} {}", scores, label);
                if let Ok(class) = usize::try_from(truth[at]) {
                    nll -= scores[class].ln();
                }
            }
            prop_assert!((nll - with_truth.nll).abs() <= 1e-3 * nll.max(1.0), "{} {}", nll, with_truth.nll);
        }
    }
}
