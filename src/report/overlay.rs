//! Images under the colours of their classes, with a legend that says which and how much.

use super::canvas::{Canvas, GLYPH, text_width};
use super::palette::Classes;

const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [30, 30, 30];
/// A class below this share of the image is left out of the legend, as in the reference's test.py.
const SMALLEST_SHARE: f64 = 0.001;
/// A picture with fewer pixels is never too large for its legend.
const LARGE: i64 = 16 << 20;
/// Gap between panels and around the legend, in pixels.
const MARGIN: i64 = 8;

/// An image and its size.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// RGB, row by row.
    pub pixels: &'a [u8],
}

/// The classes that a label map holds and their share of all its pixels, largest first.
///
/// Values that are no class (ignored pixels) are in no entry, but count as pixels.
pub fn shares(labels: &[u8], classes: usize) -> Vec<(usize, f64)> {
    let mut counts = [0u64; 256];
    labels.iter().for_each(|label| counts[usize::from(*label)] += 1);
    let share = |(class, count): (usize, &u64)| (class, *count as f64 / labels.len().max(1) as f64);
    let mut shares: Vec<_> = counts.iter().enumerate().take(classes).map(share).filter(|(_, s)| *s > 0.0).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

/// The image blended half and half with the colours of `labels`; class borders are drawn in full colour.
///
/// Pixels that are no class stay as they are. Returns RGB bytes of the image's size.
pub fn blend(image: Image, labels: &[u8], classes: &Classes) -> Vec<u8> {
    let width = image.width as usize;
    let mut pixels = image.pixels.to_vec();
    for (at, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let Some(colour) = classes.colours.get(usize::from(labels[at])) else { continue };
        let differs = |other: Option<&u8>| other.is_some_and(|other| *other != labels[at]);
        let right = (at + 1) % width != 0 && differs(labels.get(at + 1));
        let border = right || differs(labels.get(at + width));
        for (value, colour) in pixel.iter_mut().zip(colour) {
            *value = if border { *colour } else { ((u16::from(*value) + u16::from(*colour)) / 2) as u8 };
        }
    }
    pixels
}

/// The overlay of one label map with a legend of its classes on the right.
pub fn overlay(image: Image, labels: &[u8], classes: &Classes) -> Canvas {
    panels(image, &[blend(image, labels, classes)], labels, classes)
}

/// Image, truth and prediction side by side, with a legend of the predicted classes.
pub fn comparison(image: Image, truth: &[u8], prediction: &[u8], classes: &Classes) -> Canvas {
    let blended = [image.pixels.to_vec(), blend(image, truth, classes), blend(image, prediction, classes)];
    panels(image, &blended, prediction, classes)
}

/// Pictures of the image's size in a row, then the legend.
fn panels(image: Image, pictures: &[Vec<u8>], labels: &[u8], classes: &Classes) -> Canvas {
    let (width, height) = (i64::from(image.width), i64::from(image.height));
    let mut entries: Vec<(usize, String)> = shares(labels, classes.count())
        .into_iter()
        .filter(|(_, share)| *share >= SMALLEST_SHARE)
        .map(|(class, share)| (class, format!("{} {:.1}%", classes.label(class), 100.0 * share)))
        .collect();
    // As large as the image's height bears, for such pictures are mostly looked at smaller than they are.
    let row = |scale: i64| (GLYPH + 4) * scale;
    let fits = |scale: &i64| scale * 240 <= height && entries.len() as i64 * row(*scale) + MARGIN <= height;
    let scale = (2..=4).rev().find(fits).unwrap_or(1);
    let row = row(scale);
    let widest = entries.iter().map(|(_, text)| text_width(text, scale)).max().unwrap_or(0);
    let pictures_width = pictures.len() as i64 * (width + MARGIN);
    let mut full_width = pictures_width + widest + 2 * GLYPH * scale + MARGIN;
    let full_height = height.max(entries.len() as i64 * row + MARGIN);
    // Beside a column of a million pixels a legend would take a thousand times the picture's memory.
    if full_width * full_height > 4 * pictures_width * height + LARGE {
        entries.clear();
        full_width = pictures_width;
    }
    let mut canvas = Canvas::new(full_width, full_height, PAPER);
    for (position, pixels) in pictures.iter().enumerate() {
        canvas.paste((position as i64 * (width + MARGIN), 0), width, pixels);
    }
    for (position, (class, text)) in entries.iter().enumerate() {
        let y = MARGIN / 2 + position as i64 * row;
        canvas.rectangle((pictures_width, y), (GLYPH * scale, GLYPH * scale), classes.colours[*class]);
        canvas.text((pictures_width + GLYPH * scale * 3 / 2, y), scale, text, INK);
    }
    canvas
}
