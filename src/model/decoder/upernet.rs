//! UPerNet (Xiao et al. 2018, arXiv:1807.10221): pyramid pooling on the last feature map, then a feature pyramid down to
//! the finest (`UPerNet` in the reference's models.py, whose lateral widths fit ResNet-50 alone; here the encoder gives them).

use super::ppm::{SCALES, WIDTH};
use super::{Conv2d, ConvNorm, ConvShape, Logits, conv3x3, resize};
use crate::model::layers::Context;
use crate::model::path::Path;
use tch::Tensor;

pub(in crate::model) struct UperNet {
    pyramid: Vec<ConvNorm>,
    top: ConvNorm,
    /// One per feature map but the last, as `outputs`.
    laterals: Vec<ConvNorm>,
    outputs: Vec<ConvNorm>,
    fuse: ConvNorm,
    last: Conv2d,
}

impl UperNet {
    /// On feature maps of `widths` channels; `width`: channels of the feature pyramid.
    pub fn new(path: &Path, widths: &[i64], classes: i64, width: i64) -> Self {
        let (&last, finer) = widths.split_last().expect("every encoder has a feature map");
        let pyramid = path / "ppm_conv";
        let pyramid =
            (0..SCALES.len()).map(|i| ConvNorm::sequential(&(&pyramid / i), ConvShape::new(last, WIDTH, 1))).collect();
        let top = conv3x3(&(path / "ppm_last_conv"), last + WIDTH * SCALES.len() as i64, width);
        let (lateral, output) = (path / "fpn_in", path / "fpn_out");
        let lateral = |(i, &inputs)| ConvNorm::sequential(&(&lateral / i), ConvShape::new(inputs, width, 1));
        let laterals = finer.iter().enumerate().map(lateral).collect();
        let outputs = (0..finer.len()).map(|i| conv3x3(&(&output / i / 0), width, width)).collect();
        let path = path / "conv_last";
        let fuse = conv3x3(&(&path / 0), width * widths.len() as i64, width);
        let last = Conv2d::with_bias(&(&path / 1), ConvShape::new(width, classes, 1));
        UperNet { pyramid, top, laterals, outputs, fuse, last }
    }

    pub fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let (last, finer) = maps.split_last().expect("every encoder has a feature map");
        let mut above = self.top(last, context);
        let mut levels = vec![above.shallow_clone()];
        for ((map, lateral), output) in finer.iter().zip(&self.laterals).zip(&self.outputs).rev() {
            let size = &map.size()[2..];
            above = resize(&above, size).g_add_(&lateral.forward_relu(map, context));
            levels.push(output.forward_relu(&above, context));
        }
        drop(above);
        levels.reverse();
        let size = levels[0].size();
        let (finest, coarser) = levels.split_at(1);
        let mut parts = vec![finest[0].shallow_clone()];
        parts.extend(coarser.iter().map(|level| resize(level, &size[2..])));
        drop(levels);
        let joined = Tensor::cat(&parts, 1);
        drop(parts);
        let main = self.last.forward(&self.fuse.forward_relu(&joined, context), context);
        Logits { main, deepsup: None }
    }

    /// The last feature map with its surroundings at four scales.
    fn top(&self, last: &Tensor, context: &Context) -> Tensor {
        let mut parts = vec![last.shallow_clone()];
        for (layer, scale) in self.pyramid.iter().zip(SCALES) {
            let pooled = last.adaptive_avg_pool2d([scale, scale]);
            parts.push(layer.forward_resized_relu(&pooled, &last.size()[2..], context));
        }
        self.top.forward_relu(&Tensor::cat(&parts, 1), context)
    }
}
