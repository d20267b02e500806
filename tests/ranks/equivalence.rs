//! Several ranks compute what one computes on the same global batch.

use crate::common::{self, events, losses, ranks, run, samples, tiny};
use segdist::model::{Init, ModelConfig, Network, weights};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// He initialisation times what keeps activations near 1 when batch norm is the identity, as a pair of files.
fn well_scaled(folder: &Path, decoder: &str) -> [String; 2] {
    let config = ModelConfig {
        arch_encoder: "resnet18dilated".into(),
        arch_decoder: decoder.into(),
        init: Init::Random,
        ..ModelConfig::default()
    };
    let network = Network::build(&config, 4, Device::Cpu, 5).unwrap();
    ["encoder", "decoder"].map(|part| {
        let mut tensors = Vec::new();
        for entry in network.store.variables.iter().filter(|entry| entry.name.starts_with(part)) {
            let scale = if entry.tensor.dim() == 4 { 0.6 } else { 1.0 };
            let value = if entry.tensor.kind() == Kind::Float {
                tch::no_grad(|| &entry.tensor * scale)
            } else {
                entry.tensor.copy()
            };
            tensors.push((entry.name[part.len() + 1..].to_owned(), value));
        }
        let path = folder.join(format!("{part}-{decoder}.safetensors"));
        let mut file = std::fs::File::create(&path).unwrap();
        weights::write_safetensors(&tensors, &mut file).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

/// The model tensors of a run's newest checkpoint.
fn parameters(run: &Path, step: u64) -> Vec<(String, Tensor)> {
    Tensor::read_safetensors(run.join(format!("checkpoints/step-{step:08}/model.safetensors"))).unwrap()
}

fn train(count: usize, root: &Path, run_dir: PathBuf, steps: u64, more: &[String]) -> PathBuf {
    run(ranks(count).args(tiny(root, &run_dir, steps)).args(more), 300).ok();
    run_dir
}

fn assert_close(ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(theirs) {
        assert!((a - b).abs() <= tolerance * b.abs(), "{ours:?}\n{theirs:?}");
    }
}

fn assert_same_parameters(ours: &Path, theirs: &Path, step: u64) {
    let theirs: std::collections::BTreeMap<String, Tensor> = parameters(theirs, step).into_iter().collect();
    for (name, a) in parameters(ours, step) {
        let (a, b) = (a.to_kind(Kind::Double), theirs[&name].to_kind(Kind::Double));
        if a.numel() > 0 {
            let largest = a.abs().max().double_value(&[]).max(0.01);
            let difference = (a - b).abs().max().double_value(&[]);
            assert!(difference <= 1e-5 * largest, "{name}: {difference} of {largest}");
        }
    }
}

#[test]
fn four_ranks_of_one_two_of_two_and_one_of_four_train_alike() {
    for decoder in ["c1_deepsup", "ppm_deepsup"] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        samples(&root, &[(48, 32); 12], 4, 1);
        let [encoder_file, decoder_file] = well_scaled(folder.path(), decoder);
        let runs = [1, 2, 4].map(|count| {
            let more = [
                format!("MODEL.arch_decoder={decoder}"),
                format!("MODEL.weights_encoder={encoder_file}"),
                format!("MODEL.weights_decoder={decoder_file}"),
                format!("TRAIN.batch_size_per_gpu={}", 4 / count),
                "TRAIN.fix_bn=True".into(),
                "TRAIN.lr_encoder=1e-3".into(),
                "TRAIN.lr_decoder=1e-3".into(),
            ];
            train(count, &root, folder.path().join(format!("run{count}")), 5, &more)
        });
        let alone = losses(&runs[0]);
        assert_eq!(alone.len(), 5);
        assert!(alone.iter().all(|loss| loss.is_finite() && *loss < 20.0), "the weights are well scaled: {alone:?}");
        for several in &runs[1..] {
            assert_close(&losses(several), &alone, 1e-5);
            assert_same_parameters(several, &runs[0], 5);
        }
    }
}

#[test]
fn batch_statistics_cover_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    samples(&root, &[(48, 32); 12], 4, 2);
    let runs = [1, 2, 4].map(|count| {
        let more = [
            format!("TRAIN.batch_size_per_gpu={}", 4 / count),
            "MODEL.arch_decoder=ppm_deepsup".into(),
            "TRAIN.lr_encoder=1e-3".into(),
            "TRAIN.lr_decoder=1e-3".into(),
        ];
        train(count, &root, folder.path().join(format!("run{count}")), 2, &more)
    });
    let alone = losses(&runs[0]);
    for several in &runs[1..] {
        let theirs = losses(several);
        assert_close(&theirs[..1], &alone[..1], 1e-5);
        assert_close(&theirs[1..], &alone[1..], 1e-4);
    }
}

#[test]
fn three_ranks_run_a_global_batch_of_four_micro_batches_like_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    samples(&root, &[(48, 32), (32, 48), (40, 32), (64, 32), (32, 32), (56, 40), (32, 40), (48, 48)], 4, 3);
    let [encoder_file, decoder_file] = well_scaled(folder.path(), "c1_deepsup");
    let runs = [1, 3].map(|count| {
        let more = [
            format!("MODEL.weights_encoder={encoder_file}"),
            format!("MODEL.weights_decoder={decoder_file}"),
            "TRAIN.batch_size_per_gpu=1".into(),
            "TRAIN.global_batch=4".into(),
            "TRAIN.fix_bn=True".into(),
            "TRAIN.lr_encoder=1e-3".into(),
            "TRAIN.lr_decoder=1e-3".into(),
        ];
        train(count, &root, folder.path().join(format!("run{count}")), 5, &more)
    });
    assert_close(&losses(&runs[1]), &losses(&runs[0]), 1e-5);
    assert_same_parameters(&runs[1], &runs[0], 5);
}

#[test]
fn ranks_of_different_shapes_one_of_them_without_labels_sum_what_one_rank_accumulates() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    // Every step has all three images, one on each rank. Class 0 is ignored: some pixels of two, and all of the third.
    samples(&root, &[(48, 32), (32, 64), (40, 32)], 4, 8);
    common::write_png(&root.join("1_label.png"), 32, 64, png::ColorType::Grayscale, &[0; 32 * 64]);
    let [encoder_file, decoder_file] = well_scaled(folder.path(), "ppm_deepsup");
    let runs = [1, 3].map(|count| {
        let more = [
            "MODEL.arch_decoder=ppm_deepsup".into(),
            format!("MODEL.weights_encoder={encoder_file}"),
            format!("MODEL.weights_decoder={decoder_file}"),
            "TRAIN.batch_size_per_gpu=1".into(),
            "TRAIN.global_batch=3".into(),
            "TRAIN.fix_bn=True".into(),
            "TRAIN.lr_encoder=1e-3".into(),
            "TRAIN.lr_decoder=1e-3".into(),
        ];
        train(count, &root, folder.path().join(format!("run{count}")), 5, &more)
    });
    let alone = losses(&runs[0]);
    assert!(alone.len() == 5 && alone.iter().all(|loss| *loss > 0.0 && *loss < 20.0), "{alone:?}");
    assert_close(&losses(&runs[1]), &alone, 1e-5);
    assert_same_parameters(&runs[1], &runs[0], 5);
}

#[test]
fn ranks_without_a_micro_batch_take_part_in_batch_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    samples(&root, &[(48, 32); 8], 4, 4);
    let more = ["TRAIN.batch_size_per_gpu=1".into(), "TRAIN.global_batch=4".into(), "DIST.check_replicas=1".into()];
    let run = train(3, &root, folder.path().join("run"), 3, &more);
    assert!(losses(&run).iter().all(|loss| loss.is_finite()));
}

#[test]
fn the_same_run_twice_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    samples(&root, &[(48, 32), (32, 48), (40, 32), (64, 32)], 4, 5);
    let runs = ["a", "b"].map(|name| train(2, &root, folder.path().join(name), 3, &[]));
    assert_eq!(losses(&runs[0]), losses(&runs[1]));
    let bytes = |run: &Path| std::fs::read(run.join("checkpoints/step-00000003/model.safetensors")).unwrap();
    assert!(bytes(&runs[0]) == bytes(&runs[1]));
}

#[test]
fn history_and_checkpoints_have_the_documented_form() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    samples(&root, &[(48, 32); 4], 4, 6);
    let run = train(2, &root, folder.path().join("run"), 2, &[]);
    let steps = events(&run, "train");
    assert_eq!(steps.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for field in ["epoch", "loss", "acc", "lr_encoder", "lr_decoder", "step_s", "data_s", "comm_s", "images_per_s"] {
        assert!(steps[0][field].is_number(), "{field}: {}", steps[0]);
    }
    assert_eq!(steps[1]["epoch"], 1.0);
    for field in ["mean_iou", "pixel_accuracy", "mean_accuracy"] {
        assert!(events(&run, "eval")[0][field].is_number(), "{field}");
    }
    assert_eq!(events(&run, "checkpoint")[0]["step"], 2);
    assert_eq!(events(&run, "finished").len(), 1);
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        assert!(run.join("checkpoints/step-00000002").join(file).exists(), "{file}");
    }
    let config: serde_yaml::Value =
        serde_yaml::from_str(&std::fs::read_to_string(run.join("config.yaml")).unwrap()).unwrap();
    assert_eq!(config["MODEL"]["arch_encoder"], serde_yaml::Value::from("resnet18dilated"));
    let names: Vec<String> = parameters(&run, 2).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"encoder.conv1.weight".into()) && names.contains(&"decoder.conv_last.bias".into()));
}

#[test]
fn gradients_that_travel_as_bf16_keep_ranks_equal_and_near_f32() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    samples(&root, &[(48, 32); 12], 4, 7);
    let more = ["TRAIN.batch_size_per_gpu=1", "TRAIN.fix_bn=True", "DIST.check_replicas=1", "DIST.bucket_mb=3"];
    let runs = ["f32", "bf16"].map(|wire| {
        let more: Vec<String> = more.iter().map(ToString::to_string).chain([format!("DIST.wire={wire}")]).collect();
        train(3, &root, folder.path().join(wire), 3, &more)
    });
    let (exact, ours) = (losses(&runs[0]), losses(&runs[1]));
    assert_eq!(ours[0], exact[0]);
    assert_ne!(ours[2], exact[2]);
    assert_close(&ours, &exact, 1e-2);
}
