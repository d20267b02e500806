//! A part of an image turned about its middle.

use super::super::resize::Image;
use super::render::GREY;
use super::{Pixels, Placement};

/// From a pixel of the turned part to a place in the whole image.
pub(super) struct Turn {
    sin: f64,
    cos: f64,
    /// Middle of the part, from its corner, and from the image's.
    from: (f64, f64),
    to: (f64, f64),
    /// Of the image.
    size: (u32, u32),
}

impl Turn {
    /// What a placement asks for whose part begins at `corner`; None where that is no turn.
    pub fn of(placement: &Placement, corner: (u32, u32)) -> Option<Turn> {
        let (sin, cos) = placement.turn.sin_cos();
        let middle = |edge: u32| (f64::from(edge) - 1.0) / 2.0;
        let from = (middle(placement.size().0), middle(placement.size().1));
        let to = (from.0 + f64::from(corner.0), from.1 + f64::from(corner.1));
        (placement.turn != 0.0).then_some(Turn { sin, cos, from, to, size: placement.whole })
    }

    /// Where the pixel (x, y) comes from.
    fn source(&self, x: u32, y: u32) -> (f64, f64) {
        let (x, y) = (f64::from(x) - self.from.0, f64::from(y) - self.from.1);
        (self.to.0 + x * self.cos - y * self.sin, self.to.1 + x * self.sin + y * self.cos)
    }

    /// The pixel next to where (x, y) comes from, if it is one of the image.
    pub fn nearest(&self, x: u32, y: u32) -> Option<(usize, usize)> {
        let (x, y) = self.source(x, y);
        let (x, y) = (x.round(), y.round());
        let inside = x >= 0.0 && y >= 0.0 && x < self.size.0.into() && y < self.size.1.into();
        inside.then_some((x as usize, y as usize))
    }

    /// Writes the turned part: each pixel between its four neighbours, grey outside of the image.
    pub fn image(&self, image: Image, out: &mut Pixels) {
        for (y, row) in (0..).zip(out.rows()) {
            for (x, pixel) in (0..).zip(row.chunks_exact_mut(3)) {
                pixel.copy_from_slice(&self.colour(image, x, y));
            }
        }
    }

    fn colour(&self, image: Image, x: u32, y: u32) -> [u8; 3] {
        let (x, y) = self.source(x, y);
        let (left, top) = (x.floor(), y.floor());
        let at = |x: f64, y: f64| -> [u8; 3] {
            if x < 0.0 || y < 0.0 || x >= self.size.0.into() || y >= self.size.1.into() {
                return GREY;
            }
            let start = 3 * (y as usize * image.width as usize + x as usize);
            [0, 1, 2].map(|c| image.pixels[start + c])
        };
        let [first, second, third, fourth] =
            [at(left, top), at(left + 1.0, top), at(left, top + 1.0), at(left + 1.0, top + 1.0)];
        let (right, down) = (x - left, y - top);
        std::array::from_fn(|c| {
            let upper = f64::from(first[c]) * (1.0 - right) + f64::from(second[c]) * right;
            let lower = f64::from(third[c]) * (1.0 - right) + f64::from(fourth[c]) * right;
            (upper * (1.0 - down) + lower * down).round() as u8
        })
    }
}
