//! Weights from one form to another and back.

use std::path::{Path, PathBuf};

use segdist::convert::{Format, Target, run};
use segdist::fault::BadInput;
use segdist::model::weights::{Package, Part, load_into, read, write_pth, write_safetensors};
use segdist::model::{ModelConfig, Network, Stem};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

fn tensors(names: &[&str]) -> Vec<(String, Tensor)> {
    let tensor = |index: usize| Tensor::full([2, 3], index as f64, (Kind::Float, tch::Device::Cpu));
    names.iter().enumerate().map(|(index, name)| (name.to_string(), tensor(index))).collect()
}

fn write(path: PathBuf, names: &[&str]) -> PathBuf {
    write_pth(&tensors(names), &mut std::fs::File::create(&path).unwrap()).unwrap();
    path
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = read(path).unwrap().into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

#[test]
fn a_pair_becomes_one_file_and_a_pair_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let encoder = write(at("encoder_epoch_20.pth"), &["conv1.weight", "bn1.running_mean"]);
    let decoder = write(at("decoder_epoch_20.pth"), &["module.conv_last.weight"]);
    // The names say which is which, whatever the order.
    run(&[decoder, encoder.clone()], &at("model.safetensors"), None, None).unwrap();
    assert_eq!(
        names(&at("model.safetensors")),
        ["decoder.conv_last.weight", "encoder.bn1.running_mean", "encoder.conv1.weight"]
    );

    run(&[at("model.safetensors")], &at("new/epoch_1.pth"), None, None).unwrap();
    assert_eq!(names(&at("new/decoder_epoch_1.pth")), ["conv_last.weight"]);
    for (name, tensor) in read(&at("new/encoder_epoch_1.pth")).unwrap() {
        let (_, original) = read(&encoder).unwrap().into_iter().find(|(other, _)| *other == name).unwrap();
        assert!(tensor.equal(&original), "{name}");
    }
    assert_eq!(std::fs::read_dir(at("new")).unwrap().count(), 2);
}

#[test]
fn a_checkpoint_folder_becomes_a_pair_called_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("step-00000007");
    std::fs::create_dir(&checkpoint).unwrap();
    let pair = [write(folder.path().join("a.pth"), &["x"]), write(folder.path().join("b.pth"), &["x"])];
    run(&pair, &checkpoint.join("model.safetensors"), None, None).unwrap();
    run(&[checkpoint], &folder.path().join("out"), None, None).unwrap();
    assert_eq!(names(&folder.path().join("out/encoder_step-00000007.pth")), ["x"]);
    assert_eq!(names(&folder.path().join("out/decoder_step-00000007.pth")), ["x"]);
}

#[test]
fn one_part_alone_keeps_the_name_given() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(&[write(at("encoder_epoch_2.pth"), &["x"])], &at("encoder.safetensors"), None, None).unwrap();
    assert_eq!(names(&at("encoder.safetensors")), ["encoder.x"]);
    run(&[at("encoder.safetensors")], &at("again.pth"), None, None).unwrap();
    assert_eq!(names(&at("again.pth")), ["x"]);
    run(&[at("again.pth")], &at("bare"), Some(Format::Safetensors), None).unwrap();
    assert_eq!(names(&at("bare")), ["x"]);
}

#[test]
fn what_cannot_be_converted_is_the_users_to_mend_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let hostile = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights/hostile.zip.pth");
    let encoder = write(at("encoder_1.pth"), &["x"]);
    let second = write(at("encoder_2.pth"), &["x"]);
    for (inputs, part) in
        [(vec![hostile], "os.system"), (vec![encoder, second], "encoder.x"), (vec![at("absent.pth")], "absent.pth")]
    {
        let error = run(&inputs, &at("out.safetensors"), None, None).unwrap_err();
        assert!(error.is::<BadInput>() && error.to_string().contains(part), "{error:#}");
        assert!(!at("out.safetensors").exists());
    }
    assert!("onnx".parse::<Format>().is_err());
}

const CLASSES: usize = 3;

fn config(encoder: &str, decoder: &str, stem: Stem) -> ModelConfig {
    ModelConfig { arch_encoder: encoder.into(), arch_decoder: decoder.into(), stem, ..ModelConfig::default() }
}

/// A network with random weights, as a folder that says what its classes are.
fn folder_of(model: &ModelConfig, folder: &Path) -> Network {
    let network = Network::build(model, CLASSES, Device::Cpu, 5).unwrap();
    let tensors: Vec<_> =
        network.store.variables.iter().map(|entry| (entry.name.clone(), entry.tensor.detach())).collect();
    std::fs::create_dir(folder).unwrap();
    write_safetensors(&tensors, &mut std::fs::File::create(folder.join("model.safetensors")).unwrap()).unwrap();
    let classes =
        json!({"id2label": {"2": "car", "0": "road", "1": "sky"}, "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]});
    std::fs::write(folder.join("config.json"), classes.to_string()).unwrap();
    network
}

fn json_in(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

/// Every value of `network` is what the file or folder at `path` gives.
fn assert_gives(path: &Path, network: &Network, model: &ModelConfig, parts: &[Part]) {
    let other = Network::blank(model, CLASSES, Device::Cpu).unwrap();
    for part in parts {
        let report = load_into(&other.store, *part, &read(path).unwrap(), false).unwrap();
        assert!(report.unused.is_empty() && report.lacking.is_empty(), "{report:?}");
        for (ours, theirs) in network.store.variables.iter().zip(&other.store.variables) {
            let statistic = ours.name.contains("_tmp_running") || ours.name.ends_with("_running_iter");
            let same = ours.tensor.equal(&theirs.tensor) || statistic || !ours.name.starts_with(part.prefix());
            assert!(same, "{}", ours.name);
        }
    }
}

#[test]
fn a_folder_for_transformers_says_network_and_classes_and_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = config("mit_b1", "segformer", Stem::Deep);
    let network = folder_of(&model, &at("given"));
    run(&[at("given")], &at("out"), Some(Format::HuggingFace), None).unwrap();
    let said = json_in(&at("out"), "config.json");
    for (key, value) in [
        ("model_type", json!("segformer")),
        ("depths", json!([2, 2, 2, 2])),
        ("hidden_sizes", json!([64, 128, 320, 512])),
        ("num_attention_heads", json!([1, 2, 5, 8])),
        ("sr_ratios", json!([8, 4, 2, 1])),
        ("patch_sizes", json!([7, 3, 3, 3])),
        ("mlp_ratios", json!([4, 4, 4, 4])),
        ("decoder_hidden_size", json!(256)),
        ("id2label", json!({"0": "road", "1": "sky", "2": "car"})),
        ("label2id", json!({"road": 0, "sky": 1, "car": 2})),
        ("palette", json!([[1, 2, 3], [4, 5, 6], [7, 8, 9]])),
    ] {
        assert_eq!(said[key], value, "{key}");
    }
    assert_eq!(json_in(&at("out"), "preprocessor_config.json")["labels"], json!(["road", "sky", "car"]));
    assert_gives(&at("out"), &network, &model, &[Part::Encoder, Part::Decoder]);

    // What is there is not written over.
    let again = run(&[at("given")], &at("out"), Some(Format::HuggingFace), None).unwrap_err();
    assert!(again.is::<BadInput>() && again.to_string().contains("new or empty"), "{again:#}");
    // Back in our names, which takes the network's.
    let target = Target { model: &model, num_class: CLASSES };
    run(&[at("out")], &at("own.safetensors"), None, Some(target)).unwrap();
    assert_eq!(names(&at("own.safetensors")), names(&at("given")));
}

#[test]
fn an_upernet_for_transformers_names_its_backbone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = config("convnext_tiny", "uperhead", Stem::Deep);
    let network = folder_of(&model, &at("given"));
    run(&[at("given")], &at("out"), Some(Format::HuggingFace), None).unwrap();
    let said = json_in(&at("out"), "config.json");
    assert_eq!(said["backbone_config"]["depths"], json!([3, 3, 9, 3]));
    assert_eq!(said["backbone_config"]["hidden_sizes"], json!([96, 192, 384, 768]));
    assert_eq!((&said["hidden_size"], &said["auxiliary_in_channels"]), (&json!(512), &json!(384)));
    assert_gives(&at("out"), &network, &model, &[Part::Encoder, Part::Decoder]);
}

#[test]
fn state_dicts_of_torchvision_and_smp_are_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = config("resnet18", "unet", Stem::Plain);
    let network = folder_of(&model, &at("given"));
    run(&[at("given")], &at("smp.pth"), Some(Format::StateDict(Package::Smp)), None).unwrap();
    assert_gives(&at("smp.pth"), &network, &model, &[Part::Encoder, Part::Decoder]);
    assert!(names(&at("smp.pth")).contains(&"segmentation_head.0.weight".to_string()));
    run(&[at("given")], &at("torchvision.pth"), Some(Format::StateDict(Package::Torchvision)), None).unwrap();
    assert_gives(&at("torchvision.pth"), &network, &model, &[Part::Encoder]);
    assert!(names(&at("torchvision.pth")).contains(&"layer4.1.bn2.num_batches_tracked".to_string()));

    // The reference's stem is nobody else's.
    folder_of(&config("resnet18", "c1", Stem::Deep), &at("deep"));
    for (to, part) in [("hf", "mit_*"), ("torchvision", "MODEL.stem plain"), ("smp", "MODEL.stem plain")] {
        let error = run(&[at("deep")], &at("out"), Some(to.parse().unwrap()), None).unwrap_err();
        assert!(error.is::<BadInput>() && error.to_string().contains(part), "{error:#}");
        assert!(!at("out").exists());
    }
}
