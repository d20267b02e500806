//! DATASET.crop: a square part of every sample, or all of it where it is smaller.

use super::{DatasetConfig, KeyedRng, Placement, Purpose, Transform};

struct Crop {
    side: u32,
}

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    (config.crop > 0).then(|| Box::new(Crop { side: config.crop }) as _)
}

impl Transform for Crop {
    fn purpose(&self) -> Purpose {
        Purpose::Crop
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        let (width, height) = placement.size();
        let mut offset = |edge: u32| random.below(u64::from(edge.saturating_sub(self.side)) + 1) as u32;
        let corner = (offset(width), offset(height));
        placement.crop(corner, (self.side, self.side));
    }
}
