//! What networks.py and the tests that read its files have in common: the pairs' settings and the values they are
//! filled with.
#![allow(dead_code)] // each binary uses its own part

use segdist::model::layers::Local;
use segdist::model::{ModelConfig, Network, Pass};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

pub const CLASSES: i64 = 7;
const BATCH: i64 = 2;
const HEIGHT: i64 = 64;
const WIDTH: i64 = 96;

/// What the reference measured in some steps of training.
#[derive(Deserialize)]
pub struct Run {
    pub losses: Vec<f64>,
    /// Norms of running mean and variance of every batch norm layer.
    pub statistics: Vec<[f64; 2]>,
}

/// A golden file.
pub fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub fn config(encoder: &str, decoder: &str) -> ModelConfig {
    ModelConfig { arch_encoder: encoder.into(), arch_decoder: decoder.into(), ..Default::default() }
}

/// The network, filled as the reference's was.
pub fn network(encoder: &str, decoder: &str) -> Network {
    let network = Network::blank(&config(encoder, decoder), CLASSES as usize, Device::Cpu).unwrap();
    fill(&network);
    network
}

pub fn fill(network: &Network) {
    let _guard = tch::no_grad_guard();
    for entry in &network.store.variables {
        let data = value(&entry.name.replace("_tmp_running", "running"), &entry.tensor.size());
        entry.tensor.shallow_clone().copy_(&data);
    }
}

/// In f64, where no ReLU's input is so near to 0 that rounding decides.
pub fn to_double(network: &Network) {
    let _guard = tch::no_grad_guard();
    for entry in &network.store.variables {
        entry.tensor.shallow_clone().set_data(&entry.tensor.to_kind(Kind::Double));
    }
}

pub fn pass(train: bool) -> Pass<'static> {
    Pass { train, norm: &Local, dropout: None, deep_supervision: true }
}

/// Numbers in [-1, 1) that are a function of the name and the index alone.
pub fn uniform(name: &str, count: i64) -> Vec<f32> {
    let fnv = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let state = name.bytes().fold(0xCBF2_9CE4_8422_2325, fnv);
    let number = |index: u64| {
        let mut word = state.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^= word >> 31;
        ((word >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    (1..=count as u64).map(number).collect()
}

/// What a tensor of the network is filled with; see networks.py and packages.py.
fn value(name: &str, shape: &[i64]) -> Tensor {
    let noise = Tensor::from_slice(&uniform(name, shape.iter().product())).view(shape);
    let parts: Vec<&str> = name.split('.').collect();
    let added = parts.iter().any(|part| ["bn2", "bn3", "fuse_layers"].contains(part));
    match (*parts.last().unwrap(), shape) {
        ("layer_scale_parameter" | "gamma", _) => noise * 0.2 + 0.3,
        ("weight", [_, inputs]) => noise * (3.0 / *inputs as f64).sqrt(),
        (_, [_, _, _]) => noise * 0.5,
        (_, [_, inputs, height, width]) => noise * (6.0 / (inputs * height * width) as f64).sqrt(),
        ("weight", _) => (noise * 0.25 + 0.75) * if added { 0.3 } else { 1.0 },
        ("bias" | "running_mean", _) => noise * 0.1,
        ("running_var", _) => noise * 0.25 + 1.0,
        ("running_iter" | "_running_iter", _) => noise.ones_like(),
        _ => noise.zeros_like(),
    }
}

pub fn images() -> Tensor {
    images_of((HEIGHT, WIDTH))
}

/// Two of this height and width.
pub fn images_of((height, width): (i64, i64)) -> Tensor {
    let values = uniform("images", BATCH * 3 * height * width);
    Tensor::from_slice(&values).view([BATCH, 3, height, width]) * 2.0
}

/// Classes and -1 for scores of `size` (n, classes, h, w).
pub fn labels(size: &[i64]) -> Tensor {
    let class = |draw: f32| ((f64::from(draw) + 1.0) / 2.0 * (CLASSES + 1) as f64).floor() as i64 - 1;
    let values: Vec<i64> = uniform("labels", BATCH * size[2] * size[3]).into_iter().map(class).collect();
    Tensor::from_slice(&values).view([BATCH, size[2], size[3]])
}

/// The training loss of the fixed batch, averaged over labelled pixels, with deep supervision at 0.4; the scores and
/// the labels.
pub fn forward_loss(network: &Network, train: bool) -> (Tensor, Tensor, Tensor) {
    let kind = network.store.variables[0].tensor.kind();
    let logits = network.forward(&images().to_kind(kind), &pass(train));
    let labels = labels(&logits.main.size());
    let valid = labels.ge(0).sum(Kind::Float);
    let mut loss = segdist::loss::summed_nll(&logits.main, &labels) / &valid;
    if let Some(deepsup) = &logits.deepsup {
        loss += segdist::loss::summed_nll(deepsup, &labels) * 0.4 / &valid;
    }
    (loss, logits.main, labels)
}

pub fn norm(tensor: &Tensor) -> f64 {
    tensor.to_kind(Kind::Double).norm().double_value(&[])
}

/// |a - b| relative to b.
pub fn difference(a: f64, b: f64) -> f64 {
    (a - b).abs() / b.abs().max(1e-30)
}
