//! JPEG files, by zune-jpeg in strict mode.

use super::exif::Orientation;
use super::raster::{self, Channels, Raster, Samples};
use super::{DecodeError, check_pixels, one_line};
use std::io::{BufRead, Cursor, Seek};
use zune_core::{colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

/// Decodes to RGB.
pub fn image(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    let (mut decoder, (width, height)) = header(Cursor::new(bytes))?;
    let pixels = width as usize * height as usize;
    match decoder.input_colorspace() {
        Some(ColorSpace::RGB | ColorSpace::YCbCr | ColorSpace::Luma) => {
            rgb.resize(pixels * 3, 0);
            decoder.decode_into(rgb).map_err(jpeg_error)?;
        }
        Some(four @ (ColorSpace::CMYK | ColorSpace::YCCK)) => {
            decoder.set_options(options().jpeg_set_out_colorspace(four));
            let mut inks = vec![0; pixels * 4];
            decoder.decode_into(&mut inks).map_err(jpeg_error)?;
            rgb.clear();
            rgb.extend(inks.chunks_exact(4).flat_map(|ink| four_inks(ink, four == ColorSpace::YCCK)));
        }
        other => return Err(DecodeError::ImageKind(format!("a JPEG file in the colour space {other:?}"))),
    }
    Ok((width, height))
}

/// Inks are stored inverted, as Adobe's programs do; Pillow takes that for granted.
fn four_inks(stored: &[u8], ycck: bool) -> [u8; 3] {
    let inverted = match ycck {
        // libjpeg turns Y, Cb, Cr into inverted red, green, blue, and Pillow inverts once more.
        true => raster::ycbcr(stored),
        false => [0, 1, 2].map(|ink| 255 - stored[ink]),
    };
    raster::cmyk(&[inverted[0], inverted[1], inverted[2], 255 - stored[3]])
}

/// A label that was stored with loss: grey, or RGB.
pub fn label(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let (decoder, _) = header(Cursor::new(bytes))?;
    let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let mut rgb = Vec::new();
    let size = image(bytes, &mut rgb)?;
    let (channels, samples) = match is_grey {
        true => (Channels::Grey, rgb.chunks_exact(3).map(|pixel| pixel[0]).collect()),
        false => (Channels::Rgb, rgb),
    };
    let (samples, palette, format) = (Samples::U8(samples), Vec::new(), "a JPEG file");
    Ok(Raster { size, channels, samples, bits: 8, palette, lossy: true, format })
}

/// The header's size.
pub fn size(file: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    header(file).map(|(_, size)| size)
}

/// What EXIF asks viewers to do; None when the image is upright or nothing is said.
pub fn orientation(file: impl BufRead + Seek) -> Option<Orientation> {
    let (decoder, _) = header(file).ok()?;
    Orientation::in_tiff(decoder.exif()?)
}

fn options() -> DecoderOptions {
    // Without strict mode a truncated file decodes to grey without an error.
    DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(u16::MAX.into())
        .set_max_height(u16::MAX.into())
        .jpeg_set_out_colorspace(ColorSpace::RGB)
}

fn header<R: BufRead + Seek>(file: R) -> Result<(JpegDecoder<R>, (u32, u32)), DecodeError> {
    let mut decoder = JpegDecoder::new_with_options(file, options());
    decoder.decode_headers().map_err(jpeg_error)?;
    let info = decoder.info().ok_or_else(|| DecodeError::Damaged("JPEG", "it has no frame".into()))?;
    let size = (u32::from(info.width), u32::from(info.height));
    check_pixels(size)?;
    Ok((decoder, size))
}

fn jpeg_error(error: impl std::fmt::Debug) -> DecodeError {
    DecodeError::Damaged("JPEG", one_line(format!("{error:?}")))
}
