//! What every layer of a forward pass has to know.

use super::BatchNorm2d;
use crate::model::{Pass, dropout};
use crate::torch::upload::upload;
use std::cell::Cell;
use tch::Tensor;

/// Numbers of dropout layers lie below those of residual branches.
const BRANCHES: u64 = 1000;

/// One forward pass through a network's layers.
pub struct Context<'a> {
    /// How it is to be made.
    pub pass: &'a Pass<'a>,
    /// Height and width of the images.
    pub size: (i64, i64),
    /// The network's batch norm layers, which [`ConvNorm`]s know by their index.
    pub(in crate::model) norms: &'a [BatchNorm2d],
    /// What is left of them where they are folded into the convolutions before them, by the same index; else empty.
    pub(in crate::model) shifts: &'a [Option<Tensor>],
    /// Counts the multiply-adds of the layers passed, where somebody wants to know.
    pub(in crate::model) multiply_adds: Option<&'a Cell<u64>>,
}

impl Context<'_> {
    /// Sets channels of `x` (n, channels, h, w) to zero and scales the others up, in place, as the pass asks for.
    pub fn dropout(&self, layer: u64, mut x: Tensor) -> Tensor {
        let Some(key) = self.pass.dropout.filter(|_| self.pass.train) else { return x };
        let (images, channels) = (x.size()[0], x.size()[1]);
        let masks: Vec<f32> = (0..images as u64)
            .flat_map(|image| dropout::mask(key, layer, image, channels as usize, dropout::PROBABILITY))
            .collect();
        let masks = Tensor::from_slice(&masks).view([images, channels, 1, 1]);
        x.g_mul_(&upload(&masks, x.device()).to_kind(x.kind()))
    }

    /// Sets single values of `x` (n, …) to zero with the given probability, and scales the others up, in place.
    pub fn dropout_values(&self, layer: u64, probability: f64, mut x: Tensor) -> Tensor {
        let Some(key) = self.pass.dropout.filter(|_| self.pass.train) else { return x };
        let size = x.size();
        let count = size[1..].iter().product::<i64>() as usize;
        let masks: Vec<f32> =
            (0..size[0] as u64).flat_map(|image| dropout::mask(key, layer, image, count, probability)).collect();
        let masks = Tensor::from_slice(&masks).view(&size[..]);
        x.g_mul_(&upload(&masks, x.device()).to_kind(x.kind()))
    }

    /// Drops the branch `x` (n, …) of a residual block for each image by itself with the given probability, and scales
    /// it up where it stays (stochastic depth, Huang et al. 2016, arXiv:1603.09382).
    ///
    /// `branch` is its number in the network: like a dropout layer's, a part of the mask's key.
    pub fn drop_path(&self, branch: u64, probability: f64, mut x: Tensor) -> Tensor {
        let Some(key) = self.pass.dropout.filter(|_| self.pass.train && probability > 0.0) else { return x };
        let images = x.size()[0];
        let masks: Vec<f32> =
            (0..images as u64).flat_map(|image| dropout::mask(key, BRANCHES + branch, image, 1, probability)).collect();
        let mut size = vec![1; x.dim()];
        size[0] = images;
        let masks = Tensor::from_slice(&masks).view(&size[..]);
        x.g_mul_(&upload(&masks, x.device()).to_kind(x.kind()))
    }

    /// What is left of the batch norm of that index, where it is folded.
    pub(in crate::model) fn shift(&self, norm: usize) -> Option<&Tensor> {
        self.shifts.get(norm).and_then(Option::as_ref)
    }

    /// Adds to the multiply-adds of one image.
    pub(in crate::model) fn count(&self, multiply_adds: i64) {
        if let Some(count) = self.multiply_adds {
            count.set(count.get() + multiply_adds as u64);
        }
    }
}
