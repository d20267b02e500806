//! DATASET.scale_jitter: a random factor on every sample's size.

use super::{DatasetConfig, KeyedRng, Placement, Purpose, Transform};

struct ScaleJitter {
    range: [f64; 2],
}

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    (config.scale_jitter != [1.0, 1.0]).then(|| Box::new(ScaleJitter { range: config.scale_jitter }) as _)
}

impl Transform for ScaleJitter {
    fn purpose(&self) -> Purpose {
        Purpose::ScaleJitter
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        let factor = random.between(self.range[0], self.range[1]);
        let scaled = |edge: u32| (f64::from(edge) * factor) as u32;
        let (width, height) = placement.size();
        placement.resize((scaled(width), scaled(height)));
    }
}
