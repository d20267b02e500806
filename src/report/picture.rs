//! PNG bytes from pixels.

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
