//! Standard streams that are closed or full change neither what a run does nor how it ends.

use crate::common::{Ended, events, run, samples, segdist, tiny, wait};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn training(folder: &Path) -> (Command, PathBuf) {
    let (root, dir) = (folder.join("data"), folder.join("run"));
    samples(&root, &[(48, 32), (32, 48)], 4, 1);
    let mut command = segdist();
    command.args(tiny(&root, &dir, 4));
    (command, dir)
}

fn assert_finished(dir: &Path, code: Option<i32>) {
    assert_eq!(code, Some(0));
    assert_eq!((events(dir, "train").len(), events(dir, "finished").len()), (4, 1));
    assert_eq!(segdist::checkpoint::newest(dir).unwrap().unwrap().state.step, 4);
}

#[test]
fn training_goes_on_without_the_reader_of_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let (mut command, dir) = training(folder.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    drop(child.stderr.take());
    assert!(!line.is_empty());
    assert_finished(&dir, child.wait().unwrap().code());
}

#[test]
fn training_goes_on_where_its_output_is_full_and_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut command, dir) = training(folder.path());
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_finished(&dir, output.status.code());
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("standard output cannot be written").count(), 1);
}

/// The verb with an output that is closed before it begins, and one that is full.
fn unheard(arguments: &[&str]) -> [Ended; 2] {
    let mut child = segdist().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.replace(closed()));
    let closed = wait(child, 60);
    let mut command = Command::new("bash");
    command.args(["-c", "exec \"$0\" \"$@\" > /dev/full"]).arg(segdist().get_program()).args(arguments);
    [closed, run(&mut command, 60)]
}

/// The reading end of an empty pipe, for [`wait`], which reads one.
fn closed() -> std::process::ChildStdout {
    let mut quiet = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    quiet.wait().unwrap();
    quiet.stdout.take().unwrap()
}

#[test]
fn a_verb_keeps_its_code_whoever_listens() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    let list = samples(&root, &[(48, 32); 8], 4, 1);
    let set = folder.path().join("set");
    run(segdist().arg("pack").arg("--odgt").arg(list).arg("--root").arg(&root).arg("--out").arg(&set), 60).ok();
    let verify = ["verify", set.to_str().unwrap()];
    unheard(&verify).into_iter().for_each(|ended| drop(ended.ok()));
    unheard(&["config", "--keys"]).into_iter().for_each(|ended| drop(ended.ok()));
    let shard = set.join("shard-00000.seg");
    let mut bytes = fs::read(&shard).unwrap();
    let last = bytes.len() - 1;
    (bytes[last], bytes[last / 2]) = (bytes[last] ^ 1, bytes[last / 2] ^ 1);
    fs::write(&shard, bytes).unwrap();
    for ended in unheard(&verify) {
        assert_eq!(ended.code, 2, "{}", ended.all());
        assert!(!ended.stderr.contains("panicked"), "{}", ended.all());
    }
}
