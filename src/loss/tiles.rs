//! Scores at the size of the labels, a few rows at a time: DATASET.segm_downsampling_rate 1.
//!
//! Logits of stride 4 take sixteen times their memory once they are as large as the image, and softmax and its gradient
//! as much again. Here they are never there as a whole: a tile of rows is enlarged, what is asked of it is computed, and
//! its gradient goes back into that of the small logits before the next tile. The enlargement is that of
//! [`crate::model::layers::resize`] (bilinear, corners not aligned).

use crate::torch::autograd;
use crate::torch::upload::upload;
use tch::{Kind, Tensor};

/// Scores in one tile, at least a row of all images; some tensors of this size are there at a time. Fewer make a CPU's
/// threads wait for each other, and leave a GPU without work.
const TILE: [i64; 2] = [4 << 20, 32 << 20];

/// Which elements of a sum over tiles depend on the scores smoothly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slope {
    /// The first alone: its gradient is taken with its value, while the tile is there.
    First,
    /// Any: what they are multiplied by is known in backward, which goes through the tiles again.
    All,
}

/// Σ over pixels of what `part` makes of scores (n, classes, rows, w) and labels (n, rows, w) of the same pixels; it must
/// give sums over these pixels, in any shape, that sum over rows to those of the whole.
///
/// `logits` (n, classes, …) are of the size of `labels` (n, h, w), and then all of it is one tile, or of another.
pub fn sum(
    logits: &Tensor,
    labels: &Tensor,
    slope: Slope,
    part: impl Fn(&Tensor, &Tensor) -> Tensor + Send + 'static,
) -> Tensor {
    if fits(logits, labels) {
        return part(logits, labels);
    }
    let (kind, tiles) = (logits.kind(), Tiles::new(logits, labels));
    if !logits.requires_grad() {
        return tch::no_grad(|| tiles.parts(&part)).into_iter().sum();
    }
    match slope {
        Slope::First => {
            let (sums, gradient) = tiles.sum_and_gradient(&part, |sums| sums.flatten(0, -1).get(0));
            let backward = move |slopes: Tensor| {
                let slope = slopes.flatten(0, -1).get(0).to_kind(Kind::Float);
                Ok(vec![(&gradient * slope).to_kind(kind)])
            };
            attached(sums, logits, backward)
        }
        Slope::All => {
            let sums: Tensor = tch::no_grad(|| tiles.parts(&part)).into_iter().sum();
            let backward = move |slopes: Tensor| {
                let (_, gradient) = tiles.sum_and_gradient(&part, |sums| (sums * &slopes).sum(Kind::Double));
                Ok(vec![gradient.to_kind(kind)])
            };
            attached(sums, logits, backward)
        }
    }
}

/// What `part` makes of every pixel's scores, (n, rows, w), without gradients: (n, h, w).
pub fn map(logits: &Tensor, labels: &Tensor, part: impl Fn(&Tensor, &Tensor) -> Tensor) -> Tensor {
    tch::no_grad(|| {
        if fits(logits, labels) {
            return part(logits, labels);
        }
        Tensor::cat(&Tiles::new(logits, labels).parts(&part), 1)
    })
}

/// Whether there is a score for each label.
pub fn fits(logits: &Tensor, labels: &Tensor) -> bool {
    logits.size()[2..] == labels.size()[1..]
}

/// `sums`, computed without a graph, with a backward function to `logits`.
pub fn attached(
    sums: Tensor,
    logits: &Tensor,
    backward: impl FnMut(Tensor) -> Result<Vec<Tensor>, String> + Send + 'static,
) -> Tensor {
    autograd::attach_backward(&sums, &[logits], backward).expect("a fresh tensor takes a backward function");
    sums
}

/// Rows of labels and the rows of logits that they lie between.
pub struct Tile {
    /// The first label row, and how many.
    rows: (i64, i64),
    /// The first row of the logits, and how many.
    slab: (i64, i64),
    /// Label rows from rows of the logits, (1, rows, rows of the slab).
    mix: Tensor,
}

/// Small scores, and labels to be compared with them.
pub struct Tiles {
    small: Tensor,
    labels: Tensor,
    tiles: Vec<Tile>,
}

impl Tiles {
    /// Detached from `logits`, in f32. Logits as large as the labels are tiles as well, and stay as they are.
    pub fn new(logits: &Tensor, labels: &Tensor) -> Tiles {
        let small = logits.detach().to_kind(Kind::Float);
        let (size, label) = (small.size(), labels.size());
        let most = TILE[usize::from(small.device().is_cuda())];
        let rows = (most / (size[0] * size[1] * label[2]).max(1)).clamp(1, label[1]);
        let tile = |first: i64| Tile::new(first, rows.min(label[1] - first), (size[2], label[1]), &small);
        let tiles = (0..label[1]).step_by(rows as usize).map(tile).collect();
        Tiles { tiles, labels: labels.shallow_clone(), small }
    }

    /// What `part` makes of every tile's scores and labels, from top to bottom.
    fn parts(&self, part: &impl Fn(&Tensor, &Tensor) -> Tensor) -> Vec<Tensor> {
        let of_tile = |tile: &Tile| part(&self.scores(tile, &self.slab(tile)), &tile.of(&self.labels));
        self.tiles.iter().map(of_tile).collect()
    }

    /// The logits that a tile's scores come from: a leaf of its own.
    fn slab(&self, tile: &Tile) -> Tensor {
        self.small.narrow(2, tile.slab.0, tile.slab.1).detach()
    }

    /// A gradient of all logits that is 0.
    pub fn zeros(&self) -> Tensor {
        self.small.zeros_like()
    }

    /// All scores, (n, classes, h, w).
    pub fn whole(&self) -> Tensor {
        Tensor::cat(&self.parts(&|scores, _| scores.shallow_clone()), 2)
    }

    /// A tile's scores, differentiable in its slab: rows by a product, columns by libtorch.
    fn scores(&self, tile: &Tile, slab: &Tensor) -> Tensor {
        let (size, width) = (slab.size(), self.labels.size()[2]);
        if fits(&self.small, &self.labels) {
            return slab.shallow_clone();
        }
        let planes = size[0] * size[1];
        let mix = tile.mix.expand([planes, tile.rows.1, size[2]], false);
        let rows = mix.bmm(&slab.reshape([planes, size[2], size[3]])).view([size[0], size[1], tile.rows.1, size[3]]);
        rows.upsample_bilinear2d([tile.rows.1, width], false, None, None)
    }

    /// The gradient of the small logits from a function of every tile's scores.
    pub fn gradient(&self, root: impl Fn(&Tile, &Tensor) -> Tensor) -> Tensor {
        let gradient = self.zeros();
        for tile in &self.tiles {
            let slab = self.slab(tile).set_requires_grad(true);
            let root = tch::with_grad(|| root(tile, &self.scores(tile, &slab)));
            let of_slab = Tensor::run_backward(&[root], &[&slab], false, false).remove(0);
            let _ = gradient.narrow(2, tile.slab.0, tile.slab.1).g_add_(&of_slab);
        }
        gradient
    }

    fn sum_and_gradient(
        &self,
        part: &impl Fn(&Tensor, &Tensor) -> Tensor,
        root: impl Fn(&Tensor) -> Tensor,
    ) -> (Tensor, Tensor) {
        let total = std::cell::RefCell::new(Vec::new());
        let gradient = self.gradient(|tile, scores| {
            let sums = part(scores, &tile.of(&self.labels));
            total.borrow_mut().push(sums.detach());
            root(&sums)
        });
        (total.into_inner().into_iter().sum(), gradient)
    }
}

impl Tile {
    /// The tile's part of what there is for every label pixel, (n, h, w).
    pub fn of(&self, pixels: &Tensor) -> Tensor {
        pixels.narrow(1, self.rows.0, self.rows.1)
    }

    /// `count` rows from `first` on; `heights`: of the logits and of the labels.
    fn new(first: i64, count: i64, heights: (i64, i64), small: &Tensor) -> Tile {
        let (height, label_height) = heights;
        // libtorch's own arithmetic, in f32, so that both put every row at the same place.
        let scale = height as f32 / label_height as f32;
        let place = |row: i64| {
            let place = (scale * (row as f32 + 0.5) - 0.5).max(0.0);
            let above = (place as i64).min(height - 1);
            let share = place - above as f32;
            // A row that lies on one of the logits needs no other.
            (above, if share > 0.0 { (above + 1).min(height - 1) } else { above }, share)
        };
        let start = place(first).0;
        let slab = (start, place(first + count - 1).1 - start + 1);
        let mut mix = vec![0f32; (count * slab.1) as usize];
        for row in 0..count {
            let (above, below, share) = place(first + row);
            mix[(row * slab.1 + above - start) as usize] += 1.0 - share;
            mix[(row * slab.1 + below - start) as usize] += share;
        }
        let mix = upload(&Tensor::from_slice(&mix).view([1, count, slab.1]), small.device());
        Tile { rows: (first, count), slab, mix }
    }
}
