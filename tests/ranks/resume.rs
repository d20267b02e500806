//! A run that was interrupted continues as if it had not been.

use crate::common::jobs::{Job, tensors, trained, wait_for, wait_for_step};
use crate::common::{Ended, events, losses, ranks, run, samples, tiny};
use segdist::run_dir::RunDir;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A small data set and the runs on it.
struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Lab {
        let folder = TempDir::new().unwrap();
        samples(&folder.path().join("data"), &[(48, 32), (32, 48), (40, 40), (48, 32), (64, 40)], 4, 1);
        Lab { folder }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The arguments of a run of two epochs that ends at `steps`.
    fn arguments(&self, name: &str, steps: u64, more: &[&str]) -> Vec<String> {
        let mut arguments = tiny(&self.dir("data"), &self.dir(name), steps / 2);
        arguments.extend(["TRAIN.num_epoch=2", "CHECKPOINT.keep_last=99"].map(String::from));
        arguments.extend(more.iter().map(|text| text.to_string()));
        arguments
    }

    fn train(&self, count: usize, name: &str, steps: u64, more: &[&str]) -> Ended {
        run(ranks(count).args(self.arguments(name, steps, more)), 300)
    }

    /// Starts the run and kills all of it once the checkpoint of `step` is there and one more update is made.
    fn train_and_kill(&self, count: usize, name: &str, steps: u64, more: &[&str], step: u64) {
        let mut job = Job::start(ranks(count).args(self.arguments(name, steps, more)));
        let checkpoint = self.dir(name).join(format!("checkpoints/step-{step:08}"));
        wait_for("the checkpoint", 120, || checkpoint.exists().then_some(()));
        wait_for_step(&self.dir(name), step + 1);
        assert!(!job.ended(), "the kill came too late");
    }
}

/// Flips a bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn ten_steps_a_kill_and_ten_more_are_twenty_bit_for_bit() {
    let lab = Lab::new();
    for count in [1, 2] {
        let (whole, broken) = (format!("whole{count}"), format!("broken{count}"));
        lab.train(count, &whole, 20, &[]).ok();
        lab.train_and_kill(count, &broken, 20, &["CHECKPOINT.every_steps=4"], 8);
        // Step 10 ends the first epoch; whichever checkpoint is the newest, mid-epoch or not, the end is the same.
        lab.train(count, &broken, 20, &["CHECKPOINT.every_steps=4", "TRAIN.workers=2"]).ok();
        assert_eq!(trained(&lab.dir(&broken)), (1..=20).collect::<Vec<_>>(), "each step once");
        assert_eq!(losses(&lab.dir(&broken)), losses(&lab.dir(&whole)));
        assert!(tensors(&lab.dir(&broken), 20) == tensors(&lab.dir(&whole), 20), "{count} ranks: other tensors");
    }
}

#[test]
fn another_number_of_ranks_trains_the_same_samples_in_the_same_steps() {
    let lab = Lab::new();
    let more = ["TRAIN.fix_bn=True", "TRAIN.lr_encoder=1e-3", "TRAIN.lr_decoder=1e-3", "CHECKPOINT.every_steps=2"];
    let more = [&more[..], &["TRAIN.batch_size_per_gpu=1"]].concat();
    lab.train(2, "whole", 8, &more).ok();
    lab.train_and_kill(2, "broken", 8, &more, 2);
    lab.train(1, "broken", 8, &more).ok();
    let (broken, whole) = (losses(&lab.dir("broken")), losses(&lab.dir("whole")));
    assert_eq!(broken.len(), 8);
    for (a, b) in broken.iter().zip(&whole) {
        assert!((a - b).abs() <= 1e-5 * b.abs(), "{broken:?}\n{whole:?}");
    }
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_again_from_the_beginning() {
    let lab = Lab::new();
    lab.train(1, "whole", 6, &[]).ok();
    let job = Job::start(ranks(1).args(lab.arguments("broken", 6, &[])));
    wait_for_step(&lab.dir("broken"), 1);
    drop(job);
    lab.train(1, "broken", 6, &[]).ok();
    assert_eq!(trained(&lab.dir("broken")), (1..=6).collect::<Vec<_>>());
    assert!(tensors(&lab.dir("broken"), 6) == tensors(&lab.dir("whole"), 6));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let lab = Lab::new();
    lab.train(1, "run", 4, &["CHECKPOINT.every_steps=1"]).ok();
    let end = tensors(&lab.dir("run"), 4);
    for step in [3, 4] {
        damage(&lab.dir("run").join(format!("checkpoints/step-{step:08}/optimizer.safetensors")));
    }
    let ended = lab.train(1, "run", 4, &["CHECKPOINT.every_steps=1"]).ok();
    for step in [3, 4] {
        assert!(ended.stderr.contains(&format!("step-{step:08}/optimizer.safetensors")), "{}", ended.all());
    }
    assert_eq!(trained(&lab.dir("run")), [1, 2, 3, 4]);
    assert!(tensors(&lab.dir("run"), 4) == end);
}

#[test]
fn what_must_agree_and_does_not_is_named_and_what_is_free_is_free() {
    let lab = Lab::new();
    lab.train(1, "run", 2, &[]).ok();
    for change in ["TRAIN.lr_encoder=0.5", "TRAIN.seed=9", "MODEL.arch_decoder=ppm", "DATASET.imgSizes=(40,)"] {
        let key = change.split('=').next().unwrap();
        for count in [1, 2] {
            let ended = lab.train(count, "run", 2, &[change]);
            assert_eq!(ended.code, 2, "{}", ended.all());
            assert!(ended.errors().len() == 1 && ended.errors()[0].contains(key), "{}", ended.all());
        }
    }
    let free = ["TRAIN.workers=3", "CHECKPOINT.keep_last=1", "VAL.iou=present", "TRAIN.disp_iter=7"];
    lab.train(1, "run", 2, &free).ok();
}

#[test]
fn the_global_batch_is_kept_and_may_be_named() {
    let lab = Lab::new();
    lab.train_and_kill(2, "run", 40, &["CHECKPOINT.every_steps=1"], 1);
    let refused = lab.train(1, "run", 40, &["TRAIN.global_batch=2"]);
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(refused.errors()[0].contains("TRAIN.global_batch"), "{}", refused.all());
    let stopped = lab.train(1, "run", 40, &["TRAIN.global_batch=4", "TRAIN.max_minutes=0.001"]);
    assert_eq!(stopped.code, 75, "{}", stopped.all());
}

#[test]
fn a_finished_run_started_again_evaluates_and_changes_nothing() {
    let lab = Lab::new();
    lab.train(1, "run", 2, &[]).ok();
    let (end, config) = (tensors(&lab.dir("run"), 2), fs::read(lab.dir("run").join("config.yaml")).unwrap());
    for count in [1, 2] {
        let ended = lab.train(count, "run", 2, &[]).ok();
        assert!(format!("{}{}", ended.stdout, ended.stderr).to_lowercase().contains("iou"), "{}", ended.all());
    }
    assert_eq!(trained(&lab.dir("run")), [1, 2]);
    assert_eq!(events(&lab.dir("run"), "eval").len(), 1, "each evaluation once");
    assert!(tensors(&lab.dir("run"), 2) == end);
    assert_eq!(fs::read(lab.dir("run").join("config.yaml")).unwrap(), config);
}

#[test]
fn resume_none_moves_the_old_run_aside_and_says_where() {
    let lab = Lab::new();
    lab.train(1, "run", 2, &[]).ok();
    let end = tensors(&lab.dir("run"), 2);
    let ended = lab.train(1, "run", 2, &["TRAIN.seed=9", "--resume", "none"]).ok();
    assert!(ended.stderr.contains("previous-001"), "{}", ended.all());
    assert!(tensors(&lab.dir("run/previous-001"), 2) == end);
    let visible = |folder: &str| {
        let entries = fs::read_dir(lab.dir(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect::<BTreeSet<String>>()
    };
    let written: BTreeSet<String> = RunDir::WRITTEN.iter().map(|name| name.to_string()).collect();
    assert_eq!(visible("run/previous-001"), written, "all that a run writes is moved");
    let anew = written.into_iter().chain(["previous-001".to_owned()]).collect::<BTreeSet<String>>();
    assert_eq!(visible("run"), anew, "and a run writes nothing else");
    assert!(tensors(&lab.dir("run"), 2) != end);
}

#[test]
fn resume_from_a_path_goes_back_and_leaves_no_other_future() {
    let lab = Lab::new();
    lab.train(1, "run", 4, &["CHECKPOINT.every_steps=1"]).ok();
    let end = tensors(&lab.dir("run"), 4);
    let path = lab.dir("run").join("checkpoints/step-00000002");
    lab.train(1, "run", 4, &["--resume", path.to_str().unwrap()]).ok();
    assert_eq!(trained(&lab.dir("run")), [1, 2, 3, 4]);
    assert!(tensors(&lab.dir("run"), 4) == end);
    assert!(lab.dir("run/previous-001/checkpoints/step-00000003").exists());
}
