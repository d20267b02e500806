//! A short run on few images: what is evaluated fits the weights, and says so.

use crate::common::{Ended, events, run, segdist};
use std::fs;
use std::path::Path;

const STEPS: u64 = 100;

/// Trains on the first twelve images of the demo's data set, and evaluates on them.
fn train(root: &Path, name: &str, more: &[&str]) -> (f64, Ended) {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let dir = root.join(name);
    let mut command = segdist();
    command.args([
        format!("DATASET.root_dataset={}", text(root)),
        format!("DATASET.list_train={}", text(&root.join("twelve.odgt"))),
        format!("DATASET.list_val={}", text(&root.join("twelve.odgt"))),
        format!("TRAIN.epoch_iters={STEPS}"),
        format!("DIR={}", text(&dir)),
    ]);
    command.args(["DATASET.num_class=5", "DATASET.imgSizes=(64,)", "DATASET.imgMaxSize=96", "TRAIN.num_epoch=1"]);
    command.args(["MODEL.arch_encoder=resnet18dilated", "MODEL.arch_decoder=c1", "MODEL.init=random"]);
    command.args(["TRAIN.optim=AdamW", "TRAIN.lr_encoder=1e-3", "TRAIN.lr_decoder=1e-3", "TRAIN.batch_size_per_gpu=4"]);
    let ended = run(command.args(more), 400).ok();
    (events(&dir, "eval")[0]["mean_iou"].as_f64().unwrap(), ended)
}

fn evaluated(dir: &Path, root: &Path, more: &[&str]) -> Ended {
    let mut command = segdist();
    command.args(["eval", "--json", "--cfg", dir.join("config.yaml").to_str().unwrap()]);
    run(command.args(more).current_dir(root), 120).ok()
}

fn mean_iou(ended: &Ended) -> f64 {
    serde_json::from_str::<serde_json::Value>(&ended.stdout).unwrap()["mean_iou"].as_f64().unwrap()
}

#[test]
fn a_fine_tuning_on_twelve_images_is_evaluated_with_statistics_that_fit_and_no_key_given() {
    let root = tempfile::tempdir().unwrap();
    run(segdist().args(["demo-data", "--out", root.path().to_str().unwrap()]), 120).ok();
    let list = fs::read_to_string(root.path().join("training.odgt")).unwrap();
    let twelve: Vec<&str> = list.lines().take(12).collect();
    fs::write(root.path().join("twelve.odgt"), twelve.join("\n") + "\n").unwrap();

    let (fitting, ended) = train(root.path(), "run", &[]);
    assert!(fitting >= 0.75, "{fitting}: {}", ended.all());
    assert!(ended.stderr.contains("MODEL.bn_recalibrate 0"), "the start says so: {}", ended.stderr);

    // Whoever evaluates the checkpoint gets the same, and the run's folder keeps it.
    let dir = root.path().join("run");
    fs::remove_file(dir.join("evaluation.confusion.png")).unwrap();
    assert_eq!(mean_iou(&evaluated(&dir, root.path(), &[])), fitting);
    assert!(dir.join("evaluation.confusion.png").exists() && dir.join("evaluation.json").exists());

    // The checkpoint's model has the running statistics, which training goes on with; they are those of the reference.
    let last = dir.join(format!("checkpoints/step-{STEPS:08}"));
    let plain = root.path().join("plain.safetensors");
    fs::copy(last.join("model.safetensors"), &plain).unwrap();
    let running = mean_iou(&evaluated(&dir, root.path(), &["--checkpoint", plain.to_str().unwrap()]));
    assert!(running < fitting - 0.05, "{running} is not far below {fitting}: the case shows nothing");

    // Converted and begun from, it is the network that was evaluated.
    let whole = root.path().join("whole.safetensors");
    run(segdist().arg("convert").arg(&last).arg(&whole), 60).ok();
    let converted = evaluated(&dir, root.path(), &["--checkpoint", whole.to_str().unwrap()]);
    assert_eq!(mean_iou(&converted), fitting);
}

#[test]
fn the_references_behaviour_has_a_key_and_a_warning() {
    let root = tempfile::tempdir().unwrap();
    run(segdist().args(["demo-data", "--out", root.path().to_str().unwrap()]), 120).ok();
    let list = fs::read_to_string(root.path().join("training.odgt")).unwrap();
    fs::write(root.path().join("twelve.odgt"), list.lines().take(4).collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let (_, ended) = train(root.path(), "run", &["MODEL.bn_recalibrate=0", "TRAIN.epoch_iters=2"]);
    assert!(ended.stderr.contains("MODEL.bn_momentum 0.1"), "the remedy is named: {}", ended.stderr);
    assert!(!root.path().join("run/checkpoints/step-00000002/statistics.safetensors").exists());
}
