//! Reads that fail: tried again, then the job is started again, to the same bits; what is really damaged ends at once.

use crate::common::jobs::{Job, tensors, wait_for_step};
use crate::common::{Ended, events, run, samples, segdist, tiny};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const STEPS: u64 = 10;

/// Calls that fail, as in failing_calls.c.
struct Failing {
    call: &'static str,
    errno: i32,
    name: &'static str,
    from: u64,
    times: u64,
}

/// A data set, packed as well, and the runs on it.
struct Lab {
    folder: TempDir,
    library: PathBuf,
}

impl Lab {
    fn new() -> Lab {
        let folder = TempDir::new().unwrap();
        let (data, library) = (folder.path().join("data"), folder.path().join("failing_calls.so"));
        samples(&data, &[(48, 32), (32, 48), (40, 40), (48, 32), (64, 40)], 4, 1);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/failing_calls.c");
        run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args([source, "-ldl"]), 60).ok();
        let pack = ["--odgt", "data/list.odgt", "--root", "data", "--out", "shards"];
        run(segdist().current_dir(folder.path()).arg("pack").args(pack), 60).ok();
        Lab { folder, library }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Two ranks under launch/mpirun.sh, which may start them again; calls of rank 1 fail.
    fn train(&self, name: &str, failing: Option<&Failing>, more: &[&str]) -> Ended {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/launch/mpirun.sh"));
        command.args(["--np", "2", "--restarts", "3", "--mpi", "--oversubscribe"]);
        command.args(tiny(&self.dir("data"), &self.dir(name), STEPS)).args(["CHECKPOINT.every_steps=1"]).args(more);
        command.env("OMP_NUM_THREADS", "1");
        if let Some(failing) = failing {
            command.env("LD_PRELOAD", &self.library).env("FAILING_COUNT", self.dir(&format!("{name}.count")));
            command.env("FAILING_CALL", failing.call).env("FAILING_ERRNO", failing.errno.to_string());
            command.env("FAILING_NAME", failing.name).env("FAILING_RANK", "1");
            command.env("FAILING_FROM", failing.from.to_string()).env("FAILING_TIMES", failing.times.to_string());
        }
        run(&mut command, 300)
    }

    fn shards(&self) -> String {
        format!("DATASET.list_train={}", self.dir("shards").display())
    }
}

/// The sum of a field over the history.
fn total(run: &Path, field: &str) -> u64 {
    events(run, "train").iter().map(|line| line[field].as_u64().expect("every line counts reads")).sum()
}

fn starts_again(ended: &Ended) -> usize {
    ended.stderr.matches("mpirun.sh: failed with code 1; start ").count()
}

#[test]
fn a_read_that_fails_once_is_tried_again_to_the_same_bits() {
    let lab = Lab::new();
    let shards = lab.shards();
    lab.train("whole", None, &[&shards]).ok();
    let failing = |call, errno, from| Failing { call, errno, name: "shard-00000.seg", from, times: 1 };
    // Header and entries are read first, two calls a shard.
    let cases = [
        ("pread", failing("pread", libc::EIO, 9)),
        ("pread", failing("pread", libc::ESTALE, 9)),
        ("pread", failing("pread", libc::EIO, 1)),
        ("mmap", failing("open", libc::ETIMEDOUT, 1)),
    ];
    for (number, (io, failing)) in cases.iter().enumerate() {
        let name = format!("run{number}");
        let ended = lab.train(&name, Some(failing), &[&shards, &format!("DATASET.io={io}")]).ok();
        assert_eq!(starts_again(&ended), 0, "{}", ended.all());
        assert!(
            ended.stderr.contains("shard-00000.seg: ") && ended.stderr.contains("reading again"),
            "{}",
            ended.all()
        );
        assert_eq!((total(&lab.dir(&name), "read_retries"), total(&lab.dir(&name), "read_failures")), (1, 0));
        assert!(tensors(&lab.dir(&name), STEPS) == tensors(&lab.dir("whole"), STEPS), "{number}: other tensors");
    }
}

#[test]
fn a_map_that_the_disk_fails_under_is_read_instead() {
    let lab = Lab::new();
    let (shards, io) = (lab.shards(), "DATASET.io=mmap");
    lab.train("whole", None, &[&shards, io]).ok();
    let failing = Failing { call: "madvise", errno: libc::EFAULT, name: "populate", from: 5, times: 6 };
    let ended = lab.train("run", Some(&failing), &[&shards, io]).ok();
    assert_eq!(starts_again(&ended), 0, "{}", ended.all());
    assert!(fs::metadata(lab.dir("run.count")).unwrap().len() > 11, "the maps were never populated");
    assert!(tensors(&lab.dir("run"), STEPS) == tensors(&lab.dir("whole"), STEPS));
}

#[test]
fn what_fails_for_longer_is_started_again_to_the_same_bits() {
    let lab = Lab::new();
    lab.train("whole", None, &[]).ok();
    // One read is seven attempts; rank 1 opens four files a step, one after the other.
    let failing = Failing { call: "open", errno: libc::EIO, name: ".png", from: 22, times: 7 };
    let ended = lab.train("run", Some(&failing), &[]).ok();
    assert_eq!(starts_again(&ended), 1, "{}", ended.all());
    assert!(ended.errors()[0].contains("rank 1: ") && ended.errors()[0].contains(".png"), "{}", ended.all());
    assert!(tensors(&lab.dir("run"), STEPS) == tensors(&lab.dir("whole"), STEPS));
}

#[test]
fn what_fails_for_ever_ends_with_code_1_after_a_new_start() {
    let lab = Lab::new();
    let failing = Failing { call: "read", errno: libc::EIO, name: ".png", from: 22, times: 1 << 40 };
    let ended = lab.train("run", Some(&failing), &[]);
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(starts_again(&ended) >= 1, "{}", ended.all());
    assert!(ended.stderr.contains("it came no further than step"), "{}", ended.all());
}

#[test]
fn an_image_that_is_damaged_ends_with_code_2_at_once() {
    let lab = Lab::new();
    let image = lab.dir("data/3.png");
    let bytes = fs::read(&image).unwrap();
    fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let ended = lab.train("run", None, &[]);
    assert_eq!(ended.code, 2, "{}", ended.all());
    assert!(ended.errors().len() == 1 && ended.errors()[0].contains("3.png"), "{}", ended.all());
    assert!(!ended.stderr.contains("start 2") && !ended.stderr.contains("reading again"), "{}", ended.all());
}

#[test]
fn a_folder_that_vanishes_may_come_back_and_one_file_that_is_missing_may_not() {
    let lab = Lab::new();
    let arguments = |name: &str| tiny(&lab.dir("data"), &lab.dir(name), 100_000);
    let job = Job::start(segdist().args(arguments("vanished")));
    wait_for_step(&lab.dir("vanished"), 2);
    fs::rename(lab.dir("data"), lab.dir("elsewhere")).unwrap();
    let ended = job.wait(60);
    assert_eq!(ended.code, 1, "{}", ended.all());
    assert!(ended.errors()[0].contains("which was there when the run began, is gone"), "{}", ended.all());

    fs::rename(lab.dir("elsewhere"), lab.dir("data")).unwrap();
    fs::remove_file(lab.dir("data/3.png")).unwrap();
    let ended = run(segdist().args(arguments("missing")), 60);
    assert_eq!(ended.code, 2, "{}", ended.all());
    assert!(ended.errors()[0].contains("3.png"), "{}", ended.all());
}
