//! The bytes of JPEG, PNG, TIFF, BMP and WebP files, whatever their names: to RGB as Pillow's `convert("RGB")` makes it,
//! or to raw label values.
//!
//! A file's container is told from its first bytes. What has no single meaning as RGB or as a label is refused by name.

mod bitmap;
mod exif;
mod jpeg;
mod png;
mod raster;
mod tiff;

pub use raster::{RawLabel, Values};

use crate::shard::MAX_PIXELS;
use raster::Raster;
use std::io::{BufRead, Cursor, Seek};

/// Why bytes are not an image or a label map. The caller adds the file's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No container that is known, by its first bytes.
    #[error("is no JPEG, PNG, TIFF, BMP or WebP file by its first bytes; convert it to PNG")]
    Format,
    /// Label maps are lossless.
    #[error(
        "is {0}, which changes the values of labels near every edge; save it without loss (PNG), or pack with \
         --nearest-color N, which takes the nearest value that the label map knows, up to the distance N"
    )]
    LossyLabel(&'static str),
    /// Damaged or cut short.
    #[error("is not a sound {0} file: {1}")]
    Damaged(&'static str, String),
    /// A kind of image that has no single meaning as RGB of 8 bits.
    #[error("is {0}; convert it to RGB of 8 bits a channel")]
    ImageKind(String),
    /// A kind of image that is not a label map.
    #[error("is {0}; a label holds whole grey values from 0 to 65535, palette indices or RGB colours of 8 bits")]
    LabelKind(String),
    /// Values that only a label map gives a meaning.
    #[error("has label values up to {0}; name them in a label map (VALUE: CLASS), or let segdist init write one")]
    WideLabel(u16),
    /// Colours, and no label map.
    #[error("has colours such as {0}; name them in a label map (\"#rrggbb\": CLASS), or let segdist init write one")]
    ColorLabel(String),
    /// More pixels than [`MAX_PIXELS`].
    #[error("has {0} x {1} pixels, more than {MAX_PIXELS} in all")]
    TooLarge(u32, u32),
}

/// Containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Jpeg,
    Png,
    Tiff,
    Bmp,
    WebP,
}

impl Format {
    /// Tells the container from the first bytes of a file.
    pub fn of(bytes: &[u8]) -> Option<Format> {
        const TIFF: [&[u8]; 4] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
        Some(match bytes {
            _ if bytes.starts_with(&[0xff, 0xd8, 0xff]) => Format::Jpeg,
            _ if bytes.starts_with(b"\x89PNG\r\n\x1a\n") => Format::Png,
            _ if TIFF.iter().any(|start| bytes.starts_with(start)) => Format::Tiff,
            _ if bytes.starts_with(b"BM") => Format::Bmp,
            _ if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => Format::WebP,
            _ => return None,
        })
    }
}

/// Decodes a file to RGB, row by row, 3 bytes a pixel, as it is stored. Returns (width, height).
pub fn image(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    match Format::of(bytes).ok_or(DecodeError::Format)? {
        Format::Jpeg => jpeg::image(bytes, rgb),
        Format::Png => png::image(bytes, rgb),
        other => {
            let raster = raster_of(other, bytes)?;
            let size = raster.size;
            raster.into_rgb(rgb)?;
            Ok(size)
        }
    }
}

/// Decodes like [`image`], and turns the image upright where that gives it the size `wanted`: the label's. Returns its
/// size, and whether EXIF asked for a turn.
pub fn image_of_size(bytes: &[u8], rgb: &mut Vec<u8>, wanted: (u32, u32)) -> Result<((u32, u32), bool), DecodeError> {
    let size = image(bytes, rgb)?;
    match upright_size(Cursor::new(bytes)) {
        Some(upright) if upright == wanted => {
            turn_upright(bytes, size, rgb);
            Ok((upright, true))
        }
        _ => Ok((size, false)),
    }
}

/// Decodes a JPEG file and turns it as EXIF asks. Returns (width, height).
pub fn image_upright(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    let size = image(bytes, rgb)?;
    Ok(turn_upright(bytes, size, rgb))
}

fn turn_upright(bytes: &[u8], size: (u32, u32), rgb: &mut Vec<u8>) -> (u32, u32) {
    let Some(orientation) = jpeg::orientation(Cursor::new(bytes)) else { return size };
    orientation.turn(size, rgb);
    orientation.upright_size(size)
}

/// The upright size of a JPEG file whose EXIF block asks for a turn or a mirror; None for all others.
pub fn upright_size(mut file: impl BufRead + Seek) -> Option<(u32, u32)> {
    (Format::of(file.fill_buf().ok()?)? == Format::Jpeg).then_some(())?;
    let orientation = jpeg::orientation(&mut file)?;
    file.rewind().ok()?;
    Some(orientation.upright_size(jpeg::size(file).ok()?))
}

/// (width, height) of an image from its header alone, as it is stored.
pub fn size(mut file: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    let start = file.fill_buf().map_err(|error| DecodeError::Damaged("image", error.to_string()))?;
    match Format::of(start).ok_or(DecodeError::Format)? {
        Format::Jpeg => jpeg::size(file),
        Format::Png => png::size(file),
        Format::Tiff => tiff::size(file),
        Format::Bmp => bitmap::bmp_size(file),
        Format::WebP => bitmap::webp_size(file),
    }
}

/// Decodes a label file to its raw values.
pub fn raw_label(bytes: &[u8]) -> Result<RawLabel, DecodeError> {
    raster_of(Format::of(bytes).ok_or(DecodeError::Format)?, bytes)?.into_label()
}

/// Decodes a label file whose values are bytes: grey values up to 255, palette indices, or three equal channels.
/// Returns (width, height).
pub fn label(bytes: &[u8], values: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    if Format::of(bytes) == Some(Format::Png)
        && let Some(size) = png::byte_label(bytes, values)?
    {
        return Ok(size);
    }
    let raw = raw_label(bytes)?;
    if raw.lossy {
        return Err(DecodeError::LossyLabel(raw.format));
    }
    let size = raw.size;
    *values = raw.into_bytes()?;
    Ok(size)
}

/// RGB of `size` as a PNG file that is quick to write and to read.
pub fn to_png(size: (u32, u32), rgb: &[u8]) -> Vec<u8> {
    png::encode(size, rgb)
}

/// `#rrggbb`.
pub fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn raster_of(format: Format, bytes: &[u8]) -> Result<Raster, DecodeError> {
    match format {
        Format::Jpeg => jpeg::label(bytes),
        Format::Png => png::raster(bytes),
        Format::Tiff => tiff::raster(bytes),
        Format::Bmp => bitmap::bmp(bytes),
        Format::WebP => bitmap::webp(bytes),
    }
}

fn check_pixels((width, height): (u32, u32)) -> Result<(), DecodeError> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge(width, height));
    }
    Ok(())
}

fn one_line(text: String) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
