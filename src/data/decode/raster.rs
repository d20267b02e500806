//! Samples as a file stores them, before anyone has said whether they are a photograph or labels.
//!
//! As a photograph they become RGB the way Pillow's `convert("RGB")` does it: grey values of 16 bits and more are clipped
//! to 255, of other channels of 16 bits the high byte counts, alpha is dropped. As labels they stay what they are.

use super::DecodeError;

/// A decoded file.
pub struct Raster {
    /// (width, height).
    pub size: (u32, u32),
    /// What the samples of a pixel are.
    pub channels: Channels,
    /// Pixel by pixel, row by row.
    pub samples: Samples,
    /// Bits of a sample in the file; below 8 it says what white is.
    pub bits: u8,
    /// Colours of palette indices.
    pub palette: Vec<[u8; 3]>,
    /// JPEG, WebP: values near edges are not those that were drawn.
    pub lossy: bool,
    /// The file as messages call it: `a TIFF file`.
    pub format: &'static str,
}

/// What the samples of a pixel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Channels {
    Grey,
    GreyAlpha,
    Palette,
    PaletteAlpha,
    Rgb,
    /// Alpha, or a fourth that is left out.
    Rgba,
    Cmyk,
    YCbCr,
}

/// Samples by their type in the file.
#[allow(missing_docs)]
pub enum Samples {
    U8(Vec<u8>),
    U16(Vec<u16>),
    /// Signed, or wider than 16 bits.
    Integer(Vec<i64>),
    Float(Vec<f32>),
}

/// Raw values of a label file.
pub enum Values {
    /// Grey values, or palette indices.
    Byte(Vec<u8>),
    /// Grey values of more than 8 bits.
    Word(Vec<u16>),
    /// RGB.
    Color(Vec<[u8; 3]>),
}

/// A decoded label file.
pub struct RawLabel {
    /// (width, height).
    pub size: (u32, u32),
    /// Row by row.
    pub values: Values,
    /// Colours of palette indices; empty where they have none.
    pub palette: Vec<[u8; 3]>,
    /// JPEG, WebP: values near edges are not those that were drawn.
    pub lossy: bool,
    /// As in [`Raster`].
    pub format: &'static str,
}

impl Channels {
    /// Samples of a pixel.
    pub fn count(self) -> usize {
        match self {
            Channels::Grey | Channels::Palette => 1,
            Channels::GreyAlpha | Channels::PaletteAlpha => 2,
            Channels::Rgb | Channels::YCbCr => 3,
            Channels::Rgba | Channels::Cmyk => 4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Channels::Grey => "grey",
            Channels::GreyAlpha => "grey with alpha",
            Channels::Palette => "palette",
            Channels::PaletteAlpha => "palette with alpha",
            Channels::Rgb => "RGB",
            Channels::Rgba => "RGBA",
            Channels::Cmyk => "CMYK",
            Channels::YCbCr => "YCbCr",
        }
    }
}

impl Raster {
    /// As RGB, 3 bytes a pixel.
    pub fn into_rgb(self, rgb: &mut Vec<u8>) -> Result<(), DecodeError> {
        rgb.clear();
        rgb.reserve(self.size.0 as usize * self.size.1 as usize * 3);
        let kind = self.kind();
        let stride = self.channels.count();
        match (self.channels, self.samples) {
            (Channels::Palette | Channels::PaletteAlpha, Samples::U8(samples)) => {
                let mut colors = [[0; 3]; 256];
                colors.iter_mut().zip(&self.palette).for_each(|(to, from)| *to = *from);
                samples.chunks_exact(stride).for_each(|pixel| rgb.extend(colors[usize::from(pixel[0])]));
            }
            (Channels::Grey, samples) => {
                let white = if self.bits < 8 { (1u32 << self.bits) - 1 } else { 255 };
                let mut grey = |value: u8| rgb.extend([value; 3]);
                match samples {
                    Samples::U8(samples) => samples.iter().for_each(|&v| grey((u32::from(v) * 255 / white) as u8)),
                    Samples::U16(samples) => samples.iter().for_each(|&v| grey(v.min(255) as u8)),
                    Samples::Integer(samples) => samples.iter().for_each(|&v| grey(v.clamp(0, 255) as u8)),
                    // A cast saturates, and cuts what is behind the point, as Pillow does.
                    Samples::Float(samples) => samples.iter().for_each(|&v| grey(v as u8)),
                }
            }
            (Channels::GreyAlpha, Samples::U8(samples)) => {
                samples.chunks_exact(stride).for_each(|pixel| rgb.extend([pixel[0]; 3]));
            }
            (Channels::GreyAlpha, Samples::U16(samples)) => {
                samples.chunks_exact(stride).for_each(|pixel| rgb.extend([(pixel[0] >> 8) as u8; 3]));
            }
            (Channels::Rgb, Samples::U8(samples)) => *rgb = samples,
            (Channels::Rgba, Samples::U8(samples)) => {
                samples.chunks_exact(stride).for_each(|pixel| rgb.extend(&pixel[..3]));
            }
            (Channels::Rgb | Channels::Rgba, Samples::U16(samples)) => {
                let high = |pixel: &[u16]| [0, 1, 2].map(|channel| (pixel[channel] >> 8) as u8);
                samples.chunks_exact(stride).for_each(|pixel| rgb.extend(high(pixel)));
            }
            (Channels::Cmyk, Samples::U8(samples)) => {
                samples.chunks_exact(stride).for_each(|pixel| rgb.extend(cmyk(pixel)));
            }
            (Channels::YCbCr, Samples::U8(samples)) => {
                samples.chunks_exact(stride).for_each(|pixel| rgb.extend(ycbcr(pixel)));
            }
            _ => return Err(DecodeError::ImageKind(kind)),
        }
        Ok(())
    }

    /// As raw label values.
    pub fn into_label(self) -> Result<RawLabel, DecodeError> {
        let kind = self.kind();
        let refused = || DecodeError::LabelKind(kind);
        let stride = self.channels.count();
        let palette = if self.channels == Channels::Palette { self.palette } else { Vec::new() };
        let values = match (self.channels, self.samples) {
            (Channels::Grey | Channels::Palette, Samples::U8(samples)) => Values::Byte(samples),
            (Channels::GreyAlpha | Channels::PaletteAlpha, Samples::U8(samples)) => {
                Values::Byte(samples.chunks_exact(stride).map(|pixel| pixel[0]).collect())
            }
            (Channels::Grey, Samples::U16(samples)) => Values::Word(samples),
            (Channels::Grey, Samples::Integer(samples)) => {
                let words: Result<_, _> = samples.into_iter().map(u16::try_from).collect();
                Values::Word(words.map_err(|_| refused())?)
            }
            (Channels::Grey, Samples::Float(samples)) => {
                let whole = |&value: &f32| f32::from(value as u16) == value;
                if !samples.iter().all(whole) {
                    return Err(refused());
                }
                Values::Word(samples.into_iter().map(|value| value as u16).collect())
            }
            (Channels::Rgb | Channels::Rgba, Samples::U8(samples)) => {
                Values::Color(samples.chunks_exact(stride).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect())
            }
            (Channels::Rgb | Channels::Rgba, Samples::U16(samples)) => {
                // Tools that widen 8 bits to 16 repeat the byte.
                if samples.iter().any(|value| !value.is_multiple_of(257)) {
                    return Err(refused());
                }
                let color = |pixel: &[u16]| [0, 1, 2].map(|channel| (pixel[channel] >> 8) as u8);
                Values::Color(samples.chunks_exact(stride).map(color).collect())
            }
            _ => return Err(refused()),
        };
        Ok(RawLabel { size: self.size, values, palette, lossy: self.lossy, format: self.format })
    }

    fn kind(&self) -> String {
        let depth = match self.samples {
            Samples::U8(_) | Samples::U16(_) => format!("{}-bit", self.bits),
            Samples::Integer(_) => format!("{}-bit integer", self.bits),
            Samples::Float(_) => "floating point".into(),
        };
        format!("{} of {depth} {}", self.format, self.channels.name())
    }
}

impl RawLabel {
    /// As bytes, where no label map says what wider values and colours mean: each is a grey value up to 255, alone or
    /// in three equal channels.
    pub fn into_bytes(self) -> Result<Vec<u8>, DecodeError> {
        match self.values {
            Values::Byte(values) => Ok(values),
            Values::Word(values) => {
                let largest = values.iter().copied().max().unwrap_or(0);
                if largest > 255 {
                    return Err(DecodeError::WideLabel(largest));
                }
                Ok(values.into_iter().map(|value| value as u8).collect())
            }
            Values::Color(colors) => match colors.iter().find(|[r, g, b]| r != g || g != b) {
                Some(color) => Err(DecodeError::ColorLabel(super::hex(*color))),
                None => Ok(colors.into_iter().map(|[value, ..]| value).collect()),
            },
        }
    }
}

/// Indices of `bits` bits, most significant first, rows starting at whole bytes, to one byte each.
pub fn unpack(packed: &[u8], row_samples: usize, bits: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let mask = (1u16 << bits) as u8 - 1;
    let row = row_samples.div_ceil(per_byte).max(1);
    let sample = |line: &[u8], x: usize| (line[x / per_byte] >> (8 - bits - (x % per_byte) * bits)) & mask;
    packed.chunks_exact(row).flat_map(|line| (0..row_samples).map(move |x| sample(line, x))).collect()
}

/// Pillow's `cmyk2rgb` (Convert.c).
pub fn cmyk(pixel: &[u8]) -> [u8; 3] {
    let white = 255 - pixel[3];
    [0, 1, 2].map(|channel| white - product(pixel[channel], white))
}

/// a · b ÷ 255, rounded, as Pillow's MULDIV255 does it.
fn product(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// JFIF's YCbCr in 16-bit fixed point, as libjpeg's jdcolor.c.
pub fn ycbcr(pixel: &[u8]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let fixed = |factor: f64| (factor * 65536.0 + 0.5) as i32;
    let (y, cb, cr) = (i32::from(pixel[0]), i32::from(pixel[1]) - 128, i32::from(pixel[2]) - 128);
    let red = y + ((fixed(1.402) * cr + HALF) >> 16);
    let green = y + ((-fixed(0.344_14) * cb - fixed(0.714_14) * cr + HALF) >> 16);
    let blue = y + ((fixed(1.772) * cb + HALF) >> 16);
    [red, green, blue].map(|value| value.clamp(0, 255) as u8)
}
