//! Shards that are damaged, or change under a running job: it ends with a message that names shard and rank, or goes
//! on with other samples where that is asked for; never with other pixels, never with a bare signal.

use crate::common::jobs::{Job, wait_for_step};
use crate::common::{Ended, losses, mpirun, ranks, run, samples, segdist, tiny};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const SHARD: &str = "shard-00000.seg";

/// A packed data set and the overrides that train on it.
struct Case {
    folder: tempfile::TempDir,
    overrides: Vec<String>,
}

impl Case {
    fn new(steps: u64) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let list = samples(&root, &[(48, 32); 8], 4, 1);
        let set = folder.path().join("set");
        run(segdist().arg("pack").arg("--odgt").arg(list).arg("--root").arg(&root).arg("--out").arg(&set), 60).ok();
        let mut overrides = tiny(&root, &folder.path().join("run"), steps);
        overrides.push(format!("DATASET.list_train={}", set.display()));
        Case { folder, overrides }
    }

    fn shard(&self) -> PathBuf {
        self.folder.path().join("set").join(SHARD)
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Overwrites the last bytes of the shard, which are the last record's label and the end of its image.
    fn damage(&self) {
        let file = OpenOptions::new().write(true).open(self.shard()).unwrap();
        let length = file.metadata().unwrap().len();
        file.write_all_at(&[0x55; 128], length - 128).unwrap();
    }

    /// Trains on two ranks without an end, lets `harm` happen on the way, and returns how it ended.
    fn harmed(harm: impl FnOnce(&Case)) -> Ended {
        let case = Case::new(1_000_000);
        let job = Job::start(mpirun(2).args(&case.overrides));
        wait_for_step(&case.run(), 2);
        harm(&case);
        job.wait(120)
    }
}

/// Not 0, and a line that names shard and rank.
fn assert_named(ended: &Ended) {
    assert!(ended.code > 0, "{}", ended.all());
    let named = |line: &&str| line.contains(SHARD) && line.contains("rank ");
    assert!(ended.errors().iter().any(named), "{}", ended.all());
}

#[test]
fn a_damaged_record_ends_the_run_naming_shard_and_rank() {
    let case = Case::new(20);
    case.damage();
    assert_named(&run(mpirun(2).args(&case.overrides), 120));
}

#[test]
fn a_substitute_is_the_same_on_any_number_of_ranks_and_is_told() {
    let mut all = Vec::new();
    for count in [1, 2] {
        let mut case = Case::new(6);
        case.damage();
        let more = ["DATASET.on_corrupt=substitute", "TRAIN.global_batch=4", "TRAIN.fix_bn=True"];
        case.overrides.extend(more.map(String::from));
        let ended = run(ranks(count).args(&case.overrides), 120).ok();
        assert!(ended.stderr.contains(SHARD) && ended.stderr.contains("takes its place"), "{}", ended.all());
        all.push(losses(&case.run()));
    }
    // Without batch statistics the first loss depends on pixels and labels alone.
    assert!((all[0][0] - all[1][0]).abs() < 1e-4 * all[0][0].abs(), "{all:?}");
}

#[test]
fn a_shard_truncated_under_a_job_ends_it_naming_shard_and_rank() {
    assert_named(&Case::harmed(|case| {
        OpenOptions::new().write(true).open(case.shard()).unwrap().set_len(4096).unwrap();
    }));
}

#[test]
fn a_shard_overwritten_under_a_job_ends_it_naming_shard_and_rank() {
    assert_named(&Case::harmed(|case| {
        let length = fs::metadata(case.shard()).unwrap().len() as usize;
        fs::write(case.shard(), vec![7; length]).unwrap();
    }));
}
