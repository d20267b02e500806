//! More ranks than cores: they start, train and evaluate, and one that is killed among them is still named in time.
//!
//! `SEGDIST_RANKS` sets how many there are (default 6).

use crate::common::jobs::{Job, send, trained, wait_for};
use crate::common::{events, mpirun, run, samples, tiny};
use rustix::process::Signal;
use std::path::Path;

fn count() -> usize {
    std::env::var("SEGDIST_RANKS").map_or(6, |text| text.parse().expect("SEGDIST_RANKS is a number"))
}

/// Overrides of a job of one small image a rank and step, in `folder`/run.
fn overrides(folder: &Path, steps: u64) -> Vec<String> {
    let root = folder.join("data");
    samples(&root, &[(32, 32); 8], 4, 1);
    let mut all = tiny(&root, &folder.join("run"), steps);
    all.extend(["TRAIN.batch_size_per_gpu=1", "VAL.every_epochs=1"].map(String::from));
    all
}

#[test]
fn all_train_three_steps_and_evaluate() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(mpirun(count()).args(overrides(folder.path(), 3)), 900).ok();
    let run = folder.path().join("run");
    assert_eq!(trained(&run), [1, 2, 3], "{}", ended.all());
    assert_eq!(events(&run, "eval").len(), 1, "{}", ended.all());
}

#[test]
fn the_one_that_is_killed_ends_all_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::start(mpirun(count()).args(overrides(folder.path(), 100_000)));
    wait_for("the first step", 600, || {
        let text = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).ok()?;
        text.contains("\"event\":\"train\"").then_some(())
    });
    let last = count() - 1;
    let pid = job.rank(last);
    send(pid, Signal::KILL);
    let ended = job.wait(120);
    assert_ne!(ended.code, 0, "{}", ended.all());
    // By the watchdog, or by the launcher where that is quicker. MPICH's tells the signal, and the process of any rank.
    let all = ended.all();
    let names = [format!("rank {last} "), format!("rank: {last}")];
    let named = all.lines().any(|line| names.iter().any(|name| line.contains(name)));
    assert!(named || (all.contains("BAD TERMINATION") && all.contains("(signal 9)")), "{all}");
}
