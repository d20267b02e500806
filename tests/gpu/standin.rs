//! The calls that segdist makes of NCCL, over the stand-in: sums, order, errors and abort, with values of the host.

use segdist::comm::{Comm, CommError, threads};
use segdist::model::BnVariance;
use segdist::model::layers::Normalize;
use segdist::sync::batch_norm::SyncBatchNorm;
use segdist::sync::tensor_sum::{HostSum, NcclSum, TensorSum};
use segdist::torch::nccl::{Library, Nccl, UniqueId};
use segdist::torch::stream::{Event, Stream};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use tch::{Device, Kind, Tensor};

/// The stand-in, compiled once.
fn library() -> Library {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("libnccl.so.2");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gpu/standin.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-shared", "-fPIC", "-Wl,-soname,libnccl.so.2", "-o"]).arg(target).arg(source);
        assert!(compiler.args(["-ldl", "-lrt", "-pthread"]).status().unwrap().success());
        folder
    });
    Library::open(&[folder.path().join("libnccl.so.2")]).unwrap()
}

/// Runs `body` on ranks that have joined one communicator.
fn joined<T: Send>(ranks: usize, body: impl Fn(Arc<Nccl>, Arc<dyn Comm>) -> T + Sync) -> Vec<T> {
    let library = library();
    let id = library.unique_id().unwrap().as_bytes().to_vec();
    threads::run(ranks, move |comm| {
        let id = UniqueId::from_bytes(&id).unwrap();
        let nccl = Nccl::join(library, id, comm.rank(), comm.size(), Device::Cpu).unwrap();
        body(Arc::new(nccl), comm)
    })
}

fn sum(nccl: &Nccl, values: &Tensor) -> Result<(), CommError> {
    nccl.sum(values, &Stream::new(Device::Cpu).unwrap())?;
    nccl.wait(&Event::record(Device::Cpu).unwrap())
}

#[test]
fn sums_of_both_types_and_of_more_than_one_chunk_are_right_on_all_ranks() {
    let all = joined(3, |nccl, comm| {
        [Kind::Float, Kind::Double].map(|kind| {
            let values = Tensor::arange(700_001, (kind, Device::Cpu)).remainder(97.0) * (comm.rank() + 1) as f64;
            sum(&nccl, &values).unwrap();
            let expected = Tensor::arange(700_001, (kind, Device::Cpu)).remainder(97.0) * 6.0;
            values.equal(&expected)
        })
    });
    assert_eq!(all, [[true; 2]; 3]);
}

#[test]
fn ranks_whose_calls_differ_are_told() {
    let errors =
        joined(2, |nccl, comm| sum(&nccl, &Tensor::ones([5 + comm.rank() as i64], (Kind::Float, Device::Cpu))));
    for error in errors.into_iter().map(Result::unwrap_err) {
        assert!(error.to_string().contains("the ranks' calls differ"), "{error}");
    }
}

#[test]
fn an_abort_on_one_rank_ends_what_the_others_wait_for() {
    let results = joined(2, |nccl, comm| {
        if comm.rank() == 0 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            nccl.abort();
        }
        sum(&nccl, &Tensor::ones([4], (Kind::Float, Device::Cpu))).map_err(|error| error.to_string())
    });
    assert!(results[0].as_ref().unwrap_err().contains("it was aborted"), "{results:?}");
    assert!(results[1].is_err(), "{results:?}");
}

#[test]
fn batch_statistics_by_way_of_nccl_have_the_bits_of_those_of_the_host() {
    let output = |ranks: Arc<dyn TensorSum>, rank: usize| {
        let norm = SyncBatchNorm::over(ranks, BnVariance::Offset);
        let layer = crate::batch_norm::layer(Device::Cpu);
        let x = crate::noise(&[2, crate::batch_norm::CHANNELS, 3, 4], rank as i64).to_kind(Kind::Float);
        let x = x.set_requires_grad(true);
        let y = norm.batch_norm(&layer, &x);
        y.square().sum(Kind::Float).backward();
        [y.detach(), x.grad(), layer.weight.grad()]
    };
    let pairs = joined(2, |nccl, comm| {
        let rank = comm.rank();
        let by_nccl = output(Arc::new(NcclSum::new(nccl, Device::Cpu, &*comm)), rank);
        (by_nccl, output(Arc::new(HostSum(comm)), rank))
    });
    for (ours, theirs) in pairs {
        assert!(ours.iter().zip(&theirs).all(|(a, b)| a.equal(b)));
    }
}
