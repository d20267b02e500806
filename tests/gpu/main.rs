//! What a device computes against plain f64 on the CPU: on a GPU by tests/gpu/run.sh, alone or under mpirun; by
//! `cargo test` on the CPU.

mod batch_norm;
mod networks;
mod standin;

use tch::{Device, Kind, Tensor};

/// The device under test: GPU 0 where SEGDIST_KIT_DEVICE is cuda.
fn device() -> Device {
    if std::env::var("SEGDIST_KIT_DEVICE").is_ok_and(|name| name == "cuda") {
        let gpus = segdist::torch::load_cuda();
        assert!(!gpus.identities.is_empty(), "there is no GPU: {:?}", gpus.trouble);
        segdist::torch::stream::enter_device(Device::Cuda(0)).unwrap();
        return Device::Cuda(0);
    }
    Device::Cpu
}

/// Values without pattern in −1..1, f64 on the CPU.
fn noise(size: &[i64], seed: i64) -> Tensor {
    let count = size.iter().product::<i64>();
    let values = ((Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed * 7919) * 12.9898).sin() * 43758.5453;
    (values.frac() * 2.0 - 1.0).view(size)
}

/// Fails unless the tensors differ by at most `relative` of the largest value of `expected`, and `absolute` on top.
#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, (relative, absolute): (f64, f64), what: &str) {
    let host = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let (found, expected) = (host(found), host(expected));
    assert_eq!(found.size(), expected.size(), "{what}");
    if expected.numel() == 0 {
        return;
    }
    let largest = expected.abs().max().double_value(&[]);
    let error = (found - expected).abs().max().double_value(&[]);
    let allowed = relative * largest + absolute;
    assert!(error <= allowed, "{what} is off by {error} of {largest}; allowed are {allowed}");
}
