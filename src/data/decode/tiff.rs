//! TIFF and BigTIFF files, first page: strips and tiles, chunky and planar, in the compressions of the `tiff` crate.
//!
//! The crate gives up on palettes and on some colour models that it would hand out unchanged anyway. It is told that
//! every file is grey, and what the samples mean is decided here.

use super::raster::{Channels, Raster, Samples, unpack};
use super::{DecodeError, check_pixels, one_line};
use std::io::{BufRead, Cursor, Seek};
use tiff::TiffError;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

/// Samples of one file, in memory: what the largest photograph takes in RGBA.
const MAX_BYTES: u64 = 1 << 30;

/// PhotometricInterpretation (TIFF 6.0, pages 37 and 23, 69, 89).
const WHITE_IS_ZERO: u16 = 0;
const BLACK_IS_ZERO: u16 = 1;
const RGB: u16 = 2;
const PALETTE: u16 = 3;
const CMYK: u16 = 5;
const YCBCR: u16 = 6;

/// Decodes to samples as they are stored.
pub fn raster(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let mut file = bytes.to_vec();
    let photometric = find_photometric(bytes)
        .map(|(at, little)| {
            let tag = [bytes[at], bytes[at + 1]];
            let grey = if little { BLACK_IS_ZERO.to_le_bytes() } else { BLACK_IS_ZERO.to_be_bytes() };
            file[at..at + 2].copy_from_slice(&grey);
            if little { u16::from_le_bytes(tag) } else { u16::from_be_bytes(tag) }
        })
        .ok_or_else(|| damaged("it does not say what its samples mean"))?;
    let mut decoder = open(Cursor::new(&file[..]), bytes.len())?;
    let size = decoder.dimensions().map_err(tiff_error)?;
    check_pixels(size)?;
    let color = decoder.colortype().map_err(tiff_error)?;
    let (bits, count) = (color.bit_depth(), usize::from(color.num_samples()));
    let alpha = decoder.find_tag(Tag::ExtraSamples).map_err(tiff_error)?.is_some();
    let kind =
        || DecodeError::ImageKind(format!("a TIFF file of {count} channels, photometric interpretation {photometric}"));
    let channels = channels(photometric, count, alpha).ok_or_else(kind)?;
    let jpeg = decoder.find_tag_unsigned::<u16>(Tag::Compression).map_err(tiff_error)? == Some(7);
    if jpeg && count == 2 {
        return Err(DecodeError::ImageKind("a TIFF file of grey with alpha in JPEG compression".into()));
    }
    let reversed = decoder.find_tag_unsigned::<u16>(Tag::FillOrder).map_err(tiff_error)? == Some(2);
    if reversed && bits < 8 {
        return Err(DecodeError::ImageKind("a TIFF file with reversed bits (FillOrder 2)".into()));
    }
    let wanted = u64::from(size.0) * u64::from(size.1) * count as u64 * u64::from(bits.div_ceil(8));
    if wanted > MAX_BYTES {
        return Err(DecodeError::TooLarge(size.0, size.1));
    }
    let mut result = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut result).map_err(tiff_error)?;
    let planar = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(tiff_error)? == Some(2);
    let mut samples = Samples::of(result)?;
    if bits < 8 {
        let Samples::U8(packed) = samples else { return Err(kind()) };
        let row = size.0 as usize * if planar { 1 } else { count };
        samples = Samples::U8(unpack(&packed, row, bits.into()));
    }
    if planar && count > 1 {
        samples = samples.interleave(count);
    }
    let mut samples = samples.keep(count, channels.count());
    if photometric == WHITE_IS_ZERO {
        samples.invert(bits).ok_or_else(kind)?;
    }
    let expected = size.0 as usize * size.1 as usize * channels.count();
    if samples.len() != expected {
        return Err(damaged("it has fewer samples than pixels"));
    }
    let palette = if photometric == PALETTE { palette(&mut decoder)? } else { Vec::new() };
    Ok(Raster { size, channels, samples, bits, palette, lossy: false, format: "a TIFF file" })
}

/// The header's size.
pub fn size(file: impl BufRead + Seek) -> Result<(u32, u32), DecodeError> {
    let size = open(file, 1 << 30)?.dimensions().map_err(tiff_error)?;
    check_pixels(size)?;
    Ok(size)
}

fn open<R: BufRead + Seek>(file: R, length: usize) -> Result<Decoder<R>, DecodeError> {
    let mut limits = Limits::default();
    // A strip's compressed length is not more than the file's; a table of strips or tiles may be long.
    limits.intermediate_buffer_size = length;
    limits.decoding_buffer_size = MAX_BYTES as usize;
    limits.ifd_value_size = 64 << 20;
    Ok(Decoder::new(file).map_err(tiff_error)?.with_limits(limits))
}

fn channels(photometric: u16, count: usize, extra: bool) -> Option<Channels> {
    Some(match (photometric, count) {
        (WHITE_IS_ZERO | BLACK_IS_ZERO, 1) => Channels::Grey,
        (BLACK_IS_ZERO, 2) if extra => Channels::GreyAlpha,
        (RGB, 3) => Channels::Rgb,
        (RGB, 4..) => Channels::Rgba,
        (PALETTE, 1) => Channels::Palette,
        (PALETTE, 2) => Channels::PaletteAlpha,
        (CMYK, 4..) => Channels::Cmyk,
        (YCBCR, 3) => Channels::YCbCr,
        _ => return None,
    })
}

/// 16-bit red of all entries, then green, then blue.
fn palette<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<Vec<[u8; 3]>, DecodeError> {
    let map = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(tiff_error)?;
    let entries = map.len() / 3;
    Ok((0..entries).map(|entry| [0, 1, 2].map(|channel| (map[channel * entries + entry] >> 8) as u8)).collect())
}

/// Where the two bytes of PhotometricInterpretation stand in the first directory, and whether they are little-endian.
fn find_photometric(bytes: &[u8]) -> Option<(usize, bool)> {
    let little = bytes.starts_with(b"II");
    let number = |at: u64, length: usize| {
        let at = usize::try_from(at).ok()?;
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        let join = |sum: u64, &byte: &u8| (sum << 8) | u64::from(byte);
        Some(if little { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) })
    };
    let big = number(2, 2)? == 43;
    // (where the directory's offset is, its length; bytes of its count; bytes of an entry, where its value starts)
    let (offset, wide, count, entry, value) = if big { (8, 8, 8, 20, 12) } else { (4, 4, 2, 12, 8) };
    let directory = number(offset, wide)?;
    let entries = number(directory, count)?.min(65_535);
    let first = directory.checked_add(count as u64)?;
    let at = (0..entries).map(|i| first + i * entry).find(|&at| number(at, 2) == Some(262))?;
    // A SHORT, or the lower half of a LONG.
    let lower = match number(at + 2, 2)? {
        3 => at + value,
        4 if little => at + value,
        4 => at + value + 2,
        _ => return None,
    };
    number(lower, 2)?;
    Some((lower as usize, little))
}

impl Samples {
    fn of(result: DecodingResult) -> Result<Samples, DecodeError> {
        fn integers<T: Into<i64>>(values: Vec<T>) -> Samples {
            Samples::Integer(values.into_iter().map(Into::into).collect())
        }
        Ok(match result {
            DecodingResult::U8(values) => Samples::U8(values),
            DecodingResult::U16(values) => Samples::U16(values),
            DecodingResult::U32(values) => integers(values),
            DecodingResult::I8(values) => integers(values),
            DecodingResult::I16(values) => integers(values),
            DecodingResult::I32(values) => integers(values),
            DecodingResult::I64(values) => Samples::Integer(values),
            DecodingResult::F32(values) => Samples::Float(values),
            DecodingResult::F64(values) => Samples::Float(values.into_iter().map(|value| value as f32).collect()),
            _ => return Err(DecodeError::ImageKind("a TIFF file of 64-bit or half-precision samples".into())),
        })
    }

    fn len(&self) -> usize {
        match self {
            Samples::U8(values) => values.len(),
            Samples::U16(values) => values.len(),
            Samples::Integer(values) => values.len(),
            Samples::Float(values) => values.len(),
        }
    }

    /// From plane after plane to pixel after pixel.
    fn interleave(self, planes: usize) -> Samples {
        fn turned<T: Copy>(values: &[T], planes: usize) -> Vec<T> {
            let pixels = values.len() / planes;
            (0..pixels).flat_map(|pixel| (0..planes).map(move |plane| values[plane * pixels + pixel])).collect()
        }
        match self {
            Samples::U8(values) => Samples::U8(turned(&values, planes)),
            Samples::U16(values) => Samples::U16(turned(&values, planes)),
            Samples::Integer(values) => Samples::Integer(turned(&values, planes)),
            Samples::Float(values) => Samples::Float(turned(&values, planes)),
        }
    }

    /// The first `keep` of every `count` samples.
    fn keep(self, count: usize, keep: usize) -> Samples {
        fn cut<T: Copy>(values: &[T], count: usize, keep: usize) -> Vec<T> {
            values.chunks_exact(count).flat_map(|pixel| pixel[..keep].iter().copied()).collect()
        }
        if count == keep {
            return self;
        }
        match self {
            Samples::U8(values) => Samples::U8(cut(&values, count, keep)),
            Samples::U16(values) => Samples::U16(cut(&values, count, keep)),
            Samples::Integer(values) => Samples::Integer(cut(&values, count, keep)),
            Samples::Float(values) => Samples::Float(cut(&values, count, keep)),
        }
    }

    /// White is 0: turned over. None where white is not known.
    fn invert(&mut self, bits: u8) -> Option<()> {
        match self {
            Samples::U8(values) if bits <= 8 => {
                let white = (u16::MAX >> (16 - bits)) as u8;
                values.iter_mut().for_each(|value| *value = white - *value);
            }
            Samples::U16(values) => values.iter_mut().for_each(|value| *value = u16::MAX - *value),
            _ => return None,
        }
        Some(())
    }
}

fn damaged(cause: &str) -> DecodeError {
    DecodeError::Damaged("TIFF", cause.into())
}

fn tiff_error(error: TiffError) -> DecodeError {
    match error {
        TiffError::UnsupportedError(what) => {
            DecodeError::ImageKind(format!("a TIFF file of a kind that is not read: {}", one_line(what.to_string())))
        }
        other => DecodeError::Damaged("TIFF", one_line(other.to_string())),
    }
}
