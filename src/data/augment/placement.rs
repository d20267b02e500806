//! What is done to one sample: where its pixels go, and how they are edited there.

use std::fmt::Debug;

/// What transforms have decided for one sample.
#[derive(Debug)]
pub struct Placement {
    source: (u32, u32),
    short_edge: u32,
    pub(super) mirrored: bool,
    /// Width and height of the whole image once resized.
    pub(super) whole: (u32, u32),
    /// Upper left corners, in the resized image, of the parts of which one is kept: the first that `share` lets pass, else
    /// the last.
    pub(super) corners: Vec<(u32, u32)>,
    /// What one class may have of the labelled pixels of that part, but for the last one's.
    pub(super) share: f64,
    /// Radians by which what is kept is turned about its middle.
    pub(super) turn: f64,
    size: (u32, u32),
    pub(super) edits: Vec<Box<dyn Edit>>,
}

/// A change of pixels in their place.
pub trait Edit: Debug + Send + Sync {
    /// Changes the image.
    fn image(&self, image: &mut Pixels);

    /// Changes the label, where what the pixels show has changed.
    fn label(&self, _: &mut Labels) {}
}

/// A sample's image in its batch.
pub struct Pixels<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    pub(super) bytes: &'a mut [u8],
    /// Bytes from row to row.
    pub(super) stride: usize,
}

impl Pixels<'_> {
    /// The rows, RGB, 3 · width bytes each.
    pub fn rows(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let bytes = self.width as usize * 3;
        self.bytes.chunks_mut(self.stride).take(self.height as usize).map(move |row| &mut row[..bytes])
    }
}

/// A sample's label in its batch: classes, -1 for ignored.
pub struct Labels<'a> {
    /// Classes in a row: the image's width ÷ rate, rounded up.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Image pixels per class, in one direction: the one at (x, y) is that of pixel (x · rate + rate ÷ 2, …).
    pub rate: u32,
    pub(super) classes: &'a mut [i64],
    pub(super) stride: usize,
}

impl Labels<'_> {
    /// The rows of classes.
    pub fn rows(&mut self) -> impl Iterator<Item = &mut [i64]> {
        let width = self.width as usize;
        self.classes.chunks_mut(self.stride).take(self.height as usize).map(move |row| &mut row[..width])
    }
}

impl Placement {
    /// The image as it is, `source` its width and height.
    pub(super) fn new(source: (u32, u32), short_edge: u32) -> Placement {
        Placement {
            source,
            short_edge,
            mirrored: false,
            whole: source,
            corners: vec![(0, 0)],
            share: 1.0,
            turn: 0.0,
            size: source,
            edits: Vec::new(),
        }
    }

    /// (width, height) of the image file.
    pub fn source(&self) -> (u32, u32) {
        self.source
    }

    /// The short edge that samples of this step are resized to.
    pub fn short_edge(&self) -> u32 {
        self.short_edge
    }

    /// (width, height) after all that was decided so far; in the end, in the batch.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Mirrors left to right.
    pub fn mirror(&mut self) {
        self.mirrored = !self.mirrored;
        self.turn = -self.turn;
        let (whole, width) = (self.whole.0, self.size.0);
        self.corners.iter_mut().for_each(|corner| corner.0 = whole - corner.0 - width);
    }

    /// Gives it another size, of at least one pixel. After a crop, what was left out grows alike, and all of it is
    /// resized: crop last.
    pub fn resize(&mut self, (width, height): (u32, u32)) {
        let (width, height) = (width.max(1), height.max(1));
        let grown =
            |edge: u32, size: u32, new: u32| (f64::from(edge) * f64::from(new) / f64::from(size)).round() as u32;
        let whole =
            (grown(self.whole.0, self.size.0, width).max(width), grown(self.whole.1, self.size.1, height).max(height));
        for corner in &mut self.corners {
            corner.0 = grown(corner.0, self.size.0, width).min(whole.0 - width);
            corner.1 = grown(corner.1, self.size.1, height).min(whole.1 - height);
        }
        (self.whole, self.size) = (whole, (width, height));
    }

    /// Keeps the part of this size, as far as there is one, from `corner` on, its left and top.
    pub fn crop(&mut self, (left, top): (u32, u32), (width, height): (u32, u32)) {
        let (left, top) = (left.min(self.size.0 - 1), top.min(self.size.1 - 1));
        self.corners.iter_mut().for_each(|corner| *corner = (corner.0 + left, corner.1 + top));
        self.size = (width.clamp(1, self.size.0 - left), height.clamp(1, self.size.1 - top));
    }

    /// Keeps a part of `size`, as far as there is one, from one of `corners` on, of which there is one at least: from the
    /// first where two classes or more are seen and none has as much as `share` of the labelled pixels, else from the last.
    pub fn crop_by_label(&mut self, corners: &[(u32, u32)], (width, height): (u32, u32), share: f64) {
        let size = (width.clamp(1, self.size.0), height.clamp(1, self.size.1));
        let most = (self.size.0 - size.0, self.size.1 - size.1);
        let from = self.corners[0];
        self.corners =
            corners.iter().map(|corner| (from.0 + corner.0.min(most.0), from.1 + corner.1.min(most.1))).collect();
        (self.size, self.share) = (size, share);
    }

    /// Turns what is kept about its middle, by radians, against the clock; what comes into view from outside of the image
    /// is grey and has no label. Call after the crop, so that the corners are filled from what lies around it.
    pub fn rotate(&mut self, angle: f64) {
        self.turn += angle;
    }

    /// Edits the pixels once they are in their place.
    pub fn edit(&mut self, edit: impl Edit + 'static) {
        self.edits.push(Box::new(edit));
    }
}
