//! Weights from one form to another and back.

use std::path::{Path, PathBuf};

use segdist::convert::{Format, run};
use segdist::fault::BadInput;
use segdist::model::weights::{read, write_pth};
use tch::{Kind, Tensor};

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
    run(&[decoder, encoder.clone()], &at("model.safetensors"), None).unwrap();
    assert_eq!(
        names(&at("model.safetensors")),
        ["decoder.conv_last.weight", "encoder.bn1.running_mean", "encoder.conv1.weight"]
    );

    run(&[at("model.safetensors")], &at("new/epoch_1.pth"), None).unwrap();
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
    run(&pair, &checkpoint.join("model.safetensors"), None).unwrap();
    run(&[checkpoint], &folder.path().join("out"), None).unwrap();
    assert_eq!(names(&folder.path().join("out/encoder_step-00000007.pth")), ["x"]);
    assert_eq!(names(&folder.path().join("out/decoder_step-00000007.pth")), ["x"]);
}

#[test]
fn one_part_alone_keeps_the_name_given() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(&[write(at("encoder_epoch_2.pth"), &["x"])], &at("encoder.safetensors"), None).unwrap();
    assert_eq!(names(&at("encoder.safetensors")), ["encoder.x"]);
    run(&[at("encoder.safetensors")], &at("again.pth"), None).unwrap();
    assert_eq!(names(&at("again.pth")), ["x"]);
    run(&[at("again.pth")], &at("bare"), Some(Format::Safetensors)).unwrap();
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
        let error = run(&inputs, &at("out.safetensors"), None).unwrap_err();
        assert!(error.is::<BadInput>() && error.to_string().contains(part), "{error:#}");
        assert!(!at("out.safetensors").exists());
    }
    assert!("onnx".parse::<Format>().is_err());
}
