//! One rank failing ends the job in bounded time, non-zero, with one line that names the rank and the cause.

use crate::common::jobs::{Job, send, wait_for_step};
use crate::common::{Ended, launcher, mpirun, run, samples, tiny, with_faults};
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Overrides of a job that would train for long, in `folder`/run.
fn endless(folder: &Path) -> Vec<String> {
    let root = folder.join("data");
    samples(&root, &[(48, 32); 8], 4, 1);
    tiny(&root, &folder.join("run"), 100_000)
}

/// A job of `count` ranks that has made a few steps.
fn started(folder: &Path, count: usize, more: &[&str]) -> Job {
    let job = Job::start(mpirun(count).args(endless(folder)).args(more));
    wait_for_step(&folder.join("run"), 2);
    job
}

/// Lines that put the blame on `rank`.
fn blames(ended: &Ended, rank: usize) -> Vec<&str> {
    ended.stderr.lines().filter(|line| line.contains(&format!("rank {rank} (host "))).collect()
}

#[test]
fn a_killed_rank_ends_the_job_within_ten_seconds() {
    for rank in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        let job = started(folder.path(), 2, &[]);
        send(job.rank(rank), Signal::KILL);
        let ended = job.wait(10);
        assert_ne!(ended.code, 0, "{}", ended.all());
        assert!(ended.all().contains("signal 9") || !blames(&ended, rank).is_empty(), "{}", ended.all());
    }
}

#[test]
fn a_panic_in_a_gradient_hook_ends_the_job_within_ten_seconds_and_tells_its_cause_once() {
    for rank in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = launcher();
        // The network has 76 parameters, so this is in the third backward.
        with_faults(command.args(["-np", "2"]), &[(rank, "hook:190:panic")]);
        let job = Job::start(command.args(endless(folder.path())));
        wait_for_step(&folder.path().join("run"), 2);
        let ended = job.wait(10);
        assert_ne!(ended.code, 0, "{}", ended.all());
        let errors = ended.errors();
        assert_eq!(errors.len(), 1, "{}", ended.all());
        let cause = "asks for a panic in hook";
        assert!(errors[0].contains(&format!("rank {rank}: ")) && errors[0].contains(cause), "{}", ended.all());
        assert_eq!(ended.all().matches(cause).count(), 1, "{}", ended.all());
    }
}

#[test]
fn a_stopped_rank_is_named_within_the_timeout() {
    for rank in [0, 1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let job = started(folder.path(), 3, &["DIST.stall_timeout_s=4"]);
        let pid = job.rank(rank);
        send(pid, Signal::STOP);
        let stopped = Instant::now();
        let ended = job.wait(40);
        send(pid, Signal::KILL);
        assert_ne!(ended.code, 0, "{}", ended.all());
        assert!(stopped.elapsed() < Duration::from_secs(30), "{}", ended.all());
        let lines = blames(&ended, rank);
        assert_eq!(lines.len(), 1, "one line names rank {rank}: {}", ended.all());
        assert!(lines[0].contains(&pid.to_string()), "{}", ended.all());
        for other in [0, 1, 2].into_iter().filter(|other| *other != rank) {
            let told = |channel: &str| {
                let (who, what) = (format!("[rank {other} on"), format!("last collectives of {channel}: "));
                let mut lines = ended.stderr.lines().filter(|line| line.starts_with(&who));
                lines.find(|line| line.contains(&what)).map(str::to_owned)
            };
            for channel in ["step", "gradients", "batch norm"] {
                assert!(told(channel).is_some(), "rank {other}, {channel}: {}", ended.all());
            }
            let waits = ["step", "gradients", "batch norm"].into_iter().filter_map(told);
            assert!(waits.filter(|line| line.contains("not done for")).count() > 0, "{}", ended.all());
        }
    }
}

#[test]
fn ranks_that_were_given_different_data_are_told_apart_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    samples(&root, &[(48, 32); 8], 4, 1);
    let other = folder.path().join("other");
    samples(&other, &[(48, 32); 6], 4, 2);
    // Each rank has its own working folder, and with it its own "data/list.odgt".
    let [first, second] = ["a", "b"].map(|name| folder.path().join(name));
    for (place, data) in [(&first, &root), (&second, &other)] {
        std::fs::create_dir(place).unwrap();
        std::os::unix::fs::symlink(data, place.join("data")).unwrap();
    }
    let overrides = tiny(Path::new("data"), &folder.path().join("run"), 2);
    let mut command = launcher();
    for (place, colon) in [(&first, ""), (&second, ":")] {
        command.args((!colon.is_empty()).then_some(colon));
        command.args(["-np", "1", "--wdir"]).arg(place).arg(env!("CARGO_BIN_EXE_segdist")).args(&overrides);
    }
    let ended = run(&mut command, 60);
    assert_ne!(ended.code, 0, "{}", ended.all());
    let errors = ended.errors();
    assert_eq!(errors.len(), 1, "{}", ended.all());
    assert!(errors[0].contains("data set") && errors[0].contains("rank 1"), "{}", ended.all());
    assert!(!folder.path().join("run/metrics.jsonl").exists());
}
