//! Runs that go on: longer schedules, new runs from old weights, and what is said to whoever asks for something else.

use crate::common::{Ended, events, losses, run, samples, segdist, tiny};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A small data set and the runs on it.
struct Lab(TempDir);

impl Lab {
    fn new() -> Lab {
        let lab = Lab(TempDir::new().unwrap());
        samples(&lab.dir("data"), &[(48, 32), (32, 48), (40, 40), (48, 32), (64, 40)], 4, 1);
        lab
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn train(&self, name: &str, steps: u64, more: &[&str]) -> Ended {
        run(segdist().args(tiny(&self.dir("data"), &self.dir(name), steps)).args(more), 240)
    }

    /// It is refused with one line that holds these parts.
    #[track_caller]
    fn refuses(&self, name: &str, steps: u64, more: &[&str], parts: &[&str]) {
        let ended = self.train(name, steps, more);
        assert_eq!(ended.code, 2, "{}", ended.all());
        let [line] = ended.errors()[..] else { panic!("{}", ended.all()) };
        // The paths of temporary folders are not what makes a line long.
        let length = line.replace(self.0.path().to_str().unwrap(), "").len();
        assert!(length <= 300 && parts.iter().all(|part| line.contains(part)), "{length} bytes: {line}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_finished_run_is_extended_at_the_rates_of_the_longer_schedule_and_then_is_one() {
    let lab = Lab::new();
    lab.train("run", 2, &[]).ok();
    let again = lab.train("run", 2, &[]).ok();
    assert!(again.stderr.contains("this run is finished, at step 2"), "{}", again.all());
    lab.refuses("run", 4, &[], &["TRAIN.epoch_iters was 2 and is 4", "--extend"]);
    let ended = lab.train("run", 4, &["--extend"]).ok();
    assert!(ended.stderr.contains("extended from 2 to 4 steps"), "{}", ended.all());
    lab.train("whole", 4, &[]).ok();
    let rates = |name: &str| -> Vec<f64> {
        events(&lab.dir(name), "train").iter().map(|line| line["lr_encoder"].as_f64().unwrap()).collect()
    };
    assert_eq!(rates("run")[2..], rates("whole")[2..]);
    assert_eq!(losses(&lab.dir("run")).len(), 4);
    // It is a run of four steps now, with or without the word.
    for more in [&[][..], &["--extend"]] {
        assert!(lab.train("run", 4, more).ok().stderr.contains("finished, at step 4"));
    }
    lab.refuses("run", 3, &["--extend"], &["3 steps", "fewer than the 4"]);
}

#[test]
fn a_new_run_begins_from_a_runs_folder_a_checkpoint_or_a_file_with_other_values() {
    let lab = Lab::new();
    lab.train("old", 2, &[]).ok();
    let checkpoint = lab.dir("old").join("checkpoints/step-00000002");
    let file = lab.dir("old.safetensors");
    run(segdist().arg("convert").arg(&checkpoint).arg(&file), 60).ok();
    let anew = ["TRAIN.lr_encoder=1e-3", "TRAIN.lr_decoder=1e-3", "TRAIN.seed=5", "MODEL.init=pretrained"];
    let from = |name: &str, path: &Path| {
        let ended = lab.train(name, 2, &[&anew[..], &["--init-from", text(path)]].concat()).ok();
        (losses(&lab.dir(name)), ended)
    };
    let (by_run, ended) = from("a", &lab.dir("old"));
    assert!(ended.stderr.contains("encoder: ") && ended.stderr.contains("step-00000002"), "{}", ended.all());
    assert_eq!(from("b", &checkpoint).0, by_run);
    assert_eq!(from("c", &file).0, by_run);
    assert_ne!(losses(&lab.dir("old"))[0], by_run[0]);
    // The same command again continues what it began, even where the old run is gone.
    fs::remove_dir_all(lab.dir("old")).unwrap();
    assert!(from("a", &lab.dir("old")).1.stderr.contains("finished, at step 2"));
}

#[test]
fn a_run_goes_on_in_another_folder_from_a_checkpoint_without_initial_weights() {
    let lab = Lab::new();
    lab.train("old", 4, &["CHECKPOINT.every_steps=2"]).ok();
    let checkpoint = lab.dir("old").join("checkpoints/step-00000002");
    lab.train("new", 4, &["--resume", text(&checkpoint), "MODEL.init=pretrained"]).ok();
    assert_eq!(losses(&lab.dir("new")), losses(&lab.dir("old"))[2..]);
    // A run's folder means its newest checkpoint.
    lab.train("newer", 4, &["--resume", text(&lab.dir("old")), "MODEL.init=pretrained"]).ok();
}

#[test]
fn a_refusal_names_the_command_that_does_what_was_probably_meant() {
    let lab = Lab::new();
    lab.train("run", 2, &[]).ok();
    let old = text(&lab.dir("run")).to_owned();
    let checkpoint = format!("{old}/checkpoints/step-00000002");
    lab.refuses("run", 2, &["TRAIN.lr_encoder=0.5"], &["TRAIN.lr_encoder was 0.02 and is 0.5", "--init-from"]);
    lab.refuses("run", 2, &["TRAIN.batch_size_per_gpu=1"], &["TRAIN.batch_size_per_gpu", "--init-from"]);
    lab.refuses("run", 4, &["TRAIN.seed=9"], &["TRAIN.seed", "TRAIN.epoch_iters", "--init-from"]);
    lab.refuses("run", 2, &["--init-from", &old], &["give another DIR"]);
    lab.refuses("other", 2, &["--init-from", text(&lab.dir("none"))], &["none", "neither a checkpoint"]);
    lab.refuses("other", 2, &["--resume", &checkpoint, "--init-from", &old], &["give one"]);
    lab.refuses("other", 2, &["--resume", "none", "--extend"], &["--extend", "--resume none"]);
    let file = lab.dir("data/list.odgt");
    lab.refuses("other", 2, &["--resume", text(&file)], &["list.odgt", "--init-from"]);
}

#[test]
fn epochs_of_the_data_are_passes_over_it_and_the_start_says_so() {
    let lab = Lab::new();
    // Five images, two a step: a pass has two steps.
    let ended = lab.train("run", 7, &["TRAIN.epochs_of_data=3"]).ok();
    assert!(ended.stdout.contains("3.0 passes over the data, 2 steps each"), "{}", ended.all());
    assert!(
        ended.stdout.contains("Epoch: [1][1/2], ") && ended.stdout.contains("Epoch: [3][2/2], "),
        "{}",
        ended.all()
    );
    assert_eq!(losses(&lab.dir("run")).len(), 6);
    assert_eq!(events(&lab.dir("run"), "train")[1]["epoch"], 1.0);
    let watched = run(segdist().arg("watch").arg(lab.dir("run")), 30).ok();
    assert!(watched.stdout.contains("step 6 of 6"), "{}", watched.stdout);
    // What num_epoch and epoch_iters would have been does not count; another number of passes does.
    assert!(lab.train("run", 9, &["TRAIN.epochs_of_data=3"]).ok().stderr.contains("finished, at step 6"));
    lab.refuses("run", 7, &["TRAIN.epochs_of_data=4"], &["TRAIN.epochs_of_data was 3 and is 4", "--extend"]);
    lab.train("run", 7, &["TRAIN.epochs_of_data=4", "--extend"]).ok();
    assert_eq!(losses(&lab.dir("run")).len(), 8);
    lab.refuses("new", 7, &["TRAIN.epochs_of_data=2", "TRAIN.start_epoch=1"], &["TRAIN.start_epoch"]);
    let plain = lab.train("plain", 5, &[]).ok();
    assert!(plain.stdout.contains("1 epochs of 5; 2.5 passes over the data"), "{}", plain.all());
}
