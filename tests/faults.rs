//! One rank failing ends the job in bounded time, non-zero, with one line that names the rank and the cause.

mod common;

use common::{Ended, mpirun, samples, tiny, wait};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A job of `count` ranks that would train for long.
fn start(folder: &Path, count: usize, more: &[&str]) -> Child {
    let root = folder.join("data");
    samples(&root, &[(48, 32); 8], 4, 1);
    let overrides = tiny(&root, &folder.join("run"), 100_000);
    let mut command = mpirun(count);
    command.args(overrides).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the job has made a few steps.
fn wait_for_steps(folder: &Path) {
    let start = Instant::now();
    let history = folder.join("run/metrics.jsonl");
    while std::fs::read_to_string(&history).unwrap_or_default().lines().count() < 3 {
        assert!(start.elapsed() < Duration::from_secs(120), "no step was made");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The process of a rank of the job that `launcher` started, found by the launcher's own variables.
fn pid_of_rank(launcher: u32, rank: usize) -> i32 {
    let wanted = format!("OMPI_COMM_WORLD_RANK={rank}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = status.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parent == Some(launcher) && environment.split(|byte| *byte == 0).any(|item| item == wanted.as_bytes())
    })
    .expect("the rank is running")
}

fn signal(pid: i32, name: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()));
}

/// Lines that put the blame on `rank`.
fn blames(ended: &Ended, rank: usize) -> Vec<&str> {
    ended.stderr.lines().filter(|line| line.contains(&format!("rank {rank} (host "))).collect()
}

#[test]
fn a_killed_rank_ends_the_job_within_ten_seconds() {
    for rank in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        let job = start(folder.path(), 2, &[]);
        wait_for_steps(folder.path());
        let launcher = job.id();
        signal(pid_of_rank(launcher, rank), "KILL");
        let ended = wait(job, 10);
        assert_ne!(ended.code, 0, "{}", ended.all());
        assert!(ended.stderr.contains("signal 9") || !blames(&ended, rank).is_empty(), "{}", ended.all());
    }
}

#[test]
fn a_stopped_rank_is_named_within_the_timeout() {
    for rank in [0, 1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let job = start(folder.path(), 3, &["DIST.stall_timeout_s=4"]);
        wait_for_steps(folder.path());
        let pid = pid_of_rank(job.id(), rank);
        signal(pid, "STOP");
        let stopped = Instant::now();
        let ended = wait(job, 40);
        let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
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
    let mut command = std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.deps/bin/mpirun"));
    command.args(["--oversubscribe", "--bind-to", "none"]);
    for (place, colon) in [(&first, ""), (&second, ":")] {
        command.args((!colon.is_empty()).then_some(colon));
        command.args(["-np", "1", "--wdir"]).arg(place).arg(env!("CARGO_BIN_EXE_segdist")).args(&overrides);
    }
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"), ("OMP_NUM_THREADS", "1")]);
    let ended = common::run(&mut command, 60);
    assert_ne!(ended.code, 0, "{}", ended.all());
    let errors = ended.errors();
    assert_eq!(errors.len(), 1, "{}", ended.all());
    assert!(errors[0].contains("data set") && errors[0].contains("rank 1"), "{}", ended.all());
    assert!(!folder.path().join("run/metrics.jsonl").exists());
}
