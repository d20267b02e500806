//! DATASET.imgSizes and imgMaxSize: the short edge becomes that of the step, unless the long one would be too long.

use super::super::resize::target_size;
use super::{DatasetConfig, KeyedRng, Placement, Purpose, Transform};

struct Resize {
    max_size: u32,
}

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    Some(Box::new(Resize { max_size: config.imgMaxSize }))
}

impl Transform for Resize {
    fn purpose(&self) -> Purpose {
        Purpose::Named("resize")
    }

    fn place(&self, placement: &mut Placement, _: &mut KeyedRng) {
        placement.resize(target_size(placement.source(), placement.short_edge(), self.max_size));
    }
}
