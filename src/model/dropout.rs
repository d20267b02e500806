//! Dropout of whole channels, or of a residual branch, whose masks are a pure function, so that they do not depend on how ranks share a batch.

use super::layers::DropoutKey;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The share of channels that is set to zero, `nn.Dropout2d(0.1)` in the reference's decoders.
pub const PROBABILITY: f64 = 0.1;

/// The factors of one image's channels in one dropout layer: 0 with `probability` (less than 1), or 1 ÷ (1 − it).
///
/// `image` counts from `key.first`; only their sum matters, as does nothing but seed, step and `layer` besides. Channel
/// c takes word c of the ChaCha8 stream whose 256-bit key those four numbers are.
pub fn mask(key: DropoutKey, layer: u64, image: u64, channels: usize, probability: f64) -> Vec<f32> {
    let words = [key.seed, key.step, key.first.wrapping_add(image), layer];
    let mut stream_key = [0; 32];
    for (bytes, word) in stream_key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut stream = ChaCha8Rng::from_seed(stream_key);
    let threshold = (probability * 2f64.powi(32)) as u32;
    let kept = (1.0 / (1.0 - probability)) as f32;
    (0..channels).map(|_| if stream.next_u32() < threshold { 0.0 } else { kept }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The masks of a step of four images, dealt to `ranks` ranks.
    fn masks(ranks: u64) -> Vec<Vec<f32>> {
        let per_rank = 4 / ranks;
        (0..ranks)
            .flat_map(|rank| {
                let key = DropoutKey { seed: 7, step: 3, first: rank * per_rank };
                (0..per_rank).map(move |image| mask(key, 1, image, 512, PROBABILITY))
            })
            .collect()
    }

    #[test]
    fn masks_do_not_depend_on_how_ranks_share_the_batch() {
        assert_eq!(masks(1), masks(2));
        assert_eq!(masks(1), masks(4));
    }

    #[test]
    fn every_part_of_the_key_changes_the_mask() {
        let key = DropoutKey { seed: 1, step: 2, first: 3 };
        let base = mask(key, 0, 0, 64, PROBABILITY);
        assert_ne!(base, mask(DropoutKey { seed: 2, ..key }, 0, 0, 64, PROBABILITY));
        assert_ne!(base, mask(DropoutKey { step: 3, ..key }, 0, 0, 64, PROBABILITY));
        assert_ne!(base, mask(DropoutKey { first: 4, ..key }, 0, 0, 64, PROBABILITY));
        assert_ne!(base, mask(key, 1, 0, 64, PROBABILITY));
    }

    #[test]
    fn a_tenth_is_dropped_and_the_mean_is_kept() {
        let key = DropoutKey { seed: 11, step: 0, first: 0 };
        let values: Vec<f32> = (0..200).flat_map(|image| mask(key, 0, image, 512, PROBABILITY)).collect();
        let dropped = values.iter().filter(|&&v| v == 0.0).count() as f64 / values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        assert!((dropped - PROBABILITY).abs() < 0.005, "dropped {dropped}");
        assert!((mean - 1.0).abs() < 0.005, "mean {mean}");
    }
}
