//! A run whose last checkpoint cannot be written: it tries again for a while, and never says that it is finished.

use crate::common::{Ended, events, run, samples, segdist, tiny, wait};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The arguments of a short run, and where it is.
fn short(folder: &Path, more: &[&str]) -> (Vec<String>, PathBuf) {
    let (root, dir) = (folder.join("data"), folder.join("run"));
    samples(&root, &[(48, 32), (32, 48)], 4, 1);
    let mut arguments = tiny(&root, &dir, 2);
    arguments.extend(more.iter().map(|text| text.to_string()));
    (arguments, dir)
}

/// Trains where no file may be as large as a checkpoint is.
fn limited(arguments: &[String]) -> Ended {
    let program = segdist();
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -f 2000; exec \"$0\" \"$@\""]).arg(program.get_program()).args(arguments);
    run(command.env("OMP_NUM_THREADS", "1"), 120)
}

fn assert_failed_for_lack_of_a_checkpoint(ended: &Ended, dir: &Path, step: u64) {
    assert_eq!(ended.code, 1, "{}", ended.all());
    let errors = ended.errors();
    assert_eq!(errors.len(), 1, "one line: {}", ended.all());
    for word in [&format!("step {step}"), "model.safetensors", "File too large", "CHECKPOINT.retry_minutes"] {
        assert!(errors[0].contains(word), "{word}: {}", ended.all());
    }
    assert!(events(dir, "finished").is_empty() && events(dir, "stopped").is_empty());
    assert!(events(dir, "checkpoint").len() > 1, "it was tried again");
    assert_eq!(segdist::checkpoint::newest(dir).unwrap().map(|found| found.state.step), None);
}

#[test]
fn a_run_that_ends_without_its_last_checkpoint_fails_and_is_not_finished() {
    let folder = tempfile::tempdir().unwrap();
    let (arguments, dir) = short(folder.path(), &["CHECKPOINT.retry_minutes=0.02"]);
    assert_failed_for_lack_of_a_checkpoint(&limited(&arguments), &dir, 2);
}

#[test]
fn a_run_that_is_to_stop_and_cannot_save_fails_instead_of_asking_to_be_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["CHECKPOINT.retry_minutes=0.02", "TRAIN.max_minutes=0.0001"];
    let (arguments, dir) = short(folder.path(), &more);
    assert_failed_for_lack_of_a_checkpoint(&limited(&arguments), &dir, 1);
}

#[test]
fn a_last_checkpoint_that_can_be_written_after_a_while_finishes_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (arguments, dir) = short(folder.path(), &[]);
    fs::create_dir(&dir).unwrap();
    // Nothing can be made under a link that leads nowhere.
    symlink(folder.path().join("gone"), dir.join("checkpoints")).unwrap();
    let child = segdist().args(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !fs::read_to_string(dir.join("metrics.jsonl")).is_ok_and(|text| text.contains("\"error\":\"")) {
        assert!(start.elapsed() < Duration::from_secs(120), "no failed checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_file(dir.join("checkpoints")).unwrap();
    wait(child, 120).ok();
    assert_eq!(events(&dir, "finished").len(), 1);
    assert_eq!(segdist::checkpoint::newest(&dir).unwrap().unwrap().state.step, 2);
}
