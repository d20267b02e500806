//! DATASET.photometric: brightness, contrast, saturation and hue, each of half of the samples, in the order and the ranges
//! of mmsegmentation (`PhotoMetricDistortion`; Liu et al. 2015, arXiv:1512.02325).

use super::{DatasetConfig, Edit, KeyedRng, Pixels, Placement, Purpose, Transform};

/// Most that is added to every value.
const BRIGHTNESS: f64 = 32.0;
/// Range of the factors on contrast and on saturation.
const FACTORS: (f64, f64) = (0.5, 1.5);
/// The hue moves by whole steps of two degrees, in OpenCV's units less than this.
const HUE: u64 = 18;

struct Photometric;

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    config.photometric.then(|| Box::new(Photometric) as _)
}

impl Transform for Photometric {
    fn purpose(&self) -> Purpose {
        Purpose::Named("photometric distortion")
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        // All are drawn whether they are used or not, so that each has its place in the stream.
        let mut half = || random.below(2) == 1;
        let [brightens, contrast_last, contrasts, saturates, turns] = std::array::from_fn(|_| half());
        let brightness = random.between(-BRIGHTNESS, BRIGHTNESS);
        let [contrast, saturation] = [0, 1].map(|_| random.between(FACTORS.0, FACTORS.1));
        let hue = random.below(2 * HUE) as f64 - HUE as f64;
        placement.edit(Distortion {
            brightness: if brightens { brightness as f32 } else { 0.0 },
            contrast: if contrasts { contrast as f32 } else { 1.0 },
            contrast_last,
            saturation: if saturates { saturation as f32 } else { 1.0 },
            hue: if turns { hue as f32 / 30.0 } else { 0.0 },
        });
    }
}

#[derive(Debug)]
struct Distortion {
    brightness: f32,
    contrast: f32,
    /// After saturation and hue instead of before.
    contrast_last: bool,
    saturation: f32,
    /// In sixths of the circle.
    hue: f32,
}

impl Edit for Distortion {
    fn image(&self, image: &mut Pixels) {
        let early = if self.contrast_last { 1.0 } else { self.contrast };
        let late = if self.contrast_last { self.contrast } else { 1.0 };
        // Every step ends in bytes, as there, so the first two and the last are tables.
        let table =
            |change: &dyn Fn(f32) -> f32| -> [u8; 256] { std::array::from_fn(|value| change(value as f32) as u8) };
        let first = table(&|value| (f32::from((value + self.brightness) as u8)) * early);
        let last = table(&|value| value * late);
        let colours = self.saturation != 1.0 || self.hue != 0.0;
        for pixel in image.rows().flat_map(|row| row.chunks_exact_mut(3)) {
            let mut rgb = [0, 1, 2].map(|c| first[usize::from(pixel[c])]);
            if colours {
                rgb = recolour(rgb, self.saturation, self.hue);
            }
            pixel.copy_from_slice(&rgb.map(|value| last[usize::from(value)]));
        }
    }
}

/// The colour with `saturation` times its saturation, at most all, and its hue `turn` sixths of the circle further.
fn recolour(rgb: [u8; 3], saturation: f32, turn: f32) -> [u8; 3] {
    let [red, green, blue] = rgb.map(f32::from);
    let (value, least) = (red.max(green).max(blue), red.min(green).min(blue));
    let chroma = value - least;
    if chroma == 0.0 {
        return rgb;
    }
    let sector = match value {
        _ if value == red => (green - blue) / chroma,
        _ if value == green => (blue - red) / chroma + 2.0,
        _ => (red - green) / chroma + 4.0,
    };
    let (hue, chroma) = (sector + turn, (chroma * saturation).min(value));
    // Each channel falls from `value` by as much of the chroma as the hue lies away from it.
    let channel = |shift: f32| {
        let k = (hue + shift).rem_euclid(6.0);
        value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)].map(|value| value.round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_third_of_the_circle_makes_red_green_and_half_the_saturation_pink() {
        assert_eq!(recolour([200, 0, 0], 1.0, 2.0), [0, 200, 0]);
        assert_eq!(recolour([0, 90, 0], 1.0, -2.0), [90, 0, 0]);
        assert_eq!(recolour([200, 0, 0], 0.5, 0.0), [200, 100, 100]);
        assert_eq!(recolour([200, 100, 100], 9.0, 0.0), [200, 0, 0]);
    }

    proptest! {
        #[test]
        fn colours_go_there_and_back(rgb: [u8; 3], turn in -0.6f32..0.6) {
            prop_assert_eq!(recolour(rgb, 1.0, 0.0), rgb);
            let back = recolour(recolour(rgb, 1.0, turn), 1.0, -turn);
            // A dark colour has few hues.
            prop_assert!(back.iter().zip(rgb).all(|(&a, b)| a.abs_diff(b) <= 2), "{:?}", back);
        }

        #[test]
        fn grey_stays_grey(value: u8, saturation in 0.5f32..1.5, turn in -0.6f32..0.6) {
            prop_assert_eq!(recolour([value; 3], saturation, turn), [value; 3]);
        }
    }
}
