//! Batch norm statistics that are taken anew for an evaluation: the same on any number of ranks, beside the run, and kept.

use crate::common::jobs::tensors;
use crate::common::{Ended, events, ranks, run, samples, tiny};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Lab(TempDir);

impl Lab {
    fn new() -> Lab {
        let lab = Lab(TempDir::new().unwrap());
        samples(&lab.dir("data"), &[(48, 32); 12], 4, 1);
        lab
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Two epochs of two steps of four images.
    fn train(&self, count: usize, name: &str, more: &[&str]) -> Ended {
        let mut arguments = tiny(&self.dir("data"), &self.dir(name), 2);
        arguments.extend(["TRAIN.num_epoch=2".into(), format!("TRAIN.batch_size_per_gpu={}", 4 / count)]);
        run(ranks(count).args(arguments).args(more), 300)
    }
}

/// The statistics of a checkpoint, by name.
fn statistics(run: &Path, step: u64) -> BTreeMap<String, Vec<f32>> {
    let bytes = fs::read(run.join(format!("checkpoints/step-{step:08}/statistics.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    file.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect()
}

#[test]
fn ranks_take_the_statistics_that_one_rank_takes() {
    let lab = Lab::new();
    // At rate 0 the weights stay the same, so that nothing else can differ.
    let rates = ["TRAIN.lr_encoder=0", "TRAIN.lr_decoder=0"];
    for count in [1, 2, 4] {
        lab.train(count, &format!("on{count}"), &rates).ok();
    }
    let one = statistics(&lab.dir("on1"), 4);
    assert!(one.len() > 40 && one.keys().all(|name| name.contains(".running_")));
    for count in [2, 4] {
        for (name, values) in statistics(&lab.dir(&format!("on{count}")), 4) {
            for (a, b) in values.iter().zip(&one[&name]) {
                assert!((a - b).abs() <= 1e-4 * b.abs().max(0.05), "{count} ranks: {name}: {a} and {b}");
            }
        }
    }
}

#[test]
fn a_run_goes_on_as_if_no_statistics_had_been_taken() {
    let lab = Lab::new();
    for count in [1, 2] {
        let name = |what: &str| format!("{what}{count}");
        // Three global batches are a pass, and what the statistics are taken over.
        lab.train(count, &name("often"), &["VAL.every_epochs=1"]).ok();
        lab.train(count, &name("once"), &["CHECKPOINT.every_steps=1"]).ok();
        lab.train(count, &name("never"), &["MODEL.bn_recalibrate=0"]).ok();
        let middle = lab.dir(&name("often")).join("checkpoints/step-00000002");
        assert!(middle.join("statistics.safetensors").exists(), "kept with the step that was evaluated");
        assert!(!lab.dir(&name("once")).join("checkpoints/step-00000002/statistics.safetensors").exists());
        lab.train(count, &name("resumed"), &["--resume", middle.to_str().unwrap()]).ok();
        let end = tensors(&lab.dir(&name("often")), 4);
        for other in ["once", "never", "resumed"] {
            assert!(tensors(&lab.dir(&name(other)), 4) == end, "{other} on {count} ranks: other tensors");
        }
        let taken = statistics(&lab.dir(&name("often")), 4);
        for other in ["once", "resumed"] {
            assert_eq!(statistics(&lab.dir(&name(other)), 4), taken, "{other} on {count} ranks");
        }
        let iou = |what: &str| events(&lab.dir(&name(what)), "eval").last().unwrap()["mean_iou"].as_f64().unwrap();
        assert_eq!(iou("resumed"), iou("often"));
    }
}

#[test]
fn a_run_without_validation_images_keeps_statistics_for_whoever_evaluates_it() {
    let lab = Lab::new();
    lab.train(1, "run", &["DATASET.list_val="]).ok();
    assert!(!statistics(&lab.dir("run"), 4).is_empty());
}
