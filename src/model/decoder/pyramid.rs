//! A 3 × 3 convolution over a feature map and coarser maps beside it, without making the coarser maps large.
//!
//! PPM and UPerNet resize maps (pooled ones of s × s cells, s at most 6; the levels of a feature pyramid) to the finest map's
//! h × w, concatenate, and convolve: most of their work, and their largest tensor. Both steps are linear, so they can change
//! places. Each coarse pixel's 3 × 3 response to the kernel is computed at its own place; the responses are then resized,
//! rows first and columns after, by small matrices: column (i, m) of the one for rows holds, for row y, the share of
//! coarse row i in resized row y + 1 − m, since response m of a pixel is what it gives to the row m − 1 away. Zero
//! padding around the resized map comes out as rows that have no share.

use tch::{Kind, Tensor};

/// conv3×3(cat(x, resize(coarser₁), …)) for `weight` (outputs, channels of all, 3, 3), `x` (n, c, h, w) and `coarser` maps
/// of any size.
pub(super) fn convolve(weight: &Tensor, x: &Tensor, coarser: &[Tensor]) -> Tensor {
    let channels: Vec<i64> = std::iter::once(x).chain(coarser).map(|part| part.size()[1]).collect();
    let weights = weight.split_with_sizes(&channels[..], 1);
    let mut sum = padded_conv(x, &weights[0]);
    for (map, weight) in coarser.iter().zip(&weights[1..]) {
        let as_large = map.size()[2..] == x.size()[2..];
        let part = if as_large { padded_conv(map, weight) } else { resized(&responses(map, weight), map, x) };
        let _ = sum.g_add_(&part);
    }
    sum
}

fn padded_conv(x: &Tensor, weight: &Tensor) -> Tensor {
    x.conv2d::<Tensor>(weight, None, [1, 1], [1, 1], [1, 1], 1)
}

/// The response of every pixel of `x` (n, c, h, w) to the kernel: (n, outputs, 3h, 3w).
fn responses(x: &Tensor, weight: &Tensor) -> Tensor {
    let (size, outputs) = (x.size(), weight.size()[0]);
    let (images, height, width) = (size[0], size[2], size[3]);
    let kernel = weight.flip([2, 3]).permute([0, 2, 3, 1]).reshape([outputs * 9, size[1], 1, 1]);
    let apart = x.conv2d::<Tensor>(&kernel, None, [1, 1], [0, 0], [1, 1], 1);
    let apart = apart.reshape([images, outputs, 3, 3, height, width]).permute([0, 1, 4, 2, 5, 3]);
    apart.reshape([images, outputs, 3 * height, 3 * width])
}

/// The responses of all pixels of `map`, resized to where `x` is.
fn resized(responses: &Tensor, map: &Tensor, x: &Tensor) -> Tensor {
    let shares = |axis: usize| shares(map.size()[axis], x.size()[axis], responses);
    shares(2).transpose(0, 1).matmul(responses).matmul(&shares(3))
}

/// The share of every response in each of `length` places, (3 · side, length).
fn shares(side: i64, length: i64, like: &Tensor) -> Tensor {
    let pixel = Tensor::eye(side, (Kind::Float, like.device())).unsqueeze(0);
    let shares = pixel.upsample_linear1d([length], false, None).squeeze_dim(0).constant_pad_nd([1, 1]);
    let response = |m: i64| shares.narrow(1, 2 - m, length);
    Tensor::stack(&[response(0), response(1), response(2)], 1).view([3 * side, length]).to_kind(like.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layers::resize;
    use proptest::prelude::*;
    use tch::Device;

    fn random(size: &[i64]) -> Tensor {
        Tensor::rand(size, (Kind::Double, Device::Cpu)) - 0.5
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_is_the_convolution_of_the_concatenation(height in 1i64..12, width in 1i64..12, images in 0i64..3) {
            let x = random(&[images, 3, height, width]);
            let cells = [(1, 1), (2, 2), (3, 3), ((height + 1) / 2, (width + 3) / 4)];
            let cells: Vec<Tensor> = cells.iter().map(|&(rows, columns)| random(&[images, 2, rows, columns])).collect();
            let weight = random(&[4, 11, 3, 3]);
            let mut parts = vec![x.shallow_clone()];
            parts.extend(cells.iter().map(|cells| resize(cells, &[height, width])));
            let expected = padded_conv(&Tensor::cat(&parts, 1), &weight);
            prop_assert!(convolve(&weight, &x, &cells).allclose(&expected, 1e-6, 1e-6, false));
        }
    }
}
