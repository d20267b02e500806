//! The orientation that a camera notes in EXIF, and pixels turned as it asks.
//!
//! Pillow's `open` does not apply it, so the reference trains on images as they are stored. Labels drawn in a viewer
//! that does apply it have the upright size; such images are turned (see [`super::image_of_size`]).

/// An orientation other than upright, as EXIF numbers them: 2 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orientation(u8);

impl Orientation {
    /// Reads tag 0x0112 of the first directory of a TIFF block (EXIF 2.3, section 4.6.4).
    pub(super) fn in_tiff(tiff: &[u8]) -> Option<Orientation> {
        let little = tiff.starts_with(b"II");
        let u16_at = |at: usize| {
            let b: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
            Some(if little { u16::from_le_bytes(b) } else { u16::from_be_bytes(b) })
        };
        let u32_at = |at: usize| {
            let b: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
            Some(if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) })
        };
        let directory = u32_at(4)? as usize;
        let entries = u16_at(directory)? as usize;
        let tag = (0..entries).map(|i| directory + 2 + 12 * i).find(|&at| u16_at(at) == Some(0x0112))?;
        u8::try_from(u16_at(tag + 8)?).ok().filter(|value| (2..=8).contains(value)).map(Orientation)
    }

    /// The size of an upright image that is stored in `size`.
    pub fn upright_size(self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.0 >= 5 { (height, width) } else { (width, height) }
    }

    /// Turns RGB pixels that are stored in `size` (Pillow's `ImageOps.exif_transpose`).
    pub fn turn(self, (width, height): (u32, u32), rgb: &mut Vec<u8>) {
        let (to_width, to_height) = self.upright_size((width, height));
        let (right, bottom) = (width - 1, height - 1);
        let mut turned = Vec::with_capacity(rgb.len());
        for (x, y) in (0..to_height).flat_map(|y| (0..to_width).map(move |x| (x, y))) {
            let (from_x, from_y) = match self.0 {
                2 => (right - x, y),
                3 => (right - x, bottom - y),
                4 => (x, bottom - y),
                5 => (y, x),
                6 => (y, bottom - x),
                7 => (right - y, bottom - x),
                _ => (right - y, x),
            };
            let at = (from_y as usize * width as usize + from_x as usize) * 3;
            turned.extend_from_slice(&rgb[at..at + 3]);
        }
        *rgb = turned;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orientation_is_found_in_both_byte_orders() {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!(Orientation::in_tiff(little), Some(Orientation(6)));
        assert_eq!(Orientation::in_tiff(big), Some(Orientation(8)));
        assert_eq!(Orientation::in_tiff(&little[..19]), None);
    }

    #[test]
    fn pixels_are_turned_as_the_standard_draws_it() {
        // Two columns, three rows: 0 1 / 2 3 / 4 5.
        let turned = |orientation: u8| {
            let mut rgb: Vec<u8> = (0..6u8).flat_map(|value| [value; 3]).collect();
            Orientation(orientation).turn((2, 3), &mut rgb);
            rgb.chunks(3).map(|pixel| pixel[0]).collect::<Vec<_>>()
        };
        assert_eq!(turned(2), [1, 0, 3, 2, 5, 4]);
        assert_eq!(turned(3), [5, 4, 3, 2, 1, 0]);
        assert_eq!(turned(4), [4, 5, 2, 3, 0, 1]);
        assert_eq!(turned(5), [0, 2, 4, 1, 3, 5]);
        assert_eq!(turned(6), [4, 2, 0, 5, 3, 1]);
        assert_eq!(turned(7), [5, 3, 1, 4, 2, 0]);
        assert_eq!(turned(8), [1, 3, 5, 0, 2, 4]);
    }
}
