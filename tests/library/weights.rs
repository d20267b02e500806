//! Files of weights, as PyTorch writes them and as an attacker or a failing disk leaves them.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use segdist::model::layers::{Role, Store, Variable};
use segdist::model::weights::{Part, WeightsError, load_file, load_into, read, write_pth, write_safetensors};
use segdist::model::{Init, ModelConfig};
use tch::{Kind, Tensor};

/// Made by tests/golden/weights.py.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights").join(name)
}

/// Value i is i / 8 - 1, as in the generator.
fn ramp(size: &[i64]) -> Tensor {
    let numel = size.iter().product::<i64>();
    (Tensor::arange(numel, (Kind::Float, tch::Device::Cpu)) / 8 - 1).reshape(size)
}

fn write(path: &Path, tensors: &[(String, Tensor)]) {
    let mut file = std::fs::File::create(path).unwrap();
    match path.extension().unwrap().to_str().unwrap() {
        "pth" => write_pth(tensors, &mut file).unwrap(),
        _ => write_safetensors(tensors, &mut file).unwrap(),
    }
}

fn assert_equal(left: &[(String, Tensor)], right: &[(String, Tensor)]) {
    let names = |tensors: &[(String, Tensor)]| tensors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(left), names(right));
    for ((name, left), (_, right)) in left.iter().zip(right) {
        assert_eq!(left.kind(), right.kind(), "{name}");
        assert!(left.equal(right), "{name}");
    }
}

fn store(tensors: &[(&str, Tensor)]) -> Store {
    let entry = |(name, tensor): &(&str, Tensor)| Variable {
        name: name.to_string(),
        tensor: tensor.copy(),
        role: Role::Weight,
        above: 0,
    };
    Store { variables: tensors.iter().map(entry).collect() }
}

fn zeros(size: &[i64]) -> Tensor {
    Tensor::zeros(size, (Kind::Float, tch::Device::Cpu))
}

fn named(tensors: &[(&str, Tensor)]) -> Vec<(String, Tensor)> {
    tensors.iter().map(|(name, tensor)| (name.to_string(), tensor.copy())).collect()
}

#[test]
fn zip_and_stream_hold_the_same_tensors_in_the_same_order() {
    let expected = [
        ("z.weight", ramp(&[2, 3, 1, 1])),
        ("a.transposed", ramp(&[3, 2]).tr()),
        ("a.offset", ramp(&[12]).narrow(0, 4, 4).reshape([2, 2])),
        ("a.shared", ramp(&[12])),
        ("half", ramp(&[4]).to_kind(Kind::Half)),
        ("bfloat16", ramp(&[4]).to_kind(Kind::BFloat16)),
        ("double", ramp(&[4]).to_kind(Kind::Double)),
        ("bn.num_batches_tracked", Tensor::from(7i64)),
        ("scalar", Tensor::from(0.5f32)),
        ("empty", zeros(&[0, 3])),
    ];
    for file in ["plain.zip.pth", "plain.stream.pth", "nested.zip.pth", "nested.stream.pth"] {
        assert_equal(&read(&golden(file)).unwrap(), &named(&expected));
    }
}

#[test]
fn tar_files_and_parameters_are_read() {
    let tensors = read(&golden("plain.tar.pth")).unwrap();
    assert_eq!(tensors.len(), 4);
    assert_equal(&tensors[..1], &named(&[("z.weight", ramp(&[2, 3, 1, 1]))]));
    for file in ["parameter.zip.pth", "parameter.stream.pth"] {
        let tensors = read(&golden(file)).unwrap();
        assert_equal(&tensors, &named(&[("weight", zeros(&[2, 2]) + 1)]));
    }
}

#[test]
fn a_file_that_calls_something_is_refused_by_that_name_and_does_nothing() {
    let before: Vec<_> = std::fs::read_dir(".").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for file in ["hostile.zip.pth", "hostile.stream.pth", "hostile.pickle.pth", "hostile.text.pth"] {
        let message = read(&golden(file)).unwrap_err().to_string();
        assert!(message.contains("os.system") && message.contains(file), "{message}");
    }
    let after: Vec<_> = std::fs::read_dir(".").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(before, after);
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = read(&golden("plain.zip.pth")).unwrap();
    let pth = folder.path().join("a.pth");
    write(&pth, &tensors);
    assert_equal(&read(&pth).unwrap(), &tensors);

    let safetensors = folder.path().join("model.safetensors");
    write(&safetensors, &tensors);
    let by_name = |tensors: &mut Vec<(String, Tensor)>| tensors.sort_by(|left, right| left.0.cmp(&right.0));
    let mut back = read(&safetensors).unwrap();
    by_name(&mut back);
    by_name(&mut tensors);
    assert_equal(&back, &tensors);
    // A checkpoint's folder stands for its model.safetensors.
    assert_eq!(read(folder.path()).unwrap().len(), tensors.len());
}

/// Bytes of every container, for damaging them.
fn containers() -> Vec<Vec<u8>> {
    let mut containers: Vec<Vec<u8>> =
        ["plain.zip.pth", "plain.stream.pth", "plain.tar.pth", "nested.stream.pth", "hostile.zip.pth"]
            .iter()
            .map(|file| std::fs::read(golden(file)).unwrap())
            .collect();
    let mut safetensors = Vec::new();
    write_safetensors(&read(&golden("plain.zip.pth")).unwrap(), &mut safetensors).unwrap();
    containers.push(safetensors);
    containers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_cut_file_is_an_error(which in 0usize..6, part in 0.0..1.0) {
        let input = &containers()[which];
        let file = tempfile::NamedTempFile::new().unwrap();
        // A tar archive ends with two empty blocks and padding that holds nothing.
        let end = if which == 2 { input.iter().rposition(|&byte| byte != 0).unwrap() + 1024 } else { input.len() };
        std::fs::write(file.path(), &input[..(end as f64 * part) as usize]).unwrap();
        prop_assert!(read(file.path()).is_err());
    }

    #[test]
    fn flipped_bytes_never_crash(which in 0usize..6, flips in prop::collection::vec((0.0..1.0, 1u8..), 1..6)) {
        let mut input = containers().swap_remove(which);
        for (at, mask) in flips {
            let at = (input.len() as f64 * at) as usize;
            input[at] ^= mask;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &input).unwrap();
        // Fine where the flip hit padding or, in the containers without checksums, a value.
        let _ = read(file.path());
    }
}

#[test]
fn a_flipped_value_in_a_zip_is_noticed() {
    let mut input = std::fs::read(golden("plain.zip.pth")).unwrap();
    let value = (-0.875f32).to_le_bytes();
    let at = input.windows(4).position(|window| window == value).unwrap();
    input[at] ^= 1;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &input).unwrap();
    assert!(read(file.path()).unwrap_err().to_string().contains("checksum"));
}

#[test]
fn missing_and_mis_shaped_tensors_are_listed_and_change_nothing() {
    let store = store(&[("encoder.a", zeros(&[2])), ("encoder.b", zeros(&[2])), ("encoder.c", zeros(&[2]))]);
    let file = named(&[("a", ramp(&[2])), ("b", ramp(&[3])), ("extra", ramp(&[1]))]);
    let message = load_into(&store, Part::Encoder, &file, false).unwrap_err().to_string();
    for part in ["missing: c", "b ([3] in the file, [2] here)", "skip_mismatched", "unused: extra"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(store.variables.iter().all(|entry| entry.tensor.equal(&zeros(&[2]))));
}

#[test]
fn a_head_of_other_classes_is_skipped_on_request_and_listed() {
    let store = store(&[("decoder.conv.weight", zeros(&[2])), ("decoder.head.weight", zeros(&[3]))]);
    let file = named(&[("module.conv.weight", ramp(&[2])), ("module.head.weight", ramp(&[5]))]);
    let report = load_into(&store, Part::Decoder, &file, true).unwrap();
    assert_eq!(report.loaded, ["conv.weight"]);
    assert_eq!(report.mismatched, ["head.weight ([5] in the file, [3] here)"]);
    assert!(store.variables[0].tensor.equal(&ramp(&[2])) && store.variables[1].tensor.equal(&zeros(&[3])));
}

const NORM: [&str; 5] = ["running_mean", "running_var", "_tmp_running_mean", "_tmp_running_var", "_running_iter"];

fn norm_store() -> Store {
    let named: Vec<(String, Tensor)> =
        NORM.iter().map(|buffer| (format!("encoder.bn.{buffer}"), zeros(&[1]))).collect();
    store(&named.iter().map(|(name, tensor)| (name.as_str(), tensor.copy())).collect::<Vec<_>>())
}

fn norm_file(values: &[f32]) -> Vec<(String, Tensor)> {
    NORM.iter().zip(values).map(|(buffer, value)| (format!("bn.{buffer}"), Tensor::from_slice(&[*value]))).collect()
}

#[test]
fn debiased_statistics_are_kept_where_they_agree_and_rebuilt_where_not() {
    let cases: [(&[f32], usize, [f64; 3]); 3] = [
        (&[2.0, 3.0, 8.0, 12.0, 4.0], 0, [8.0, 12.0, 4.0]),
        (&[2.0, 3.0, 0.0, 1.0, 4.0], 1, [8.0, 12.0, 4.0]),
        (&[2.0, 3.0], 1, [2.0, 3.0, 1.0]),
    ];
    for (file, rebuilt, expected) in cases {
        let store = norm_store();
        let report = load_into(&store, Part::Encoder, &norm_file(file), false).unwrap();
        assert_eq!(report.rebuilt_statistics, rebuilt);
        assert_eq!(report.lines(Part::Encoder, "file").iter().any(|line| line.contains("debiased")), rebuilt > 0);
        let values: Vec<f64> = store.variables[2..].iter().map(|entry| entry.tensor.double_value(&[0])).collect();
        assert_eq!(values, expected);
    }
}

#[test]
fn the_stem_that_torchvision_lacks_stays_and_is_listed() {
    let names = [
        "conv1.weight",
        "bn1.weight",
        "conv2.weight",
        "conv3.weight",
        "layer1.0.conv1.weight",
        "layer1.0.conv2.weight",
    ];
    let ours: Vec<(String, Tensor)> = names.iter().map(|name| (format!("encoder.{name}"), zeros(&[2]))).collect();
    let store = store(&ours.iter().map(|(name, tensor)| (name.as_str(), tensor.copy())).collect::<Vec<_>>());
    let file = named(&[
        ("module.conv1.weight", ramp(&[2, 3, 7, 7])),
        ("module.bn1.weight", ramp(&[2])),
        ("module.layer1.0.conv1.weight", ramp(&[4])),
        ("module.layer1.0.conv2.weight", ramp(&[2])),
        ("module.fc.weight", ramp(&[2])),
    ]);
    let report = load_into(&store, Part::Encoder, &file, false).unwrap();
    assert_eq!(report.loaded, ["layer1.0.conv2.weight"]);
    assert_eq!(report.lacking, &names[..5]);
    assert!(
        report.unused.iter().any(|name| name == "fc.weight")
            && report.unused.iter().any(|name| name.ends_with("bn1.weight"))
    );
    assert!(store.variables[1].tensor.equal(&zeros(&[2])));
}

#[test]
fn initial_values_must_be_named_or_declined() {
    let store = store(&[("encoder.a", zeros(&[2]))]);
    let config = ModelConfig::default();
    let error = segdist::model::weights::initialize(&store, &config).unwrap_err();
    assert!(matches!(error, WeightsError::Nothing(_)));
    for part in ["MODEL.pretrained_dir", "resnet50-imagenet.pth", "MODEL.init"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let random = ModelConfig { init: Init::Random, ..config.clone() };
    assert_eq!(segdist::model::weights::initialize(&store, &random).unwrap().len(), 2);

    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("resnet50-imagenet.pth"), &named(&[("a", ramp(&[2])), ("fc.bias", ramp(&[2]))]));
    let imagenet = ModelConfig { pretrained_dir: folder.path().display().to_string(), ..config };
    let lines = segdist::model::weights::initialize(&store, &imagenet).unwrap().join("\n");
    assert!(lines.contains("fc.bias") && store.variables[0].tensor.equal(&ramp(&[2])), "{lines}");
}

#[test]
fn a_file_that_is_absent_or_not_weights_is_named() {
    let store = store(&[]);
    for (path, part) in [(golden("absent.pth"), "absent.pth"), (golden("../weights.py"), "weights.py")] {
        let message = load_file(&store, Part::Encoder, &path, false).unwrap_err().to_string();
        assert!(message.contains(part) && !message.contains('\n'), "{message}");
    }
}

/// A folder of two files and an index, as save_pretrained writes large networks.
fn sharded(folder: &Path, index: &str) {
    write(&folder.join("model-00001-of-00002.safetensors"), &named(&[("a", ramp(&[2]))]));
    write(&folder.join("model-00002-of-00002.safetensors"), &named(&[("b", ramp(&[3]))]));
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
}

#[test]
fn a_folder_of_several_files_is_read_by_its_index() {
    let folder = tempfile::tempdir().unwrap();
    let map = r#"{"metadata": {"total_size": 20}, "weight_map": {"b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"}}"#;
    sharded(folder.path(), map);
    assert_equal(&read(folder.path()).unwrap(), &named(&[("a", ramp(&[2])), ("b", ramp(&[3]))]));

    let pickled = tempfile::tempdir().unwrap();
    std::fs::copy(golden("plain.zip.pth"), pickled.path().join("pytorch_model.bin")).unwrap();
    assert_eq!(read(pickled.path()).unwrap().len(), 10);
}

#[test]
fn an_index_cannot_lead_out_of_its_folder_or_promise_what_is_not_there() {
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("inside");
    std::fs::create_dir(&folder).unwrap();
    write(&outside.path().join("secret.safetensors"), &named(&[("a", ramp(&[2]))]));
    let absolute = outside.path().join("secret.safetensors");
    for file in ["../secret.safetensors", absolute.to_str().unwrap(), "./../secret.safetensors", "..", "", "a\\b", "x/"]
    {
        sharded(&folder, &serde_json::json!({"weight_map": {"a": file}}).to_string());
        let message = read(&folder).unwrap_err().to_string();
        assert!(message.contains("not a file beside it") && !message.contains('\n'), "{message}");
    }
    let one = "model-00001-of-00002.safetensors";
    for (index, part) in [
        (serde_json::json!({"weight_map": {"a": one, "z": one}}).to_string(), "promises z"),
        (serde_json::json!({"weight_map": {"a": "absent.safetensors"}}).to_string(), "absent.safetensors"),
        ("[".repeat(100_000), "not an index"),
        (r#"{"weight_map": 3}"#.into(), "not an index"),
    ] {
        sharded(&folder, &index);
        let message = read(&folder).unwrap_err().to_string();
        assert!(message.contains(part) && !message.contains('\n'), "{message}");
    }
    // The same tensor in two files.
    write(&folder.join("model-00002-of-00002.safetensors"), &named(&[("a", ramp(&[2]))]));
    let both = serde_json::json!({"weight_map": {"a": one, "b": "model-00002-of-00002.safetensors"}}).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), both).unwrap();
    assert!(read(&folder).unwrap_err().to_string().contains("both hold a"));
    // A folder without weights, and pickles inside one that call something.
    let empty = outside.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(read(&empty).unwrap_err().to_string().contains("pytorch_model.bin"));
    std::fs::copy(golden("hostile.zip.pth"), empty.join("pytorch_model.bin")).unwrap();
    assert!(read(&empty).unwrap_err().to_string().contains("os.system"));
}
