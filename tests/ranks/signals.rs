//! A request to stop, however it comes, ends in a checkpoint and code 75 everywhere.

use crate::common::jobs::{self, Job, send, trained, wait_for, wait_for_step};
use crate::common::{Ended, mpirun, run, samples, segdist, tiny};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const SIGNALS: [Signal; 3] = [Signal::TERM, Signal::USR1, Signal::INT];

/// Overrides of a run that ends on request only, and where it is.
fn endless(folder: &TempDir, name: &str) -> (PathBuf, Vec<String>) {
    let (root, dir) = (folder.path().join("data"), folder.path().join(name));
    samples(&root, &[(48, 32), (32, 48), (40, 40)], 4, 1);
    let overrides = tiny(&root, &dir, 100_000);
    (dir, overrides)
}

/// The run stopped after the last step that its history shows, and can be continued there.
#[track_caller]
fn assert_stopped(ended: &Ended, dir: &Path) {
    assert_eq!(ended.code, 75, "{}", ended.all());
    let last = *trained(dir).last().unwrap();
    let newest = segdist::checkpoint::newest(dir).unwrap().unwrap();
    assert_eq!((newest.state.step, newest.warnings.len()), (last, 0));
}

fn started(mut command: Command, dir: &Path, overrides: &[String]) -> Job {
    let job = Job::start(command.args(overrides));
    wait_for_step(dir, 2);
    job
}

#[test]
fn one_process_alone_stops_on_each_signal_and_continues() {
    let folder = TempDir::new().unwrap();
    let (dir, overrides) = endless(&folder, "run");
    let mut reached = 0;
    for signal in SIGNALS {
        let job = Job::start(segdist().args(&overrides));
        wait_for_step(&dir, reached + 2);
        send(job.pid(), signal);
        assert_stopped(&job.wait(60), &dir);
        let steps = trained(&dir);
        reached = *steps.last().unwrap();
        assert_eq!(steps, (1..=reached).collect::<Vec<_>>());
    }
}

#[test]
fn a_signal_to_any_rank_stops_all() {
    let folder = TempDir::new().unwrap();
    for (rank, signal) in [(0, SIGNALS[0]), (1, SIGNALS[1]), (1, SIGNALS[2])] {
        let (dir, overrides) = endless(&folder, &format!("run{rank}{signal:?}"));
        let job = started(mpirun(2), &dir, &overrides);
        send(job.rank(rank), signal);
        assert_stopped(&job.wait(60), &dir);
    }
}

#[test]
fn a_request_that_comes_while_the_job_starts_is_kept() {
    let folder = TempDir::new().unwrap();
    for (index, signal) in SIGNALS.into_iter().enumerate() {
        let (dir, overrides) = endless(&folder, &format!("run{index}"));
        let job = Job::start(mpirun(2).args(&overrides));
        let pid = job.rank(index % 2);
        wait_for("the program that listens", 60, || jobs::listens(pid, signal).then_some(()));
        assert!(!dir.join("metrics.jsonl").exists());
        send(pid, signal);
        assert_stopped(&job.wait(60), &dir);
        assert_eq!(trained(&dir), [1]);
    }
}

#[test]
fn usr1_to_mpirun_stops_all() {
    let folder = TempDir::new().unwrap();
    let (dir, overrides) = endless(&folder, "run");
    let job = started(mpirun(2), &dir, &overrides);
    send(job.pid(), Signal::USR1);
    assert_stopped(&job.wait(60), &dir);
}

#[test]
fn a_request_while_checkpoints_are_written_or_while_evaluating_is_kept() {
    let folder = TempDir::new().unwrap();
    let (dir, overrides) = endless(&folder, "run");
    let busy = ["TRAIN.epoch_iters=2", "TRAIN.num_epoch=50000", "VAL.every_epochs=1", "CHECKPOINT.every_steps=1"];
    let job = Job::start(mpirun(2).args(&overrides).args(busy));
    wait_for_step(&dir, 4);
    send(job.rank(1), Signal::TERM);
    assert_stopped(&job.wait(60), &dir);
}

#[test]
fn a_second_interrupt_stops_at_once() {
    let folder = TempDir::new().unwrap();
    let (dir, mut overrides) = endless(&folder, "run");
    // Steps long enough for both signals to fall into one.
    overrides
        .extend(["DATASET.imgSizes=(400,)", "DATASET.imgMaxSize=600", "TRAIN.batch_size_per_gpu=4"].map(String::from));
    let job = Job::start(segdist().args(&overrides));
    wait_for_step(&dir, 1);
    send(job.pid(), Signal::INT);
    std::thread::sleep(std::time::Duration::from_millis(50));
    send(job.pid(), Signal::INT);
    assert_eq!(job.wait(60).code, 130);
}

#[test]
fn the_time_limit_is_a_request() {
    let folder = TempDir::new().unwrap();
    let (dir, overrides) = endless(&folder, "run");
    for command in [&mut segdist(), &mut mpirun(2)] {
        let ended = run(command.args(&overrides).args(["TRAIN.max_minutes=0.02", "TRAIN.global_batch=2"]), 120);
        assert_stopped(&ended, &dir);
    }
}
