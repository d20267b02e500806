//! DATASET.rare_class_sampling: images of rare classes come more often (Hoyer et al. 2022, arXiv:2111.14887, section 3.2).
//!
//! DAFormer draws a class c with probability P(c) ∝ exp((1 − f_c) ÷ T), f_c its share of the labelled pixels, and then an
//! image that shows it. An image therefore comes in proportion to Σ P(c) ÷ n_c over the classes that it shows, of n_c
//! images each: with these weights a pass takes every image ⌊e⌋ or ⌈e⌉ times, where e is what it is due.

use super::random::{KeyedRng, Purpose};

/// What each sample is due of all draws; their sum is 1. `pixels`: of each class in the set; `seen`: the classes that each
/// sample shows.
pub fn weights(pixels: &[u64], seen: &[Vec<u8>], temperature: f64) -> Vec<f64> {
    let all = pixels.iter().sum::<u64>().max(1) as f64;
    let mut images = vec![0u64; pixels.len()];
    let known = |class: &u8| usize::from(*class) < images.len();
    let seen: Vec<Vec<u8>> = seen.iter().map(|classes| classes.iter().copied().filter(known).collect()).collect();
    seen.iter().flatten().for_each(|class| images[usize::from(*class)] += 1);
    let rarest = pixels.iter().zip(&images).filter(|(_, images)| **images > 0).map(|(pixels, _)| *pixels).min();
    // Relative to the rarest one, so that no exponential overflows.
    let chance = |class: usize| (-((pixels[class] - rarest.unwrap_or(0)) as f64 / all / temperature)).exp();
    let of = |class: &u8| chance(usize::from(*class)) / images[usize::from(*class)] as f64;
    let mut weights: Vec<f64> = seen.iter().map(|classes| classes.iter().map(of).sum()).collect();
    let sum: f64 = weights.iter().sum();
    let count = weights.len() as f64;
    // Where nothing is labelled, all come alike.
    weights.iter_mut().for_each(|weight| *weight = if sum > 0.0 { *weight / sum } else { 1.0 / count });
    weights
}

/// The `length` samples of a pass, each as often as its weight says but for one, in an order that spreads the repetitions
/// of a sample over the pass.
///
/// Systematic sampling: the samples lie in random order on a line, each as long as what it is due, and one is taken at
/// every whole number plus a random fraction.
pub fn pass(weights: &[f64], length: usize, seed: u64, pass: u64) -> Vec<u32> {
    let mut random = KeyedRng::new(seed, Purpose::Named("rare classes"), pass, 0);
    let mut samples: Vec<u32> = (0..weights.len() as u32).collect();
    random.shuffle(&mut samples);
    let (mut end, mut taken) = (random.fraction(), 0u64);
    let mut places: Vec<(f64, u32)> = Vec::with_capacity(length);
    let last = samples.len();
    for (number, sample) in samples.into_iter().enumerate() {
        end += weights[sample as usize] * length as f64;
        // Rounding must not lose the last one.
        let until = if number + 1 == last { length as u64 } else { (end as u64).min(length as u64) };
        let copies = until - taken;
        taken = until;
        let shift = random.fraction();
        places.extend((0..copies).map(|copy| ((copy as f64 + shift) / copies as f64, sample)));
    }
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    places.into_iter().map(|(_, sample)| sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_image_is_due_what_its_classes_share_among_theirs() {
        // Class 0 covers 90 % of the pixels and is in all three images, class 1 10 % and in one.
        let (pixels, seen) = ([900, 100, 0], [vec![0], vec![0], vec![0, 1]]);
        let (common, rare) = ((0.1f64 / 0.5).exp(), (0.9f64 / 0.5).exp());
        let sum = common + rare;
        let expected = [common / sum / 3.0, common / sum / 3.0, common / sum / 3.0 + rare / sum];
        for (weight, expected) in weights(&pixels, &seen, 0.5).into_iter().zip(expected) {
            assert!((weight - expected).abs() < 1e-12, "{weight} for {expected}");
        }
        assert_eq!(weights(&[0], &[vec![], vec![]], 0.5), [0.5, 0.5]);
        assert!(weights(&pixels, &seen, 1e-4).iter().all(|weight| weight.is_finite()));
    }

    proptest! {
        #[test]
        fn a_pass_takes_every_sample_as_often_as_it_is_due_but_for_one(
            parts in prop::collection::vec(1u32..1000, 1..40), length in 1usize..300, seed: u64, number in 0u64..5,
        ) {
            let sum: u32 = parts.iter().sum();
            let weights: Vec<f64> = parts.iter().map(|part| f64::from(*part) / f64::from(sum)).collect();
            let samples = pass(&weights, length, seed, number);
            prop_assert_eq!(samples.len(), length);
            for (sample, weight) in weights.iter().enumerate() {
                let (count, due) = (samples.iter().filter(|one| **one == sample as u32).count() as f64, weight * length as f64);
                prop_assert!((count - due).abs() < 1.0 + 1e-6, "{} times for {}", count, due);
            }
        }
    }
}
