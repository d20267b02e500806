//! A network in a few numbers, for people who choose one.

use super::layers::{Local, Role};
use super::{ModelConfig, ModelError, Network, Pass, shape};
use std::cell::Cell;
use tch::{Device, Kind, Tensor};

/// What `segdist config` prints of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Numbers that are trained.
    pub parameters: u64,
    /// Multiply-adds of convolutions, linear layers and attention for one image of the given size, as papers lay them out.
    pub multiply_adds: u64,
    /// Input pixels per pixel of the scores, one direction.
    pub output_stride: u32,
    /// Channels of the encoder's feature maps, finest first.
    pub widths: Vec<i64>,
}

/// Describes the network of `config` with `num_class` classes for images of `height` × `width`.
pub fn summarise(config: &ModelConfig, num_class: usize, height: i64, width: i64) -> Result<Summary, ModelError> {
    let shape = shape(config)?;
    let network = Network::blank(config, num_class, Device::Cpu)?;
    let trained = network.store.variables.iter().filter(|variable| variable.role != Role::Buffer);
    let parameters = trained.map(|variable| variable.tensor.numel() as u64).sum();
    let multiply_adds = Cell::new(0);
    let pass = Pass { train: false, norm: &Local, dropout: None, deep_supervision: true };
    // A batch of no image has every tensor's shape and takes no time.
    let none = Tensor::zeros([0, 3, height, width], (Kind::Float, Device::Cpu));
    tch::no_grad(|| network.run(&none, &pass, Some(&multiply_adds)));
    Ok(Summary {
        parameters,
        multiply_adds: multiply_adds.get(),
        output_stride: shape.output_stride,
        widths: shape.widths,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted by hand from the shapes: the reference's ResNet-18 with its three-convolution stem, and C1.
    #[test]
    fn a_small_network_is_counted_exactly() {
        let config =
            ModelConfig { arch_encoder: "resnet18".into(), arch_decoder: "c1".into(), ..ModelConfig::default() };
        let summary = summarise(&config, 10, 64, 64).unwrap();
        let block = |inputs: u64, width: u64, shortcut: bool| {
            9 * inputs * width + 9 * width * width + if shortcut { inputs * width } else { 0 }
        };
        let stage = |inputs, width| block(inputs, width, true) + block(width, width, false);
        let stem = [27 * 64, 9 * 64 * 64, 9 * 64 * 128];
        let stages = [stage(128, 64), stage(64, 128), stage(128, 256), stage(256, 512)];
        let head = [9 * 512 * 128, 128 * 10];
        let pixels = [1024, 256, 64, 16, 4];
        let convolutions =
            stem.iter().sum::<u64>() * pixels[0] + stages.iter().zip(&pixels[1..]).map(|(c, p)| c * p).sum::<u64>();
        assert_eq!(summary.multiply_adds, convolutions + head.iter().sum::<u64>() * pixels[4]);
        let norms = 2 * (64 + 64 + 128) + [64, 128, 256, 512].map(|width| 2 * 5 * width).iter().sum::<u64>() + 2 * 128;
        let weights = stem.iter().chain(&stages).chain(&head).sum::<u64>();
        assert_eq!(summary.parameters, weights + norms + 10);
        assert_eq!((summary.output_stride, summary.widths), (32, vec![64, 128, 256, 512]));
    }

    #[test]
    fn every_pair_passes_a_batch_without_images() {
        for encoder in ["mobilenetv2dilated", "resnet50dilated", "resnet18", "hrnetv2"] {
            for decoder in ["c1", "ppm", "ppm_deepsup", "upernet_lite"] {
                let config = ModelConfig {
                    arch_encoder: encoder.into(),
                    arch_decoder: decoder.into(),
                    ..ModelConfig::default()
                };
                if shape(&config).is_ok() {
                    assert!(summarise(&config, 7, 61, 97).unwrap().multiply_adds > 0, "{encoder} {decoder}");
                }
            }
        }
    }
}
