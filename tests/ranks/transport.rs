//! DIST.transport: ways that do not work here are refused before the first step, and `auto` is `host` on the CPU.

use crate::common::jobs;
use crate::common::{losses, mpirun, run, samples, tiny};
use segdist::torch::nccl::Library;
use std::path::Path;
use std::process::Command;

/// Two ranks that see no GPU, two steps.
fn train(folder: &Path, transport: &str) -> Command {
    let mut command = mpirun(2);
    command.args(tiny(&folder.join("data"), &folder.join(transport), 2)).arg(format!("DIST.transport={transport}"));
    command.env("CUDA_VISIBLE_DEVICES", "");
    command
}

#[test]
fn a_way_between_gpus_is_refused_on_the_cpu_before_the_first_step_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    samples(&folder.path().join("data"), &[(48, 32), (32, 48), (40, 40), (64, 40)], 4, 1);
    for name in ["nccl", "cuda_mpi"] {
        let ended = run(&mut train(folder.path(), name), 60);
        let line = format!(
            "segdist: DIST.transport {name} sums the memory of GPUs, and rank 0 computes on the CPU: set DIST.transport auto"
        );
        assert_eq!((ended.code, ended.errors()), (2, vec![line.as_str()]), "{}", ended.all());
        assert!(!folder.path().join(name).join("metrics.jsonl").exists(), "{}", ended.all());
    }
}

#[test]
fn auto_and_host_train_the_same_bits_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    samples(&folder.path().join("data"), &[(48, 32), (32, 48), (40, 40), (64, 40)], 4, 1);
    let [auto, host] = ["auto", "host"].map(|name| {
        let ended = run(&mut train(folder.path(), name), 120).ok();
        let told = ended.stderr.lines().filter(|line| line.contains("by way of host memory")).count();
        assert_eq!(told, 1, "{}", ended.all());
        folder.path().join(name)
    });
    assert_eq!(losses(&auto), losses(&host));
    assert!(jobs::tensors(&auto, 2) == jobs::tensors(&host, 2));
}

#[test]
fn a_library_that_cannot_be_loaded_is_named_with_the_causes_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, other) = (folder.path().join("absent.so"), folder.path().join("other.so"));
    std::fs::write(&other, "not a library").unwrap();
    // libc is a library, and not this one.
    let message = Library::open(&[absent.clone(), other.clone(), "libc.so.6".into()]).err().unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    for part in ["libnccl.so.2 cannot be loaded", "ncclGetVersion", "launch/setup.sh --cuda"] {
        assert!(message.contains(part), "{message}");
    }
    for path in [absent, other] {
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn nccl_is_loaded_and_asked_where_it_lies_and_explained_where_it_does_not() {
    match Library::load() {
        Ok(library) => {
            assert!(library.version().starts_with("2."), "{}", library.version());
            assert!(library.unique_id().unwrap().as_bytes().iter().any(|byte| *byte != 0));
        }
        Err(message) => assert!(message.starts_with("libnccl.so.2 cannot be loaded ("), "{message}"),
    }
}
