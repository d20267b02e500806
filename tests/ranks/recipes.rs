//! What later recipes add to a step, an average, drop path, recomputed activations, frozen parts, on one rank and on two: the
//! number of ranks and an interruption change nothing, and recomputing changes no bit.

use crate::common::jobs::{Job, trained, wait_for, wait_for_step};
use crate::common::{losses, ranks, run, samples, tiny};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};
use tempfile::TempDir;

/// Everything at once, on a transformer. The head's batch norm is frozen, as its statistics would make rounding grow.
const ALL: [&str; 11] = [
    "MODEL.arch_encoder=mit_b0",
    "MODEL.arch_decoder=segformer",
    "DATASET.segm_downsampling_rate=4",
    "MODEL.drop_path=0.3",
    "MODEL.recompute=True",
    "TRAIN.ema=0.9",
    "TRAIN.freeze=['decoder.batch_norm', 'encoder.block.0']",
    "TRAIN.layer_decay=0.8",
    "TRAIN.lr_factors={decoder: 2, 'encoder.layer_norm': 0.5}",
    "TRAIN.lr_encoder=1e-3",
    "TRAIN.lr_decoder=1e-3",
];

struct Lab(TempDir);

impl Lab {
    fn new() -> Lab {
        let folder = TempDir::new().unwrap();
        samples(&folder.path().join("data"), &[(64, 48); 4], 4, 1);
        Lab(folder)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn arguments(&self, name: &str, steps: u64, more: &[&str]) -> Vec<String> {
        let mut arguments = tiny(&self.dir("data"), &self.dir(name), steps);
        arguments.extend(["CHECKPOINT.keep_last=99", "CHECKPOINT.every_steps=2"].map(String::from));
        arguments.extend(more.iter().map(|text| text.to_string()));
        arguments
    }

    fn train(&self, count: usize, name: &str, steps: u64, more: &[&str]) {
        run(ranks(count).args(self.arguments(name, steps, more)), 300).ok();
    }
}

/// A checkpoint's file.
fn file(run: &Path, step: u64, name: &str) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}/{name}.safetensors"))
}

fn bytes(run: &Path, step: u64) -> [Vec<u8>; 3] {
    ["model", "optimizer", "average"].map(|name| fs::read(file(run, step, name)).unwrap())
}

fn tensors(run: &Path, step: u64, name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(file(run, step, name)).unwrap().into_iter().collect()
}

#[test]
fn average_drop_path_and_frozen_parts_go_on_bit_for_bit_after_a_kill() {
    let lab = Lab::new();
    let adamw = [&ALL[..], &["TRAIN.optim=AdamW", "TRAIN.beta2=0.95"]].concat();
    for count in [1, 2] {
        let (whole, broken) = (format!("whole{count}"), format!("broken{count}"));
        lab.train(count, &whole, 8, &adamw);
        let mut job = Job::start(ranks(count).args(lab.arguments(&broken, 8, &adamw)));
        let checkpoint = lab.dir(&broken).join("checkpoints/step-00000004");
        wait_for("the checkpoint", 120, || checkpoint.exists().then_some(()));
        wait_for_step(&lab.dir(&broken), 5);
        assert!(!job.ended(), "the kill came too late");
        drop(job);
        lab.train(count, &broken, 8, &adamw);
        assert_eq!(trained(&lab.dir(&broken)), (1..=8).collect::<Vec<_>>(), "each step once");
        assert_eq!(losses(&lab.dir(&broken)), losses(&lab.dir(&whole)));
        assert!(bytes(&lab.dir(&broken), 8) == bytes(&lab.dir(&whole), 8), "{count} ranks: other tensors");
    }
}

#[test]
fn two_ranks_of_one_image_train_and_average_what_one_of_two_does() {
    let lab = Lab::new();
    for count in [1, 2] {
        let batch = format!("TRAIN.batch_size_per_gpu={}", 2 / count);
        lab.train(count, &format!("run{count}"), 6, &[&ALL[..], &[&batch]].concat());
    }
    let (one, two) = (lab.dir("run1"), lab.dir("run2"));
    for (a, b) in losses(&two).iter().zip(losses(&one)) {
        assert!((a - b).abs() <= 1e-5 * b.abs(), "{a} for {b}");
    }
    for name in ["model", "average"] {
        let theirs = tensors(&one, 6, name);
        for (tensor, own) in tensors(&two, 6, name) {
            let (own, their) = (own.to_kind(Kind::Double), theirs[&tensor].to_kind(Kind::Double));
            let largest = their.abs().max().double_value(&[]).max(0.01);
            let difference = (own - their).abs().max().double_value(&[]);
            assert!(difference <= 1e-5 * largest, "{name} {tensor}: {difference} of {largest}");
        }
    }
    let (first, last, average) = (tensors(&one, 2, "model"), tensors(&one, 6, "model"), tensors(&one, 6, "average"));
    let is_frozen = |name: &str| name.starts_with("encoder.block.0.") || name.starts_with("decoder.batch_norm.");
    for (name, tensor) in last.iter().filter(|(name, _)| is_frozen(name)) {
        assert!(*tensor == first[name] && *tensor == average[name], "{name} moves");
    }
    let classifier = &last["decoder.classifier.weight"];
    assert!(*classifier != first["decoder.classifier.weight"] && *classifier != average["decoder.classifier.weight"]);
}

#[test]
fn recomputed_activations_give_the_same_bits_and_statistics_move_once() {
    let lab = Lab::new();
    for count in [1, 2] {
        for recompute in ["True", "False"] {
            let recompute = format!("MODEL.recompute={recompute}");
            let more = [&recompute, "TRAIN.batch_size_per_gpu=1", "TRAIN.global_batch=3", "TRAIN.amp=off"];
            lab.train(count, &format!("{count} {recompute}"), 3, &more);
        }
        let of = |recompute: &str| {
            let run = lab.dir(&format!("{count} MODEL.recompute={recompute}"));
            ["model", "optimizer"].map(|name| fs::read(file(&run, 3, name)).unwrap())
        };
        assert!(of("True") == of("False"), "{count} ranks: other tensors");
    }
}
