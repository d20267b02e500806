//! DATASET.cutout: a grey square without labels (DeVries and Taylor 2017, arXiv:1708.04552).

use super::render::GREY;
use super::{DatasetConfig, Edit, KeyedRng, Labels, Pixels, Placement, Purpose, Transform};
use crate::data::label_map::IGNORED;
use std::ops::Range;

struct Cutout {
    side: u32,
}

pub(super) fn from_config(config: &DatasetConfig) -> Option<Box<dyn Transform>> {
    (config.cutout > 0).then(|| Box::new(Cutout { side: config.cutout }) as _)
}

impl Transform for Cutout {
    fn purpose(&self) -> Purpose {
        Purpose::Named("grey square")
    }

    /// The square's middle is any pixel, so that it may reach over the border, as in the paper.
    fn place(&self, placement: &mut Placement, random: &mut KeyedRng) {
        let (width, height) = placement.size();
        let mut range = |edge: u32| {
            let start = random.below(edge.into()) as i64 - i64::from(self.side / 2);
            let end = (start + i64::from(self.side)).min(edge.into());
            start.max(0) as u32..end as u32
        };
        placement.edit(Square { columns: range(width), rows: range(height) });
    }
}

#[derive(Debug)]
struct Square {
    columns: Range<u32>,
    rows: Range<u32>,
}

impl Edit for Square {
    fn image(&self, image: &mut Pixels) {
        for (_, row) in (0..).zip(image.rows()).filter(|(y, _)| self.rows.contains(y)) {
            let columns = 3 * self.columns.start as usize..3 * self.columns.end as usize;
            row[columns].chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&GREY));
        }
    }

    fn label(&self, label: &mut Labels) {
        let middle = |at: u32| at * label.rate + label.rate / 2;
        let columns: Vec<usize> =
            (0..label.width).filter(|&x| self.columns.contains(&middle(x))).map(|x| x as usize).collect();
        let rows: Vec<bool> = (0..label.height).map(|y| self.rows.contains(&middle(y))).collect();
        for (row, _) in label.rows().zip(rows).filter(|(_, inside)| *inside) {
            columns.iter().for_each(|&x| row[x] = IGNORED);
        }
    }
}
