//! PNG files, checksums included.

use super::raster::{Channels, Raster, Samples, unpack};
use super::{DecodeError, check_pixels, one_line};
use png::{BitDepth, ColorType, Transformations};
use std::io::{BufRead, Cursor, Seek};

/// Decodes to RGB.
pub fn image(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(u32, u32), DecodeError> {
    let (mut reader, size) = reader(Cursor::new(bytes))?;
    if reader.output_color_type() == (ColorType::Rgb, BitDepth::Eight) {
        frame(&mut reader, rgb)?;
        return Ok(size);
    }
    raster_of(reader, size)?.into_rgb(rgb)?;
    Ok(size)
}

/// Decodes 8-bit grey values or palette indices straight into `values`; None where the file holds something else.
pub fn byte_label(bytes: &[u8], values: &mut Vec<u8>) -> Result<Option<(u32, u32)>, DecodeError> {
    let (mut reader, size) = reader(Cursor::new(bytes))?;
    match reader.output_color_type() {
        (ColorType::Grayscale | ColorType::Indexed, BitDepth::Eight) => {}
        _ => return Ok(None),
    }
    frame(&mut reader, values)?;
    Ok(Some(size))
}

/// Decodes to samples as they are stored.
pub fn raster(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let (reader, size) = reader(Cursor::new(bytes))?;
    raster_of(reader, size)
}

/// The header's size.
pub fn size(file: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    reader(file).map(|(_, size)| size)
}

/// RGB as a PNG file that is quick to write and to read.
pub fn encode((width, height): (u32, u32), rgb: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(rgb));
    written.expect("memory takes every byte, and the pixels are as many as the size says");
    file
}

fn raster_of<R: BufRead + Seek>(mut reader: png::Reader<R>, size: (u32, u32)) -> Result<Raster, DecodeError> {
    let (color, depth) = reader.output_color_type();
    let channels = match color {
        ColorType::Grayscale => Channels::Grey,
        ColorType::GrayscaleAlpha => Channels::GreyAlpha,
        ColorType::Indexed => Channels::Palette,
        ColorType::Rgb => Channels::Rgb,
        ColorType::Rgba => Channels::Rgba,
    };
    let mut bytes = Vec::new();
    frame(&mut reader, &mut bytes)?;
    let bits = depth as u8;
    let samples = match depth {
        BitDepth::Eight => Samples::U8(bytes),
        BitDepth::Sixteen => {
            Samples::U16(bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect())
        }
        _ => Samples::U8(unpack(&bytes, size.0 as usize * channels.count(), bits.into())),
    };
    let palette = reader.info().palette.as_deref().unwrap_or_default();
    let palette = palette.chunks_exact(3).map(|color| [color[0], color[1], color[2]]).collect();
    Ok(Raster { size, channels, samples, bits, palette, lossy: false, format: "a PNG file" })
}

fn reader<R: BufRead + Seek>(file: R) -> Result<(png::Reader<R>, (u32, u32)), DecodeError> {
    let mut decoder = png::Decoder::new(file);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.ignore_checksums(false);
    let reader = decoder.read_info().map_err(png_error)?;
    let size = (reader.info().width, reader.info().height);
    check_pixels(size)?;
    Ok((reader, size))
}

fn frame<R: BufRead + Seek>(reader: &mut png::Reader<R>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let size = reader.output_buffer_size().ok_or_else(|| DecodeError::Damaged("PNG", "its size overflows".into()))?;
    out.resize(size, 0);
    reader.next_frame(out).map_err(png_error)?;
    Ok(())
}

fn png_error(error: png::DecodingError) -> DecodeError {
    DecodeError::Damaged("PNG", one_line(error.to_string()))
}
