//! JPEG and PNG bytes to RGB, and PNG label maps to bytes, as Pillow's `convert("RGB")` and `mode == "L"` see them.
//!
//! Everything decodes into a vector that the caller reuses. What Pillow would turn into something a label or an image
//! is not (16 bits a channel, CMYK) is refused by name. The orientation in EXIF is not applied, as Pillow does not.

use crate::shard::{Codec, MAX_PIXELS};
use png::{BitDepth, ColorType, Transformations};
use std::io::{BufRead, Cursor, Seek};
use zune_core::{colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

/// Why bytes are not an image or a label map. The caller adds the file's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Neither JPEG nor PNG by its first bytes.
    #[error("is neither a JPEG nor a PNG file")]
    Format,
    /// Label maps are lossless.
    #[error("is a JPEG file; a label map has to be a PNG file")]
    LossyLabel,
    /// Damaged or cut short.
    #[error("is not a sound JPEG file: {0}")]
    Jpeg(String),
    /// Damaged or cut short.
    #[error("is not a sound PNG file: {0}")]
    Png(String),
    /// A kind of image that has no single meaning as RGB of 8 bits.
    #[error("is {0}; convert it to RGB of 8 bits a channel")]
    ImageKind(String),
    /// A kind of PNG that is not a label map.
    #[error("is {0}; a label map is a PNG file of 8-bit grey or of palette indices")]
    LabelKind(String),
    /// More pixels than [`MAX_PIXELS`].
    #[error("has {0} x {1} pixels, more than {MAX_PIXELS} in all")]
    TooLarge(u32, u32),
}

/// Decodes a JPEG or PNG file to RGB, row by row, 3 bytes a pixel. Returns (width, height).
pub fn image(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    match Codec::of(bytes).ok_or(DecodeError::Format)? {
        Codec::Jpeg => jpeg(bytes, rgb),
        Codec::Png => png_image(bytes, rgb),
    }
}

/// (width, height) of an image from its header alone.
pub fn size(mut file: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    let start = file.fill_buf().map_err(|error| DecodeError::Jpeg(error.to_string()))?;
    match Codec::of(start).ok_or(DecodeError::Format)? {
        Codec::Jpeg => jpeg_header(file).map(|(_, size)| size),
        Codec::Png => png_reader(file, Transformations::IDENTITY).map(|(_, size)| size),
    }
}

/// Decodes a PNG label map of 8-bit grey, or the indices of one with a palette, 1 byte a pixel. Returns (width, height).
pub fn label(bytes: &[u8], values: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    match Codec::of(bytes).ok_or(DecodeError::Format)? {
        Codec::Jpeg => return Err(DecodeError::LossyLabel),
        Codec::Png => {}
    }
    let (mut reader, (width, height)) = png_reader(Cursor::new(bytes), Transformations::IDENTITY)?;
    let (color, depth) = reader.output_color_type();
    match (color, depth) {
        (ColorType::Grayscale | ColorType::Indexed, BitDepth::Eight) => {}
        (ColorType::Indexed, BitDepth::One | BitDepth::Two | BitDepth::Four) => {}
        _ => return Err(DecodeError::LabelKind(kind(color, depth))),
    }
    png_frame(&mut reader, values)?;
    let bits = depth as usize;
    if bits < 8 {
        *values = unpack(values, width as usize, bits);
    }
    Ok((width, height))
}

/// The orientation (2 to 8) that a JPEG's EXIF block asks viewers to apply; None when it is upright or not told.
pub fn exif_orientation(bytes: &[u8]) -> Option<u8> {
    let (decoder, _) = jpeg_header(Cursor::new(bytes)).ok()?;
    orientation_in(decoder.exif()?)
}

fn jpeg_header<R: BufRead + Seek>(file: R) -> Result<(JpegDecoder<R>, (u32, u32)), DecodeError> {
    // Without strict mode a truncated file decodes to grey without an error.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(u16::MAX.into())
        .set_max_height(u16::MAX.into())
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(file, options);
    decoder.decode_headers().map_err(jpeg_error)?;
    let info = decoder.info().ok_or_else(|| DecodeError::Jpeg("it has no frame".into()))?;
    let size = (u32::from(info.width), u32::from(info.height));
    check_pixels(size)?;
    Ok((decoder, size))
}

fn jpeg(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    let (mut decoder, (width, height)) = jpeg_header(Cursor::new(bytes))?;
    match decoder.input_colorspace() {
        Some(ColorSpace::RGB | ColorSpace::YCbCr | ColorSpace::Luma) => {}
        Some(ColorSpace::CMYK | ColorSpace::YCCK) => return Err(DecodeError::ImageKind("a CMYK JPEG file".into())),
        other => return Err(DecodeError::ImageKind(format!("a JPEG file in the colour space {other:?}"))),
    }
    rgb.resize(width as usize * height as usize * 3, 0);
    decoder.decode_into(rgb).map_err(jpeg_error)?;
    Ok((width, height))
}

fn png_image(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    let (mut reader, (width, height)) = png_reader(Cursor::new(bytes), Transformations::EXPAND)?;
    let (color, depth) = reader.output_color_type();
    if depth != BitDepth::Eight {
        return Err(DecodeError::ImageKind(kind(color, depth)));
    }
    if color == ColorType::Rgb {
        png_frame(&mut reader, rgb)?;
        return Ok((width, height));
    }
    let mut pixels = Vec::new();
    png_frame(&mut reader, &mut pixels)?;
    rgb.clear();
    match color {
        ColorType::Grayscale => rgb.extend(pixels.iter().flat_map(|&v| [v, v, v])),
        ColorType::GrayscaleAlpha => rgb.extend(pixels.chunks_exact(2).flat_map(|p| [p[0], p[0], p[0]])),
        ColorType::Rgba => rgb.extend(pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]])),
        ColorType::Rgb | ColorType::Indexed => return Err(DecodeError::ImageKind(kind(color, depth))),
    }
    Ok((width, height))
}

fn png_reader<R: BufRead + Seek>(
    file: R,
    transform: Transformations,
) -> Result<(png::Reader<R>, (u32, u32)), DecodeError> {
    let mut decoder = png::Decoder::new(file);
    decoder.set_transformations(transform);
    decoder.ignore_checksums(false);
    let reader = decoder.read_info().map_err(png_error)?;
    let size = (reader.info().width, reader.info().height);
    check_pixels(size)?;
    Ok((reader, size))
}

fn png_frame<R: BufRead + Seek>(reader: &mut png::Reader<R>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let size = reader.output_buffer_size().ok_or_else(|| DecodeError::Png("its size overflows".into()))?;
    out.resize(size, 0);
    reader.next_frame(out).map_err(png_error)?;
    Ok(())
}

/// Indices of `bits` bits, most significant first, rows starting at whole bytes, to one byte each.
fn unpack(packed: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let mask = (1u16 << bits) as u8 - 1;
    let row = width.div_ceil(per_byte);
    let pixel = |line: &[u8], x: usize| (line[x / per_byte] >> (8 - bits - (x % per_byte) * bits)) & mask;
    packed.chunks_exact(row).flat_map(|line| (0..width).map(move |x| pixel(line, x))).collect()
}

fn check_pixels((width, height): (u32, u32)) -> Result<(), DecodeError> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge(width, height));
    }
    Ok(())
}

fn kind(color: ColorType, depth: BitDepth) -> String {
    let color = match color {
        ColorType::Grayscale => "grey",
        ColorType::GrayscaleAlpha => "grey with alpha",
        ColorType::Indexed => "palette",
        ColorType::Rgb => "RGB",
        ColorType::Rgba => "RGBA",
    };
    format!("a PNG file of {}-bit {color}", depth as u8)
}

fn jpeg_error(error: impl std::fmt::Debug) -> DecodeError {
    DecodeError::Jpeg(one_line(format!("{error:?}")))
}

fn png_error(error: png::DecodingError) -> DecodeError {
    DecodeError::Png(one_line(error.to_string()))
}

fn one_line(text: String) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reads tag 0x0112 of the first directory of a TIFF block (EXIF 2.3, section 4.6.4).
fn orientation_in(tiff: &[u8]) -> Option<u8> {
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
    u8::try_from(u16_at(tag + 8)?).ok().filter(|value| (2..=8).contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_bytes(width: u32, height: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette((0..48).collect::<Vec<u8>>());
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        out
    }

    #[test]
    fn every_8_bit_png_becomes_rgb_without_alpha() {
        let cases: [(ColorType, &[u8], [u8; 6]); 5] = [
            (ColorType::Rgb, &[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
            (ColorType::Rgba, &[1, 2, 3, 0, 4, 5, 6, 9], [1, 2, 3, 4, 5, 6]),
            (ColorType::Grayscale, &[7, 8], [7, 7, 7, 8, 8, 8]),
            (ColorType::GrayscaleAlpha, &[7, 0, 8, 0], [7, 7, 7, 8, 8, 8]),
            (ColorType::Indexed, &[1, 2], [3, 4, 5, 6, 7, 8]),
        ];
        for (color, data, expected) in cases {
            let mut rgb = vec![9; 100];
            assert_eq!(image(&png_bytes(2, 1, color, BitDepth::Eight, data), &mut rgb), Ok((2, 1)));
            assert_eq!(rgb, expected, "{color:?}");
        }
    }

    #[test]
    fn labels_are_grey_values_or_palette_indices() {
        let mut values = Vec::new();
        let grey = png_bytes(3, 1, ColorType::Grayscale, BitDepth::Eight, &[0, 150, 255]);
        assert_eq!(label(&grey, &mut values), Ok((3, 1)));
        assert_eq!(values, [0, 150, 255]);
        let indices = png_bytes(3, 2, ColorType::Indexed, BitDepth::Four, &[0x12, 0x30, 0x45, 0x60]);
        assert_eq!(label(&indices, &mut values), Ok((3, 2)));
        assert_eq!(values, [1, 2, 3, 4, 5, 6]);
        let bits = png_bytes(9, 1, ColorType::Indexed, BitDepth::One, &[0b1010_0001, 0x80]);
        assert_eq!(label(&bits, &mut values), Ok((9, 1)));
        assert_eq!(values, [1, 0, 1, 0, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn what_has_no_single_meaning_is_refused_by_name() {
        let deep = png_bytes(1, 1, ColorType::Rgb, BitDepth::Sixteen, &[0; 6]);
        let mut out = Vec::new();
        assert!(image(&deep, &mut out).unwrap_err().to_string().contains("16-bit RGB"));
        let rgb = png_bytes(1, 1, ColorType::Rgb, BitDepth::Eight, &[0; 3]);
        assert!(label(&rgb, &mut out).unwrap_err().to_string().contains("8-bit RGB"));
        assert_eq!(label(&[0xff, 0xd8, 0xff, 0xe0], &mut out), Err(DecodeError::LossyLabel));
        assert_eq!(image(b"GIF89a", &mut out), Err(DecodeError::Format));
        assert_eq!(image(b"", &mut out), Err(DecodeError::Format));
    }

    #[test]
    fn a_png_cut_anywhere_in_its_data_is_an_error() {
        let whole = png_bytes(8, 8, ColorType::Rgb, BitDepth::Eight, &[77; 192]);
        let data_end = whole.len() - 12 - 4; // the last chunk (IEND) and the CRC before it
        for length in 0..data_end {
            assert!(image(&whole[..length], &mut Vec::new()).is_err(), "{length} of {}", whole.len());
        }
    }

    #[test]
    fn orientation_is_found_in_both_byte_orders() {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!(orientation_in(little), Some(6));
        assert_eq!(orientation_in(big), Some(8));
        assert_eq!(orientation_in(&little[..19]), None);
    }
}
