//! Synchronized batch norm of the ranks of this job against the formula on the whole batch, in f64.

use crate::{assert_close, device, noise};
use segdist::comm::{Comm, Solo, mpi};
use segdist::model::BnVariance;
use segdist::model::layers::{BatchNorm2d, Normalize, Observation};
use segdist::sync::batch_norm::SyncBatchNorm;
use segdist::torch::memory;
use std::cell::RefCell;
use std::sync::Arc;
use tch::{Device, IndexOp, Kind, Tensor};

pub const CHANNELS: i64 = 6;
const EPS: f64 = 1e-5;

/// One way to run it: the type of images, their memory order, how a variance becomes a divisor, images and their side.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    channels_last: bool,
    variance: BnVariance,
    count: i64,
    side: i64,
    /// Rank 0 has this many of the images, the others share the rest as they come.
    first: i64,
}

/// Output, gradients of input, weight and bias, mean, and biased variance.
struct Pass([Tensor; 6]);

fn vector(start: f64, step: f64) -> Tensor {
    Tensor::arange(CHANNELS, (Kind::Double, Device::Cpu)) * step + start
}

/// Channels with means far from 0, one of them constant: its variance is 0.
fn images(case: Case) -> Tensor {
    let channel = Tensor::arange(CHANNELS, (Kind::Double, Device::Cpu)).view([1, CHANNELS, 1, 1]);
    let values = noise(&[case.count, CHANNELS, case.side, case.side], 1) * &channel + &channel * 3.0;
    // What the device's type holds.
    values.to_kind(case.kind).to_kind(Kind::Double)
}

fn incoming(case: Case) -> Tensor {
    noise(&[case.count, CHANNELS, case.side, case.side], 2).to_kind(case.kind).to_kind(Kind::Double)
}

/// A layer whose tensors are all different.
pub fn layer(device: Device) -> BatchNorm2d {
    let f32_on_device = |values: Tensor| values.to_kind(Kind::Float).to_device(device);
    let zeros = || Tensor::zeros([CHANNELS], (Kind::Float, device));
    BatchNorm2d {
        weight: f32_on_device(vector(0.5, 0.3)).set_requires_grad(true),
        bias: f32_on_device(vector(-1.0, 0.4)).set_requires_grad(true),
        running_mean: f32_on_device(vector(0.3, 2.0)),
        running_var: zeros(),
        tmp_running_mean: zeros(),
        tmp_running_var: zeros(),
        running_iter: Tensor::ones([1], (Kind::Float, device)),
        momentum: 0.1,
        eps: EPS,
        observed: RefCell::default(),
    }
}

/// The images `from..to` of a case, on this rank.
fn ours(case: Case, norm: &dyn Normalize, (from, to): (i64, i64), device: Device) -> Pass {
    let own = |values: Tensor| {
        let values = values.i(from..to).to_kind(case.kind).to_device(device);
        if case.channels_last { memory::to_channels_last(&values) } else { values.contiguous() }
    };
    let layer = layer(device);
    let x = own(images(case)).set_requires_grad(true);
    let y = norm.batch_norm(&layer, &x);
    assert!(norm.failure().is_none());
    // The stride of a dimension of length 1 says nothing.
    let stride = |tensor: &Tensor| if case.side > 1 { tensor.stride() } else { Vec::new() };
    assert_eq!((y.kind(), stride(&y)), (x.kind(), stride(&x)), "{case:?}: the output is of the input's form");
    y.backward_with(&own(incoming(case)));
    let seen = layer.observed.borrow_mut().pop();
    let Observation { mean, variance, count } = seen.unwrap_or_else(|| nothing(&layer));
    let values = (case.count * case.side * case.side) as f64;
    let variance = if count.is_some() || values <= 1.0 { variance } else { variance * ((values - 1.0) / values) };
    Pass([y.detach(), x.grad(), layer.weight.grad(), layer.bias.grad(), mean, variance])
}

/// One value alone is not observed by the layer of one rank.
fn nothing(layer: &BatchNorm2d) -> Observation {
    let (mean, variance) = (&layer.running_mean, &layer.running_var);
    Observation { mean: mean * f64::NAN, variance: variance.shallow_clone(), count: None }
}

trait BackwardWith {
    /// Backward from this output with `gradient` arriving from above.
    fn backward_with(&self, gradient: &Tensor);
}

impl BackwardWith for Tensor {
    fn backward_with(&self, gradient: &Tensor) {
        (self * gradient).to_kind(Kind::Float).sum(Kind::Float).backward();
    }
}

/// The formula, differentiated by libtorch, and this rank's part of its results.
fn expected(case: Case, (from, to): (i64, i64)) -> Pass {
    let (x, weight, bias) = (images(case).set_requires_grad(true), vector(0.5, 0.3), vector(-1.0, 0.4));
    let per_channel = |values: &Tensor| values.view([1, CHANNELS, 1, 1]);
    let over = |values: &Tensor| values.mean_dim(&[0i64, 2, 3][..], true, Kind::Double);
    let mean = over(&x);
    let variance = over(&(&x - &mean).square());
    let divisor = match case.variance {
        BnVariance::Offset => (&variance + EPS).rsqrt(),
        BnVariance::Clamped => variance.clamp_min(EPS).rsqrt(),
    };
    let normal = (&x - &mean) * divisor;
    let y = &normal * per_channel(&weight) + per_channel(&bias);
    let dy = incoming(case);
    (&y * &dy).sum(Kind::Double).backward();
    let own = |values: &Tensor| values.detach().i(from..to);
    let sums = |values: Tensor| values.sum_dim_intlist(&[0i64, 2, 3][..], false, Kind::Double);
    let flat = |values: &Tensor| values.detach().view([CHANNELS]);
    let (dweight, dbias) = (sums(own(&normal) * own(&dy)), sums(own(&dy)));
    Pass([own(&y), own(&x.grad()), dweight, dbias, flat(&mean), flat(&variance)])
}

fn check(case: Case, comm: &Arc<dyn Comm>, device: Device) {
    let (rank, ranks) = (comm.rank() as i64, comm.size() as i64);
    let first = if ranks == 1 { case.count } else { case.first };
    let rest = |rank: i64| first + (case.count - first) * (rank - 1).max(0) / (ranks - 1).max(1);
    let range = if rank == 0 { (0, first) } else { (rest(rank), rest(rank + 1)) };
    let norm = SyncBatchNorm::new(comm.clone(), case.variance);
    let (found, expected) = (ours(case, &norm, range, device), expected(case, range));
    let tolerance = match case.kind {
        Kind::Float => 1e-4,
        Kind::Half => 4e-3,
        _ => 3e-2,
    };
    let names =
        ["output", "gradient of the input", "gradient of the weight", "gradient of the bias", "mean", "variance"];
    for (index, name) in names.into_iter().enumerate() {
        let (found, expected) = (&found.0[index], &expected.0[index]);
        let what = format!("{case:?}, rank {rank} of {ranks}: the {name}");
        match index {
            // Channel by channel: where the variance is 0 gradients are hundreds of times as large.
            0 | 1 => (0..CHANNELS).for_each(|channel| {
                let channel = |all: &Tensor| all.i((.., channel));
                assert_close(&channel(found), &channel(expected), (tolerance, 100.0 * tolerance * EPS.sqrt()), &what);
            }),
            2 | 3 => assert_close(found, expected, (tolerance, tolerance), &what),
            // Statistics are f32 whatever the images are; one rank alone observes none of a single value.
            _ if found.isnan().all().int64_value(&[]) == 1 => {}
            _ => assert_close(found, expected, (1e-4, 1e-4), &what),
        }
    }
}

#[test]
fn over_ranks_it_is_that_of_the_whole_batch_in_every_type_and_memory_order() {
    let session = mpi::launched().then(|| mpi::Session::start().expect("MPI starts"));
    let comm: Arc<dyn Comm> =
        session.as_ref().map_or_else(|| Arc::new(Solo) as Arc<dyn Comm>, |session| session.world());
    if comm.size() > 1 {
        // The other rank would wait for ever.
        let (all, report) = (comm.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            all.abort(1);
        }));
    }
    let device = device();
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        for channels_last in [false, true] {
            for variance in [BnVariance::Offset, BnVariance::Clamped] {
                // Equal parts, unequal ones, an empty one on either side, one value a channel, larger than a block.
                for (count, side, first) in [(4, 3, 2), (4, 5, 1), (3, 4, 0), (3, 4, 3), (1, 1, 1), (6, 40, 3)] {
                    let case = Case { kind, channels_last, variance, count, side, first };
                    // libtorch's own layer of one rank refuses one value a channel.
                    if comm.size() > 1 || count * side > 1 {
                        check(case, &comm, device);
                    }
                }
            }
        }
    }
    if let Some(session) = session {
        session.finish(0);
    }
}
