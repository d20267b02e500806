//! DATASET.random_flip: half of the samples, left to right.

use super::{DatasetConfig, KeyedRng, Placement, Purpose, Transform};

struct Flip;

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    config.random_flip.then(|| Box::new(Flip) as _)
}

impl Transform for Flip {
    fn purpose(&self) -> Purpose {
        Purpose::Flip
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        if random.below(2) == 1 {
            placement.mirror();
        }
    }
}
