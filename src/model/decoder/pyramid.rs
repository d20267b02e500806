//! The 3 × 3 convolution over a feature map and its pooled maps side by side, without making the pooled maps large.
//!
//! The reference resizes every pooled map (s × s cells, s at most 6) to the feature map's h × w, concatenates, and
//! convolves: four fifths of PPM's work behind ResNet-18, and its largest tensor. Both steps are linear, so they can
//! change places. Each cell, alone between zeros, is convolved to its 3 × 3 response; the responses are then resized,
//! rows first and columns after, by small matrices: column (i, m) of the one for rows holds, for row y, the share
//! of cell i in resized row y + 1 − m, since response m of a cell is what it gives to the row m − 1 away. Zero
//! padding around the resized map comes out as rows that have no share.

use tch::{Kind, Tensor};

/// conv3×3(cat(x, resize(cells₁), …)) for `weight` (outputs, channels of all, 3, 3), `x` (n, c, h, w) and square `cells`.
pub(super) fn convolve(weight: &Tensor, x: &Tensor, cells: &[Tensor]) -> Tensor {
    let (height, width) = (x.size()[2], x.size()[3]);
    let channels: Vec<i64> = std::iter::once(x).chain(cells).map(|part| part.size()[1]).collect();
    let weights = weight.split_with_sizes(&channels[..], 1);
    let rows: Vec<Tensor> = cells
        .iter()
        .zip(&weights[1..])
        .map(|(cells, weight)| shares(cells, height).transpose(0, 1).matmul(&responses(cells, weight)))
        .collect();
    let columns: Vec<Tensor> = cells.iter().map(|cells| shares(cells, width)).collect();
    let pooled = Tensor::cat(&rows, 3).matmul(&Tensor::cat(&columns, 0));
    padded_conv(x, &weights[0]).g_add_(&pooled)
}

/// The response of every cell (n, c, s, s) to the kernel: (n, outputs, 3s, 3s).
fn responses(cells: &Tensor, weight: &Tensor) -> Tensor {
    let size = cells.size();
    let (side, apart) = (size[2], size[2] * 3);
    let apart = cells
        .view([size[0], size[1], side, 1, side, 1])
        .constant_pad_nd([1, 1, 0, 0, 1, 1])
        .view([size[0], size[1], apart, apart]);
    padded_conv(&apart, weight)
}

/// The share of every response in each of `length` places, (3s, length).
fn shares(cells: &Tensor, length: i64) -> Tensor {
    let side = cells.size()[2];
    let cell = Tensor::eye(side, (Kind::Float, cells.device())).unsqueeze(0);
    let shares = cell.upsample_linear1d([length], false, None).squeeze_dim(0).constant_pad_nd([1, 1]);
    let response = |m: i64| shares.narrow(1, 2 - m, length);
    Tensor::stack(&[response(0), response(1), response(2)], 1).view([3 * side, length]).to_kind(cells.kind())
}

fn padded_conv(x: &Tensor, weight: &Tensor) -> Tensor {
    x.conv2d::<Tensor>(weight, None, [1, 1], [1, 1], [1, 1], 1)
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
            let cells: Vec<Tensor> = [1, 2, 3, 6].iter().map(|&side| random(&[images, 2, side, side])).collect();
            let weight = random(&[4, 11, 3, 3]);
            let mut parts = vec![x.shallow_clone()];
            parts.extend(cells.iter().map(|cells| resize(cells, &[height, width])));
            let expected = padded_conv(&Tensor::cat(&parts, 1), &weight);
            prop_assert!(convolve(&weight, &x, &cells).allclose(&expected, 1e-6, 1e-6, false));
        }
    }
}
