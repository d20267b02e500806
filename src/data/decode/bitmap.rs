//! BMP and WebP files, by the `image` crate.

use super::raster::{Channels, Raster, Samples};
use super::{DecodeError, check_pixels, one_line};
use image::codecs::{bmp::BmpDecoder, webp::WebPDecoder};
use image::{ColorType, ImageDecoder, ImageError, ImageResult};
use std::io::{BufRead, Cursor, Seek};

/// Decodes a BMP file; of one with a palette, the indices.
pub fn bmp(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let Some(palette) = palette_place(bytes) else {
        return decode("BMP", BmpDecoder::new(Cursor::new(bytes)));
    };
    // The decoder looks colours up. With a palette that says of each index its own number, it hands out the indices.
    let mut numbered = bytes.to_vec();
    let mut colors = Vec::new();
    for (index, entry) in numbered[palette.start..palette.end].chunks_exact_mut(palette.entry).enumerate() {
        colors.push([entry[2], entry[1], entry[0]]);
        entry[..3].fill(index as u8);
    }
    let raster = decode("BMP", BmpDecoder::new(Cursor::new(&numbered[..])))?;
    let Samples::U8(rgb) = raster.samples else { return Err(DecodeError::Format) };
    let samples = Samples::U8(rgb.chunks_exact(raster.channels.count()).map(|pixel| pixel[0]).collect());
    Ok(Raster { channels: Channels::Palette, samples, palette: colors, ..raster })
}

/// Decodes a WebP file, with or without loss.
pub fn webp(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let lossy = bytes.windows(4).take(64).any(|tag| tag == b"VP8 ");
    Ok(Raster { lossy, ..decode("WebP", WebPDecoder::new(Cursor::new(bytes)))? })
}

/// A BMP header's size.
pub fn bmp_size(file: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    Ok(BmpDecoder::new(file).map_err(|error| image_error("BMP", error))?.dimensions())
}

/// A WebP header's size.
pub fn webp_size(file: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    Ok(WebPDecoder::new(file).map_err(|error| image_error("WebP", error))?.dimensions())
}

/// Where a palette stands in a BMP file.
struct PalettePlace {
    start: usize,
    end: usize,
    /// Bytes of an entry.
    entry: usize,
}

/// None where the pixels are no indices.
fn palette_place(bytes: &[u8]) -> Option<PalettePlace> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (pixels, header) = (word(10)? as usize, word(14)? as usize);
    let (bits, used, entry) = match header {
        12 => (word(22)? >> 16, 0, 3),
        _ => (word(26)? >> 16, word(46)?, 4),
    };
    if !matches!(bits, 1 | 2 | 4 | 8) {
        return None;
    }
    let entries = if used == 0 { 1 << bits } else { used.min(1 << bits) } as usize;
    let start = 14usize.checked_add(header)?;
    let end = (start + entries * entry).min(pixels).min(bytes.len());
    (start < end).then_some(PalettePlace { start, end, entry })
}

fn decode(name: &'static str, decoder: ImageResult<impl ImageDecoder>) -> Result<Raster, DecodeError> {
    let decoder = decoder.map_err(|error| image_error(name, error))?;
    let size = decoder.dimensions();
    check_pixels(size)?;
    let channels = match decoder.color_type() {
        ColorType::L8 => Channels::Grey,
        ColorType::Rgb8 => Channels::Rgb,
        ColorType::Rgba8 => Channels::Rgba,
        other => return Err(DecodeError::ImageKind(format!("a {name} file of {other:?}"))),
    };
    let mut samples = vec![0; size.0 as usize * size.1 as usize * channels.count()];
    decoder.read_image(&mut samples).map_err(|error| image_error(name, error))?;
    let (samples, palette) = (Samples::U8(samples), Vec::new());
    let format = if name == "BMP" { "a BMP file" } else { "a WebP file" };
    Ok(Raster { size, channels, samples, bits: 8, palette, lossy: false, format })
}

fn image_error(name: &'static str, error: ImageError) -> DecodeError {
    match error {
        ImageError::Unsupported(what) => DecodeError::ImageKind(one_line(what.to_string())),
        other => DecodeError::Damaged(name, one_line(other.to_string())),
    }
}
