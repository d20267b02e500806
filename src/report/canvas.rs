//! A raster to draw on: rectangles, lines and small text. All drawing is clipped to the raster.

use super::picture;
use font8x8::legacy::BASIC_LEGACY;

/// Side of a character at scale 1, in pixels.
pub const GLYPH: i64 = 8;

/// An RGB raster.
#[derive(Clone)]
pub struct Canvas {
    /// In pixels.
    pub width: i64,
    /// In pixels.
    pub height: i64,
    /// Row by row, 3 · width · height bytes.
    pub pixels: Vec<u8>,
}

impl Canvas {
    /// A raster of one colour.
    pub fn new(width: i64, height: i64, background: [u8; 3]) -> Canvas {
        Canvas { width, height, pixels: background.repeat((width * height) as usize) }
    }

    /// Sets a pixel, if it is on the raster.
    pub fn put(&mut self, x: i64, y: i64, colour: [u8; 3]) {
        if (0..self.width).contains(&x) && (0..self.height).contains(&y) {
            let at = 3 * (y * self.width + x) as usize;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// Fills a rectangle, given its top left corner and size.
    pub fn rectangle(&mut self, (x, y): (i64, i64), (width, height): (i64, i64), colour: [u8; 3]) {
        for row in y.max(0)..(y + height).min(self.height) {
            for column in x.max(0)..(x + width).min(self.width) {
                self.put(column, row, colour);
            }
        }
    }

    /// Copies an RGB picture of `width` columns to (x, y).
    pub fn paste(&mut self, (x, y): (i64, i64), width: i64, pixels: &[u8]) {
        for (at, pixel) in pixels.as_chunks::<3>().0.iter().enumerate() {
            self.put(x + at as i64 % width, y + at as i64 / width, *pixel);
        }
    }

    /// A straight line two pixels thick.
    pub fn line(&mut self, (x0, y0): (f64, f64), (x1, y1): (f64, f64), colour: [u8; 3]) {
        let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().clamp(1.0, 1e5);
        for step in 0..=steps as i64 {
            let part = step as f64 / steps;
            let (x, y) = ((x0 + part * (x1 - x0)).round() as i64, (y0 + part * (y1 - y0)).round() as i64);
            self.rectangle((x, y), (2, 2), colour);
        }
    }

    /// Writes a line of text with its top left corner at (x, y); what is not ASCII appears as `?`.
    pub fn text(&mut self, (x, y): (i64, i64), scale: i64, text: &str, colour: [u8; 3]) {
        for (position, character) in text.chars().enumerate() {
            let glyph = BASIC_LEGACY.get(character as usize).unwrap_or(&BASIC_LEGACY['?' as usize]);
            let left = x + position as i64 * GLYPH * scale;
            for (row, bits) in glyph.iter().enumerate() {
                for column in (0..GLYPH).filter(|column| bits >> column & 1 == 1) {
                    let corner = (left + column * scale, y + row as i64 * scale);
                    self.rectangle(corner, (scale, scale), colour);
                }
            }
        }
    }

    /// The raster as a PNG.
    pub fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        picture::rgb(self.width as u32, self.height as u32, &self.pixels)
    }
}

/// Width of a text at `scale`, in pixels.
pub fn text_width(text: &str, scale: i64) -> i64 {
    text.chars().count() as i64 * GLYPH * scale
}
