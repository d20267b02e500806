//! Random numbers that are a function of what they are for, not of what was drawn before.
//!
//! Every draw comes from a ChaCha8 stream whose 256-bit key is (seed, purpose, a, b), so any step, pass or sample is
//! reached directly, no generator outlives its use, and a new purpose changes the draws of no other. Bounded integers, fractions and the shuffle are written out,
//! because a resumed run must meet the same numbers whatever version of a library it is built with.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// What a stream is for; two purposes never share numbers. Their keys are part of the order's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The permutation of a pass: (pass, 0).
    Permutation,
    /// The order of the global batches in a window: (pass, window).
    Window,
    /// The short edge of a step's micro-batches: (step, 0).
    ShortEdge,
    /// Flip of a sample: (pass, sample).
    Flip,
    /// Factor on a sample's size: (pass, sample).
    ScaleJitter,
    /// Corner of a sample's crop: (pass, sample).
    Crop,
    /// Colour changes of a sample: (pass, sample).
    ColorJitter,
    /// What replaces a corrupt sample: (pass, sample).
    Substitute,
    /// Whatever else is done to a sample, by the name of its transform: (pass, sample).
    Named(&'static str),
}

impl Purpose {
    /// Its word of the key, and how many draws of that stream come before its own.
    ///
    /// Scale, crop and colours once shared a stream, one, two and three draws long: they still begin where they did, so
    /// that runs go on with the same draws.
    fn stream(self) -> (u64, u64) {
        match self {
            Purpose::Permutation => (1, 0),
            Purpose::Window => (2, 0),
            Purpose::ShortEdge => (3, 0),
            Purpose::Flip => (4, 0),
            Purpose::ScaleJitter => (5, 0),
            Purpose::Crop => (5, 1),
            Purpose::ColorJitter => (5, 3),
            Purpose::Substitute => (6, 0),
            Purpose::Named(name) => {
                let hash = blake3::hash(name.as_bytes());
                let word = u64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]));
                // Above all keys that are numbered.
                (word | 1 << 63, 0)
            }
        }
    }
}

/// A stream of random numbers.
pub struct KeyedRng(ChaCha8Rng);

impl KeyedRng {
    /// The stream of `purpose` under `seed`; `a` and `b` say which of its uses.
    pub fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> KeyedRng {
        let (purpose, before) = purpose.stream();
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let mut stream = ChaCha8Rng::from_seed(key);
        if before > 0 {
            // A draw is two words of 32 bits.
            stream.set_word_pos(u128::from(2 * before));
        }
        KeyedRng(stream)
    }

    /// A uniform integer below `n`, without bias (Lemire, arXiv 1805.10941); 0 for `n` = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let mut product = u128::from(self.0.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let biased = n.wrapping_neg() % n;
            while (product as u64) < biased {
                product = u128::from(self.0.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// A uniform fraction in [0, 1), a multiple of 2⁻⁵³.
    pub fn fraction(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A uniform number between `low` and `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.fraction()
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn streams_differ_in_every_part_of_their_key() {
        let first = |seed, purpose, a, b| KeyedRng::new(seed, purpose, a, b).below(u64::MAX);
        let all = [
            first(1, Purpose::Flip, 0, 0),
            first(2, Purpose::Flip, 0, 0),
            first(1, Purpose::ScaleJitter, 0, 0),
            first(1, Purpose::Crop, 0, 0),
            first(1, Purpose::ColorJitter, 0, 0),
            first(1, Purpose::Named("resize"), 0, 0),
            first(1, Purpose::Named("cutout"), 0, 0),
            first(1, Purpose::Flip, 1, 0),
            first(1, Purpose::Flip, 0, 1),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one));
        }
    }

    #[test]
    fn numbers_never_change_between_versions() {
        let mut stream = KeyedRng::new(304, Purpose::Permutation, 0, 0);
        let mut items: Vec<u32> = (0..10).collect();
        stream.shuffle(&mut items);
        assert_eq!(items, [7, 5, 0, 1, 8, 6, 4, 3, 9, 2]);
    }

    proptest! {
        #[test]
        fn integers_stay_below_their_bound_and_fractions_below_one(seed: u64, n in 1u64..) {
            let mut stream = KeyedRng::new(seed, Purpose::Flip, 3, 4);
            for _ in 0..20 {
                prop_assert!(stream.below(n) < n);
                let fraction = stream.fraction();
                prop_assert!((0.0..1.0).contains(&fraction));
            }
        }

        #[test]
        fn a_shuffle_is_a_permutation(seed: u64, n in 0usize..200) {
            let mut items: Vec<usize> = (0..n).collect();
            KeyedRng::new(seed, Purpose::Window, 0, 0).shuffle(&mut items);
            items.sort_unstable();
            prop_assert_eq!(items, (0..n).collect::<Vec<_>>());
        }
    }
}
