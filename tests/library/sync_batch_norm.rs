//! Batch norm over ranks equals batch norm of their batches put together.

use segdist::comm::{Comm, threads};
use segdist::model::BnVariance;
use segdist::model::layers::{BatchNorm2d, Normalize, Observation};
use segdist::sync::batch_norm::SyncBatchNorm;
use std::cell::RefCell;
use std::sync::Arc;
use tch::{Device, IndexOp, Kind, Tensor};

const CHANNELS: i64 = 5;
const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

fn layer() -> BatchNorm2d {
    let vector = |start: f64, step: f64| Tensor::arange(CHANNELS, CPU) * step + start;
    let zeros = || Tensor::zeros([CHANNELS], CPU);
    BatchNorm2d {
        weight: vector(0.5, 0.3).set_requires_grad(true),
        bias: vector(-1.0, 0.4).set_requires_grad(true),
        running_mean: zeros(),
        running_var: zeros(),
        tmp_running_mean: zeros(),
        tmp_running_var: zeros(),
        running_iter: Tensor::ones([1], CPU),
        momentum: 0.1,
        eps: 1e-5,
        observed: RefCell::default(),
    }
}

/// Images whose channels have means far from 0 and different spreads.
fn images(count: i64) -> Tensor {
    let values = (Tensor::arange(count * CHANNELS * 12, CPU) * 0.77).sin().view([count, CHANNELS, 3, 4]);
    let channel = Tensor::arange(CHANNELS, CPU).view([1, CHANNELS, 1, 1]);
    values * (&channel + 0.1) + channel * 3.0
}

/// The gradient that arrives from above, for all images.
fn incoming(count: i64) -> Tensor {
    (Tensor::arange(count * CHANNELS * 12, CPU) * 1.3).cos().view([count, CHANNELS, 3, 4])
}

/// What one pass gives: output, gradient of the input, of weight and bias, observed mean and unbiased variance.
type Pass = [Tensor; 6];

/// Runs images `from..to` of `count` on one rank.
fn pass(norm: &dyn Normalize, (from, to): (i64, i64), count: i64) -> Pass {
    let layer = layer();
    let x = images(count).i(from..to).contiguous().set_requires_grad(true);
    let y = norm.batch_norm(&layer, &x);
    (&y * incoming(count).i(from..to)).sum(Kind::Float).backward();
    let Observation { mean, variance, count } = layer.observed.borrow_mut().pop().unwrap();
    // Without a count it is unbiased already.
    let variance = count
        .map_or_else(|| variance.shallow_clone(), |count| (&variance * &count / (&count - 1.0)).to_kind(Kind::Float));
    [y.detach(), x.grad(), layer.weight.grad(), layer.bias.grad(), mean, variance]
}

fn assert_close(a: &Tensor, b: &Tensor, what: &str) {
    assert_eq!(a.size(), b.size(), "{what}");
    let error = if a.numel() == 0 { 0.0 } else { (a - b).abs().max().double_value(&[]) };
    assert!(error <= 1e-5 * b.abs().max().double_value(&[]).max(1.0), "{what} is off by {error}");
}

/// Ranks with `parts` images each against one batch of all images.
fn check(parts: &[i64], variance: BnVariance, whole: &dyn Normalize) {
    let count: i64 = parts.iter().sum();
    let ends: Vec<i64> = parts
        .iter()
        .scan(0, |end, part| {
            *end += part;
            Some(*end)
        })
        .collect();
    let passes = threads::run(parts.len(), |comm: Arc<dyn Comm>| {
        let rank = comm.rank();
        pass(&SyncBatchNorm::new(comm, variance), (ends[rank] - parts[rank], ends[rank]), count)
    });
    let expected = pass(whole, (0, count), count);
    let over_ranks = |index: usize| passes.iter().map(|pass| &pass[index]).collect::<Vec<_>>();
    assert_close(&Tensor::cat(&over_ranks(0), 0), &expected[0], "the output");
    assert_close(&Tensor::cat(&over_ranks(1), 0), &expected[1], "the input's gradient");
    for (index, what) in [(2, "the weight's gradient"), (3, "the bias' gradient")] {
        assert_close(
            &Tensor::stack(&over_ranks(index), 0).sum_dim_intlist(0, false, Kind::Float),
            &expected[index],
            what,
        );
    }
    for (index, what) in [(4, "the mean"), (5, "the variance")] {
        for part in over_ranks(index) {
            assert_close(part, &expected[index], what);
            assert!(part.equal(&passes[0][index]), "{what} differs between ranks");
        }
    }
}

/// Batch norm written out in tch's own differentiable operations.
struct Plain(BnVariance);

impl Normalize for Plain {
    fn batch_norm(&self, layer: &BatchNorm2d, x: &Tensor) -> Tensor {
        let mean = x.mean_dim(&[0i64, 2, 3][..], true, Kind::Float);
        let variance = (x - &mean).square().mean_dim(&[0i64, 2, 3][..], true, Kind::Float);
        let count = Tensor::from_slice(&[(x.numel() as i64 / CHANNELS) as f64]);
        let flat = |values: &Tensor| values.detach().view([CHANNELS]);
        layer.observe(Observation { mean: flat(&mean), variance: flat(&variance), count: Some(count) });
        let divisor = match self.0 {
            BnVariance::Offset => (variance + layer.eps).rsqrt(),
            BnVariance::Clamped => variance.clamp_min(layer.eps).rsqrt(),
        };
        let per_channel = |values: &Tensor| values.view([1, CHANNELS, 1, 1]);
        (x - mean) * divisor * per_channel(&layer.weight) + per_channel(&layer.bias)
    }
}

#[test]
fn equal_parts_equal_the_whole_batch() {
    for parts in [&[4][..], &[2, 2], &[1, 1, 1, 1]] {
        check(parts, BnVariance::Offset, &Plain(BnVariance::Offset));
    }
}

#[test]
fn unequal_and_empty_parts_equal_the_whole_batch() {
    for parts in [&[1, 3][..], &[0, 3], &[3, 0], &[2, 0, 1, 5], &[0, 0, 2, 0]] {
        check(parts, BnVariance::Offset, &Plain(BnVariance::Offset));
    }
}

#[test]
fn the_clamped_variance_of_the_reference_can_be_had() {
    for parts in [&[3][..], &[1, 2], &[0, 3]] {
        check(parts, BnVariance::Clamped, &Plain(BnVariance::Clamped));
    }
}

#[test]
fn channels_last_and_row_major_images_give_the_same() {
    let run = |channels_last: bool| {
        threads::run(2, |comm| {
            let mut x = images(2);
            if channels_last {
                x = segdist::torch::memory::to_channels_last(&x);
            }
            SyncBatchNorm::new(comm, BnVariance::Offset).batch_norm(&layer(), &x).contiguous()
        })
    };
    for (a, b) in run(true).iter().zip(run(false)) {
        assert_close(a, &b, "the output");
    }
}

#[test]
fn the_same_pass_twice_gives_the_same_bits() {
    let run = || threads::run(3, |comm| pass(&SyncBatchNorm::new(comm, BnVariance::Offset), (0, 2), 2));
    for (a, b) in run().iter().zip(run()) {
        assert!(a.iter().zip(&b).all(|(a, b)| a.equal(b)));
    }
}
