//! Inputs through the network: every size, mirrored or not, whole or window by window.

use super::ValConfig;
use super::fuse::ScoreMap;
use super::input::Input;
use crate::data::{DatasetConfig, batch::normalise};
use crate::fault::{Failure, Kind};
use crate::model::{EVALUATE, Network};
use tch::{Device, IndexOp, Tensor};

/// A setting that cannot be evaluated with.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// Label maps are bytes.
    #[error("DATASET.num_class is {0}: label maps hold at most 256 classes")]
    Classes(usize),
    /// No size, no input.
    #[error("DATASET.imgSizes is empty: name at least one short edge")]
    NoSizes,
    /// Windows lie on the network's grid.
    #[error("{key} is {value}: must be a multiple of DATASET.padding_constant, {padding}")]
    #[allow(missing_docs)]
    Window { key: &'static str, value: u32, padding: u32 },
    /// Pixels would be left out.
    #[error("VAL.stride {stride} is larger than VAL.window {window}: windows would leave gaps")]
    #[allow(missing_docs)]
    Gaps { stride: u32, window: u32 },
    /// The network's output is coarser than the padding.
    #[error("DATASET.padding_constant must be a multiple of the network's output stride for VAL.window to be used")]
    Stride,
    /// libtorch gave up.
    #[error("the network failed: {0}")]
    Torch(#[from] tch::TchError),
}

impl Failure for ScoreError {
    fn kind(&self) -> Kind {
        match self {
            ScoreError::Torch(_) => Kind::Passing,
            _ => Kind::Input,
        }
    }
}

/// Checks what DATASET and VAL say before anything is read.
pub fn check(dataset: &DatasetConfig, val: &ValConfig) -> Result<(), ScoreError> {
    if dataset.num_class > 256 {
        return Err(ScoreError::Classes(dataset.num_class));
    }
    if dataset.imgSizes.is_empty() {
        return Err(ScoreError::NoSizes);
    }
    let padding = dataset.padding_constant.max(1);
    for (key, value) in [("VAL.window", val.window), ("VAL.stride", val.stride)] {
        if !value.is_multiple_of(padding) {
            return Err(ScoreError::Window { key, value, padding });
        }
    }
    if val.window > 0 && val.stride > val.window {
        return Err(ScoreError::Gaps { stride: val.stride, window: val.window });
    }
    Ok(())
}

/// A network and how images are shown to it.
pub struct Scorer {
    network: Network,
    device: Device,
    flip: bool,
    /// Side of a window; 0: none.
    window: i64,
    /// Step from window to window.
    step: i64,
}

impl Scorer {
    /// `count` scorers by one network, each for one thread at a time. `val` must have passed [`check`].
    pub fn several(
        count: usize,
        network: &Network,
        dataset: &DatasetConfig,
        val: &ValConfig,
        device: Device,
    ) -> Vec<Scorer> {
        let padding = dataset.padding_constant.max(1);
        let two_thirds = (val.window * 2 / 3 / padding * padding).max(padding);
        let step = if val.stride == 0 { two_thirds } else { val.stride };
        let scorer = |network| Scorer { network, device, flip: val.flip, window: val.window.into(), step: step.into() };
        network.for_inference(count).into_iter().map(scorer).collect()
    }

    /// Scores `images` images of equal input shapes: for each one, a map per input, and per mirrored input.
    pub fn score(&self, inputs: &[Input], images: usize) -> Result<Vec<Vec<ScoreMap>>, ScoreError> {
        let mut maps: Vec<Vec<ScoreMap>> = (0..images).map(|_| Vec::new()).collect();
        let _guard = tch::no_grad_guard();
        for input in inputs {
            let pixels = normalise(&input.pixels, input.size, &vec![input.size; images], self.device);
            let mut passes = vec![self.logits(&pixels)?];
            if self.flip {
                passes.push(self.logits(&pixels.flip([3]))?.flip([3]));
            }
            for logits in passes {
                for (image, maps) in maps.iter_mut().enumerate() {
                    maps.push(ScoreMap::new(&logits.i(image as i64))?);
                }
            }
        }
        Ok(maps)
    }

    /// Logits of (n, 3, h, w) at the network's output stride.
    fn logits(&self, images: &Tensor) -> Result<Tensor, ScoreError> {
        let (_, _, height, width) = images.size4()?;
        if self.window == 0 || (height <= self.window && width <= self.window) {
            return Ok(self.forward(images));
        }
        let mut sums: Option<(Tensor, Tensor)> = None;
        let (tall, wide) = (height.min(self.window), width.min(self.window));
        for top in offsets(height, tall, self.step) {
            for left in offsets(width, wide, self.step) {
                let logits = self.forward(&images.narrow(2, top, tall).narrow(3, left, wide));
                let (n, classes, rows, columns) = logits.size4()?;
                let stride = tall / rows;
                if rows * stride != tall || columns * stride != wide || height % stride != 0 || width % stride != 0 {
                    return Err(ScoreError::Stride);
                }
                let size = |channels| [n, channels, height / stride, width / stride];
                let zeros = |channels| Tensor::zeros(size(channels), (logits.kind(), self.device));
                let (sum, count) = sums.get_or_insert_with(|| (zeros(classes), zeros(1)));
                let part = |whole: &Tensor| whole.narrow(2, top / stride, rows).narrow(3, left / stride, columns);
                let _ = part(sum).g_add_(&logits);
                let _ = part(count).g_add_scalar_(1.0);
            }
        }
        let (sum, count) = sums.ok_or(ScoreError::NoSizes)?;
        Ok(sum / count)
    }

    fn forward(&self, images: &Tensor) -> Tensor {
        self.network.forward(images, &EVALUATE).main
    }
}

/// Starts of windows of `side` pixels, `step` apart, that cover `whole` pixels and end at its end.
fn offsets(whole: i64, side: i64, step: i64) -> Vec<i64> {
    let last = whole - side;
    let mut offsets: Vec<i64> = (0..last).step_by(step.max(1) as usize).collect();
    offsets.push(last);
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_cover_everything_and_stay_inside(whole in 1i64..300, side in 1i64..300, step in 1i64..300) {
            let (side, step) = (side.min(whole), step.min(side));
            let mut covered = 0;
            for offset in offsets(whole, side, step) {
                prop_assert!(offset >= 0 && offset <= covered && offset + side <= whole);
                covered = offset + side;
            }
            prop_assert_eq!(covered, whole);
        }
    }
}
