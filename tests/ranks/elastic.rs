//! DIST.elastic: when ranks are killed, the others go on from the last finished update, without a checkpoint, exactly as
//! a run would that is resumed there on as many ranks.
//!
//! `SEGDIST_KILLS` sets how many of the kills at random moments there are (default 4).

use crate::common::jobs::{self, Job, Moments, kills, send, wait_for_step};
use crate::common::{self, Ended, events, run, samples, tiny};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const STEPS: u64 = 9;

/// Four ranks that share a global batch of four micro-batches; `faults`: a rank, and where it kills itself.
fn command(folder: &Path, faults: &[(usize, &str)]) -> Command {
    let root = folder.join("data");
    samples(&root, &[(48, 32); 8], 4, 1);
    let mut command = common::launcher();
    common::with_faults(command.args(["--with-ft", "ulfm", "-np", "4"]), faults);
    command.args(tiny(&root, &folder.join("run"), STEPS));
    command.args(["TRAIN.batch_size_per_gpu=1", "CHECKPOINT.every_steps=1", "CHECKPOINT.keep_last=100"]);
    command.args(["DIST.elastic=True", "VAL.every_epochs=0"]);
    command
}

/// The steps from which, and the numbers of ranks with which, the run says that it went on.
fn went_on(ended: &Ended) -> Vec<(u64, usize)> {
    let lines = ended.stderr.lines().filter_map(|line| line.split("going on from step ").nth(1));
    let numbers = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    numbers.map(|words| (words[0].parse().unwrap(), words[2].parse().unwrap())).collect()
}

/// The run must be whole, and end in the very bits of one that was resumed where the last rank died.
#[track_caller]
fn equals_a_resumed_run(folder: &Path, ended: Ended, deaths: usize) {
    let went_on = went_on(&ended);
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert_eq!(went_on.len(), deaths, "{}", ended.all());
    let run_dir = folder.join("run");
    assert_eq!(jobs::trained(&run_dir), (1..=STEPS).collect::<Vec<_>>(), "{}", ended.all());
    assert_eq!(events(&run_dir, "finished").len(), 1, "{}", ended.all());

    let (step, ranks) = went_on[deaths - 1];
    let again = folder.join("again");
    fs::create_dir_all(again.join("checkpoints")).unwrap();
    let name = format!("checkpoints/step-{step:08}");
    copy(&run_dir.join(&name), &again.join(&name));
    let mut command = common::mpirun(ranks);
    command.args(tiny(&folder.join("data"), &again, STEPS)).args(["TRAIN.batch_size_per_gpu=1", "VAL.every_epochs=0"]);
    run(&mut command, 120).ok();
    let after =
        |run: &Path| -> Vec<f64> { common::losses(run).into_iter().rev().take((STEPS - step) as usize).collect() };
    assert_eq!(after(&run_dir), after(&again), "losses after step {step}");
    assert!(jobs::tensors(&run_dir, STEPS) == jobs::tensors(&again, STEPS), "parameters differ");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[track_caller]
fn outlives(faults: &[(usize, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(&mut command(folder.path(), faults), 120);
    for (rank, _) in faults {
        let named =
            ended.stderr.lines().filter(|line| line.contains(&format!("rank {rank} (host ")) && line.ends_with("died"));
        assert_eq!(named.count(), 1, "rank {rank} is named once: {}", ended.all());
    }
    equals_a_resumed_run(folder.path(), ended, faults.len());
}

#[test]
fn three_go_on_when_one_is_killed_in_its_forward_pass() {
    outlives(&[(2, "forward:4")]);
}

#[test]
fn three_go_on_when_one_is_killed_while_gradients_are_summed() {
    outlives(&[(1, "gradients:8")]);
}

#[test]
fn three_go_on_when_one_is_killed_in_synchronized_batch_norm() {
    outlives(&[(3, "batch_norm:60")]);
}

#[test]
fn the_lowest_survivor_takes_over_when_rank_0_is_killed_in_a_step() {
    outlives(&[(0, "gradients:5")]);
}

#[test]
fn the_lowest_survivor_takes_over_when_rank_0_is_killed_while_it_writes_a_checkpoint() {
    outlives(&[(0, "checkpoint:25")]);
}

#[test]
fn three_evaluate_again_when_one_is_killed_over_the_evaluation() {
    outlives(&[(3, "evaluation:1")]);
}

#[test]
fn two_go_on_when_two_are_killed_one_after_the_other() {
    outlives(&[(0, "forward:3"), (2, "forward:6")]);
}

#[test]
fn whenever_ranks_are_killed_the_others_finish_the_run() {
    let mut moments = Moments::new(11);
    for _ in 0..kills().div_ceil(2) {
        let folder = tempfile::tempdir().unwrap();
        let mut job = Job::start(&mut command(folder.path(), &[]));
        let first = moments.below(4) as usize;
        wait_for_step(&folder.path().join("run"), 1 + moments.below(3));
        for rank in [first, (first + 1 + moments.below(3) as usize) % 4] {
            std::thread::sleep(Duration::from_millis(moments.below(400)));
            if job.ended() {
                break;
            }
            job.rank_now(rank).into_iter().for_each(|pid| send(pid, Signal::KILL));
        }
        let ended = job.wait(120);
        assert_eq!(ended.code, 0, "{}", ended.all());
        assert_eq!(jobs::trained(&folder.path().join("run")), (1..=STEPS).collect::<Vec<_>>(), "{}", ended.all());
        assert_eq!(events(&folder.path().join("run"), "finished").len(), 1, "{}", ended.all());
    }
}

#[test]
fn where_mpi_does_not_outlive_a_death_elastic_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    samples(folder.path(), &[(48, 32); 4], 4, 1);
    let mut command = common::mpirun(2);
    let ended = run(command.args(tiny(folder.path(), &folder.path().join("run"), 2)).arg("DIST.elastic=True"), 60);
    assert_eq!(ended.code, 2, "{}", ended.all());
    assert_eq!(ended.errors().len(), 1, "{}", ended.all());
    assert!(ended.stderr.contains("DIST.elastic: start it with Open MPI 5's mpirun --with-ft ulfm"), "{}", ended.all());
}
