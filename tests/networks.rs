//! The networks are the reference's: the same tensors, the same numbers.

use segdist::model::layers::{DropoutKey, Local, Role};
use segdist::model::{BnRunning, ModelConfig, Network, Pass, shape};
use tch::{Device, Kind, Tensor};

fn config(encoder: &str, decoder: &str) -> ModelConfig {
    ModelConfig { arch_encoder: encoder.into(), arch_decoder: decoder.into(), ..Default::default() }
}

fn training() -> Pass<'static> {
    let dropout = Some(DropoutKey { seed: 1, step: 0, first: 0 });
    Pass { train: true, norm: &Local, dropout, deep_supervision: true }
}

#[test]
fn a_training_pass_reaches_every_parameter_and_records_statistics() {
    for decoder in ["c1", "c1_deepsup", "ppm", "ppm_deepsup"] {
        let network = Network::build(&config("resnet18dilated", decoder), 5, Device::Cpu, 3).unwrap();
        let images = Tensor::randn([2, 3, 48, 64], (Kind::Float, Device::Cpu));
        let logits = network.forward(&images, &training());
        assert_eq!(logits.main.size(), [2, 5, 6, 8]);
        let mut loss = logits.main.log_softmax(1, Kind::Float).square().mean(Kind::Float);
        if let Some(deepsup) = &logits.deepsup {
            assert_eq!(deepsup.size(), [2, 5, 6, 8]);
            loss += deepsup.log_softmax(1, Kind::Float).square().mean(Kind::Float);
        }
        loss.backward();
        for entry in network.store.entries.iter().filter(|entry| entry.role != Role::Buffer) {
            assert!(entry.tensor.grad().defined(), "{} has no gradient with {decoder}", entry.name);
        }
        network.commit_statistics(BnRunning::Debiased);
        for entry in network.store.entries.iter().filter(|entry| entry.name.ends_with("running_iter")) {
            assert!((entry.tensor.double_value(&[0]) - 1.999).abs() < 1e-6, "{}", entry.name);
        }
    }
}

#[test]
fn unknown_names_and_misfits_are_refused_by_name() {
    let message = |encoder, decoder| shape(&config(encoder, decoder)).unwrap_err().to_string();
    assert!(message("resnet50dilatd", "c1").contains("did you mean \"resnet50dilated\""));
    assert!(message("resnet50", "pmm").contains("did you mean \"ppm\""));
    let wide = ModelConfig { fc_dim: 2048, ..config("resnet18dilated", "c1") };
    assert!(shape(&wide).unwrap_err().to_string().contains("512"));
}
