//! DATASET.color_jitter: random brightness, contrast and saturation.

use super::{DatasetConfig, Edit, KeyedRng, Pixels, Placement, Purpose, Transform};

struct ColorJitter {
    strength: f64,
}

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    (config.color_jitter > 0.0).then(|| Box::new(ColorJitter { strength: config.color_jitter }) as _)
}

impl Transform for ColorJitter {
    fn purpose(&self) -> Purpose {
        Purpose::ColorJitter
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        let mut factor = || random.between(1.0 - self.strength, 1.0 + self.strength).max(0.0) as f32;
        placement.edit(Recolor { brightness: factor(), contrast: factor(), saturation: factor() });
    }
}

/// Factors on brightness, then on contrast about the mean grey, then on saturation about each pixel's grey.
///
/// Grey is ITU-R 601 luma, as in torchvision's `ColorJitter`, which draws the order of the three as well.
#[derive(Debug)]
struct Recolor {
    brightness: f32,
    contrast: f32,
    saturation: f32,
}

impl Edit for Recolor {
    fn image(&self, image: &mut Pixels) {
        let Recolor { brightness, contrast, saturation } = *self;
        let (mut sum, mut count) = (0.0, 0.0f64);
        for pixel in image.rows().flat_map(|row| row.chunks_exact(3)) {
            sum += f64::from(luma(pixel));
            count += 1.0;
        }
        let mean = (sum / count.max(1.0)) as f32 * brightness;
        for pixel in image.rows().flat_map(|row| row.chunks_exact_mut(3)) {
            let grey = mean + contrast * (luma(pixel) * brightness - mean);
            for value in pixel {
                let bright = f32::from(*value) * brightness;
                let contrasted = mean + contrast * (bright - mean);
                *value = (grey + saturation * (contrasted - grey)).round() as u8;
            }
        }
    }
}

fn luma(pixel: &[u8]) -> f32 {
    0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])
}
