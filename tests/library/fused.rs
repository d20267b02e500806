//! Fused operations refuse tensors that do not fit together, where libtorch's kernels would read past the shorter one.

use segdist::torch::fused::{AdamW, Sgd, adamw, batch_norm_sums, sgd};
use tch::{Device, Kind, Tensor};

fn ones(size: &[i64]) -> Tensor {
    Tensor::ones(size, (Kind::Float, Device::Cpu))
}

/// SGD without decay.
fn plain(lr: f64, momentum: f64) -> Sgd {
    Sgd { lr, momentum, decay: 0.0, grad_scale: 1.0 }
}

/// What is not like ones(2, 3) beside it.
fn misfits() -> Vec<Vec<Tensor>> {
    let spread = Tensor::ones([2], (Kind::Float, Device::Cpu)).view([2, 1]).expand([2, 3], false);
    vec![
        vec![],
        vec![ones(&[2, 3]), ones(&[2, 3])],
        vec![ones(&[1])],
        vec![ones(&[3, 2])],
        vec![ones(&[3, 2]).transpose(0, 1)],
        vec![ones(&[2, 3]).to_kind(Kind::Double)],
        vec![spread],
    ]
}

#[test]
fn optimizer_lists_that_differ_in_length_shape_kind_or_memory_order_are_refused() {
    let good = || vec![ones(&[2, 3])];
    let with = AdamW { step: 1.0, lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, decay: 0.0, grad_scale: 1.0 };
    for bad in misfits() {
        assert!(sgd(&good(), &bad, &good(), &plain(0.1, 0.9)).is_err(), "{bad:?}");
        assert!(sgd(&good(), &good(), &bad, &plain(0.1, 0.9)).is_err(), "{bad:?}");
        assert!(sgd(&bad, &good(), &good(), &plain(0.1, 0.9)).is_err(), "{bad:?}");
        for place in 0..4 {
            let mut lists = [good(), good(), good(), good()];
            lists[place] = bad.iter().map(Tensor::shallow_clone).collect();
            let [parameters, gradients, means, squares] = &lists;
            assert!(adamw(parameters, gradients, means, squares, &with).is_err(), "{place}: {bad:?}");
        }
    }
    let parameters = good();
    sgd(&parameters, &good(), &good(), &plain(0.5, 1.0)).unwrap();
    // m = 1 + 1, p = 1 − 0.5 · 2.
    assert_eq!(parameters[0].sum(Kind::Float).double_value(&[]), 0.0);
}

#[test]
fn lists_of_values_that_overlap_in_memory_are_refused() {
    let spread = || vec![ones(&[2]).view([2, 1]).expand([2, 3], false)];
    assert!(sgd(&spread(), &spread(), &spread(), &plain(0.1, 0.9)).is_err());
}

#[test]
fn batch_norm_sums_of_tensors_that_do_not_fit_are_refused() {
    let sums = |dy: &[i64], x: &[i64], channels: [i64; 3]| {
        let [weight, mean, variance] = channels.map(|count| ones(&[count]));
        batch_norm_sums(&ones(dy), &ones(x), &weight, (&mean, &variance), 1e-5)
    };
    let size = [2, 3, 4, 4];
    assert!(sums(&size, &size, [3; 3]).is_ok());
    for (dy, x, channels) in [
        (&[1, 3, 4, 4][..], &size[..], [3; 3]),
        (&size, &[2, 3, 4], [3; 3]),
        (&size, &size, [1, 3, 3]),
        (&size, &size, [3, 2, 3]),
        (&size, &size, [3, 3, 1]),
        (&[0, 3, 4, 4], &[0, 3, 4, 4], [3; 3]),
    ] {
        assert!(sums(dy, x, channels).is_err(), "{dy:?} {x:?} {channels:?}");
    }
}
