//! launch/mpirun.sh: Ctrl-C and SIGTERM become requests, twice they end the run, and --restarts starts it again.

use crate::common::jobs::{self, Job, send, trained, wait_for, wait_for_step};
use crate::common::{self, events, samples, tiny};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The script with two ranks that train `steps` steps, and where the run is.
fn script(folder: &Path, steps: u64, options: &[&str]) -> (Command, PathBuf) {
    let (root, dir) = (folder.join("data"), folder.join("run"));
    samples(&root, &[(48, 32), (32, 48), (40, 40)], 4, 1);
    // A shell cannot trap what was ignored when it began, as SIGINT is in jobs that a script runs in the background.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", concat!(env!("CARGO_MANIFEST_DIR"), "/launch/mpirun.sh")]);
    command.args(["--np", "2", "--mpi", "--oversubscribe"]).args(options).args(tiny(&root, &dir, steps));
    command.arg("CHECKPOINT.every_steps=1").env("OMP_NUM_THREADS", "1");
    (command, dir)
}

#[test]
fn ctrl_c_and_sigterm_ask_for_a_checkpoint_and_code_75() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let (mut command, dir) = script(folder.path(), 100_000, &[]);
        let job = Job::start(&mut command);
        wait_for_step(&dir, 2);
        send(job.pid(), signal);
        let ended = job.wait(60);
        assert_eq!(ended.code, 75, "{}", ended.all());
        let newest = segdist::checkpoint::newest(&dir).unwrap().unwrap();
        assert_eq!(Some(&newest.state.step), trained(&dir).last());
        // The script has the last word, and mpirun adds nothing to it.
        let last = format!("mpirun.sh: stopped at step {}: start again to continue", newest.state.step);
        assert_eq!(ended.stderr.lines().last(), Some(last.as_str()), "{}", ended.all());
        assert!(!ended.stderr.contains("non-zero status") && !ended.stderr.contains("-----"), "{}", ended.all());
    }
}

#[test]
fn sigterm_while_the_ranks_start_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (mut command, dir) = script(folder.path(), 100_000, &[]);
    let job = Job::start(&mut command);
    for rank in [0, 1] {
        let pid = job.rank(rank);
        wait_for("the program that listens", 60, || jobs::listens(pid, Signal::USR1).then_some(()));
    }
    send(job.pid(), Signal::TERM);
    let ended = job.wait(60);
    assert_eq!(ended.code, 75, "{}", ended.all());
    assert_eq!(trained(&dir), [1]);
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut command, dir) = script(folder.path(), 100_000, &[]);
    // Steps long enough for both signals to fall into one.
    command.args(["DATASET.imgSizes=(400,)", "DATASET.imgMaxSize=600", "TRAIN.batch_size_per_gpu=4"]);
    let job = Job::start(&mut command);
    wait_for_step(&dir, 1);
    let ranks = [job.rank(0), job.rank(1)];
    send(job.pid(), Signal::INT);
    std::thread::sleep(std::time::Duration::from_millis(100));
    send(job.pid(), Signal::INT);
    let ended = job.wait(30);
    assert!(![0, 75].contains(&ended.code), "{}", ended.all());
    for rank in ranks {
        wait_for("the end of the ranks", 10, || (!Path::new(&format!("/proc/{rank}")).exists()).then_some(()));
    }
}

#[test]
fn a_failed_run_is_started_again_and_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut command, dir) = script(folder.path(), 8, &["--restarts", "1"]);
    let job = Job::start(&mut command);
    wait_for_step(&dir, 3);
    send(job.rank(1), Signal::KILL);
    let ended = job.wait(120);
    assert_eq!(ended.code, 0, "{}", ended.all());
    assert!(ended.stderr.contains("start 2 of 2"), "{}", ended.all());
    assert_eq!(trained(&dir), (1..=8).collect::<Vec<_>>());
    assert_eq!(events(&dir, "finished").len(), 1);
}

#[test]
fn a_run_that_comes_no_further_is_not_started_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (mut command, dir) = script(folder.path(), 8, &["--restarts", "5"]);
    command.env("SEGDIST_FAULT", "forward:1");
    let ended = common::run(&mut command, 120);
    assert!(![0, 75].contains(&ended.code), "{}", ended.all());
    assert!(ended.stderr.contains("not started again") && !ended.stderr.contains("start 2"), "{}", ended.all());
    assert!(trained(&dir).is_empty());
}

#[test]
fn what_the_user_has_to_mend_is_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    // A key that does not exist, and a list that the ranks do not find: one line, and nothing of mpirun's.
    for mistake in ["DATASET.num_clas=4", "DATASET.list_train=nowhere.odgt"] {
        let (mut command, _) = script(folder.path(), 8, &["--restarts", "3"]);
        let ended = common::run(command.arg(mistake), 60);
        assert_eq!(ended.code, 2, "{}", ended.all());
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| !line.contains("random initial values")).collect();
        assert!(lines.len() == 1 && lines[0].starts_with("segdist: "), "{}", ended.all());
    }
}

#[test]
fn slurm_starts_again_what_was_asked_to_stop_or_may_pass_and_came_further() {
    for (code, comes_further, again) in
        [(75, true, true), (1, true, true), (1, false, false), (2, true, false), (137, true, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        // What Slurm is told is written down; a failure spares the minute in which Slurm would end the script.
        let scontrol = folder.path().join("scontrol");
        fs::write(&scontrol, "#!/bin/sh\necho \"$@\" >told\nexit 1\n").unwrap();
        fs::set_permissions(&scontrol, fs::Permissions::from_mode(0o755)).unwrap();
        let step = if comes_further { "mkdir -p run/checkpoints/step-00000002;" } else { "" };
        let script = format!(". $LAUNCH/common.sh; train_in_slurm run 9 sh -c '{step} exit {code}'");
        let mut command = Command::new("bash");
        command
            .current_dir(folder.path())
            .args(["-c", &script])
            .env("SLURM_JOB_ID", "7")
            .env("SLURM_JOB_NODELIST", "a");
        command.env("PATH", format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap()));
        command.env("LAUNCH", concat!(env!("CARGO_MANIFEST_DIR"), "/launch"));
        let ended = common::run(&mut command, 60);
        assert_eq!(ended.code, code, "{}", ended.all());
        let told = fs::read_to_string(folder.path().join("told")).unwrap_or_default();
        assert_eq!(told == "requeue 7\n", again, "{code}: {told}{}", ended.all());
    }
}
