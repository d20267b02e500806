//! Evaluation's memory: a large image at five sizes and with many classes, where the scores of every pixel would take
//! 2.6 GB for each size.

mod common;

use common::{run, segdist};
use segdist::model::weights::write_safetensors;
use segdist::model::{ModelConfig, Network};
use std::path::Path;
use tch::Device;

const SIDE: u32 = 2100;
const CLASSES: usize = 150;

/// The most memory that any child of this process, waited for, has had resident, in MiB.
fn peak_of_children_mb() -> f64 {
    // SAFETY: rusage is plain numbers, for which zeros are values.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) }, 0);
    usage.ru_maxrss as f64 / 1024.0
}

/// Two images with noise on them, their labels, and DIR/list.odgt.
fn write_images(dir: &Path) {
    let mut list = String::new();
    for index in 0..2u32 {
        let (image, label) = (format!("{index}.png"), format!("{index}_label.png"));
        let pixels = (0..SIDE * SIDE).map(|at| (at % SIDE, at / SIDE));
        let rgb: Vec<u8> = pixels
            .clone()
            .flat_map(|(x, y)| [x / 8 + index * 90, y / 8, (x * 7 + y * 13).wrapping_mul(2_654_435_761) >> 24])
            .map(|value| value as u8)
            .collect();
        let labels: Vec<u8> = pixels.map(|(x, y)| ((x / 100 + y / 100 * 21) % (CLASSES as u32 + 1)) as u8).collect();
        common::write_png(&dir.join(&image), SIDE, SIDE, png::ColorType::Rgb, &rgb);
        common::write_png(&dir.join(&label), SIDE, SIDE, png::ColorType::Grayscale, &labels);
        list += &format!(
            "{{\"fpath_img\": \"{image}\", \"fpath_segm\": \"{label}\", \"width\": {SIDE}, \"height\": {SIDE}}}\n"
        );
    }
    std::fs::write(dir.join("list.odgt"), list).unwrap();
}

#[test]
fn two_images_of_four_megapixels_at_five_sizes_on_two_threads_take_less_than_3_gb() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    write_images(folder.path());
    let model =
        ModelConfig { arch_encoder: "resnet18dilated".into(), arch_decoder: "ppm".into(), ..Default::default() };
    let network = Network::build(&model, CLASSES, Device::Cpu, 1).unwrap();
    let entries = network.store.variables.iter();
    let tensors: Vec<_> = entries.map(|entry| (entry.name.clone(), entry.tensor.shallow_clone())).collect();
    write_safetensors(&tensors, &mut std::fs::File::create(path("network.safetensors")).unwrap()).unwrap();
    let mut command = segdist();
    command.args(["eval", "--json", "--checkpoint", "weights"]).env("OMP_NUM_THREADS", "2");
    command.args([
        format!("DATASET.root_dataset={}", folder.path().display()),
        format!("DATASET.list_val={}", path("list.odgt")),
        "DATASET.imgSizes=(300, 375, 450, 525, 600)".into(),
        "DATASET.imgMaxSize=1000".into(),
        "MODEL.arch_encoder=resnet18dilated".into(),
        "MODEL.arch_decoder=ppm".into(),
        format!("MODEL.weights_encoder={}", path("network.safetensors")),
        format!("MODEL.weights_decoder={}", path("network.safetensors")),
        format!("DIR={}", path("run")),
    ]);
    let said = run(&mut command, 300).ok().stdout;
    let outcome: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(outcome["images"], 2);
    let peak = peak_of_children_mb();
    println!("peak {peak:.0} MiB");
    assert!(peak < 3000.0, "{peak:.0} MiB");
}
