//! PNG bytes from pixels, and pictures small enough for a page.

use crate::data::decode;
use crate::data::resize::{self, Resizer};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use png::{BitDepth, ColorType, Encoder, EncodingError};

/// An RGB picture; `pixels` are 3 · width · height bytes.
pub fn rgb(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, EncodingError> {
    encode(width, height, pixels, ColorType::Rgb, None)
}

/// A label map whose palette indices are the class numbers; `labels` are width · height bytes.
///
/// Up to 256 colours; labels without a colour get grey, so that every index is in the palette.
pub fn label_map(width: u32, height: u32, labels: &[u8], colours: &[[u8; 3]]) -> Result<Vec<u8>, EncodingError> {
    let mut palette: Vec<u8> = colours.iter().take(256).flatten().copied().collect();
    let largest = labels.iter().max().map_or(0, |label| usize::from(*label));
    palette.resize(palette.len().max(3 * (largest + 1)), 128);
    encode(width, height, labels, ColorType::Indexed, Some(palette))
}

/// No picture on a page has more columns.
const WIDEST: u32 = 1920;
/// Of JPEGs, 1 to 100.
const QUALITY: u8 = 80;

/// A picture as a page shows it.
pub struct PagePicture {
    /// Its type in a data URL.
    pub mime: &'static str,
    /// The file.
    pub bytes: Vec<u8>,
}

impl PagePicture {
    /// As it is.
    pub fn png(bytes: Vec<u8>) -> PagePicture {
        PagePicture { mime: "image/png", bytes }
    }

    /// As a JPEG of at most 1,920 columns, where that is smaller.
    pub fn small(png: Vec<u8>) -> PagePicture {
        match jpeg(&png) {
            Some(bytes) if bytes.len() < png.len() => PagePicture { mime: "image/jpeg", bytes },
            _ => PagePicture::png(png),
        }
    }
}

/// None for what is no picture.
fn jpeg(png: &[u8]) -> Option<Vec<u8>> {
    let mut pixels = Vec::new();
    let (mut width, mut height) = decode::image(png, &mut pixels).ok()?;
    if width > WIDEST {
        let size = (WIDEST, (u64::from(height) * u64::from(WIDEST) / u64::from(width)).max(1) as u32);
        let mut small = vec![0; 3 * size.0 as usize * size.1 as usize];
        let source = resize::Image { width, height, pixels: &pixels };
        Resizer::default().resize(source, false, size, &mut small, 3 * size.0 as usize);
        ((width, height), pixels) = (size, small);
    }
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY).encode(&pixels, width, height, ExtendedColorType::Rgb8).ok()?;
    Some(bytes)
}

fn encode(
    width: u32,
    height: u32,
    pixels: &[u8],
    color: ColorType,
    palette: Option<Vec<u8>>,
) -> Result<Vec<u8>, EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}
