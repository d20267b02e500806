//! DATASET.rotate: half of the samples, by a random angle.

use super::{DatasetConfig, KeyedRng, Placement, Purpose, Transform};

struct Rotate {
    degrees: f64,
}

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    (config.rotate > 0.0).then(|| Box::new(Rotate { degrees: config.rotate }) as _)
}

impl Transform for Rotate {
    fn purpose(&self) -> Purpose {
        Purpose::Named("rotate")
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        if random.below(2) == 1 {
            placement.rotate(random.between(-self.degrees, self.degrees).to_radians());
        }
    }
}
