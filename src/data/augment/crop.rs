//! DATASET.crop: a part of every sample, or all of it where it is smaller.

use super::{DatasetConfig, KeyedRng, Placement, Purpose, Transform};

/// Corners that are tried before the next one is taken as it is, as in mmsegmentation (`RandomCrop`, cat_max_ratio).
const TRIED: usize = 10;

struct Crop {
    size: (u32, u32),
    share: f64,
}

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    let share = config.crop_max_share;
    config.crop_size().map(|size| Box::new(Crop { size, share }) as _)
}

impl Transform for Crop {
    fn purpose(&self) -> Purpose {
        // More corners are more draws than the first stream has room for.
        if self.share < 1.0 { Purpose::Named("crop by label") } else { Purpose::Crop }
    }

    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        let (width, height) = placement.size();
        let mut offset = |edge: u32, side: u32| random.below(u64::from(edge.saturating_sub(side)) + 1) as u32;
        let mut corner = || (offset(width, self.size.0), offset(height, self.size.1));
        if self.share < 1.0 {
            let corners: [(u32, u32); TRIED + 1] = std::array::from_fn(|_| corner());
            placement.crop_by_label(&corners, self.size, self.share);
        } else {
            let corner = corner();
            placement.crop(corner, self.size);
        }
    }
}
