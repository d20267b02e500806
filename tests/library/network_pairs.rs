//! Every decoder over one encoder of every family: what fits gives scores of the promised size, for no image and for
//! several, each by itself.

use segdist::model::layers::{DropoutKey, Local};
use segdist::model::{DECODERS, EVALUATE, ModelConfig, Network, Pass, shape};
use tch::{Device, Kind, Tensor};

const FAMILIES: [&str; 7] =
    ["mobilenetv2dilated", "resnet18", "resnet50dilated", "mit_b0", "convnext_tiny", "dinov2_vits14", "dinov3_vits16"];

fn config(encoder: &str, decoder: &str) -> ModelConfig {
    ModelConfig { arch_encoder: encoder.into(), arch_decoder: decoder.into(), ..Default::default() }
}

fn images(count: i64, size: i64) -> Tensor {
    Tensor::randn([count, 3, size, size], (Kind::Float, Device::Cpu))
}

/// The pairs that fit, over one encoder of every family.
fn pairs() -> Vec<ModelConfig> {
    let decoders = DECODERS.concat();
    let pairs = FAMILIES.iter().flat_map(|encoder| decoders.iter().map(|row| config(encoder, row.name)));
    pairs.filter(|config| shape(config).is_ok()).collect()
}

#[test]
fn every_pair_that_fits_gives_scores_of_its_stride_and_none_for_no_image() {
    for config in pairs() {
        let name = format!("{} {}", config.arch_encoder, config.arch_decoder);
        let network = Network::blank(&config, 3, Device::Cpu).unwrap();
        let shape = shape(&config).unwrap();
        let side = 224 / i64::from(shape.output_stride);
        let logits = network.forward(&images(0, 224), &Pass { deep_supervision: true, ..EVALUATE });
        assert_eq!(logits.main.size(), [0, 3, side, side], "{name}");
        assert_eq!(logits.deepsup.is_some(), shape.deep_supervision, "{name}");
        // A rank without a batch goes backward with the others.
        logits.main.sum(Kind::Float).backward();
        let widths: Vec<i64> =
            network.feature_maps(&images(0, 64), &EVALUATE).iter().map(|map| map.size()[1]).collect();
        assert_eq!(widths, shape.widths, "{name}");
    }
}

#[test]
fn an_image_s_scores_do_not_depend_on_the_others_of_its_batch() {
    // 50 is no multiple of any patch or stride.
    let (first, second, other) = (images(1, 50), images(1, 50), images(1, 50));
    for config in pairs() {
        let network = Network::build(&config, 3, Device::Cpu, 5).unwrap();
        let scores = |images: &[&Tensor]| tch::no_grad(|| network.forward(&Tensor::cat(images, 0), &EVALUATE).main);
        let (beside_first, beside_other) = (scores(&[&first, &second]).get(1), scores(&[&other, &second]).get(1));
        let largest = (&beside_first - beside_other).abs().max().double_value(&[]);
        let scale = beside_first.abs().max().double_value(&[]);
        assert!(largest <= 1e-5 * scale, "{} {}: {largest}", config.arch_encoder, config.arch_decoder);
    }
}

#[test]
fn what_does_not_fit_names_what_would() {
    let problem = |encoder, decoder| shape(&config(encoder, decoder)).unwrap_err().to_string();
    let unet = problem("dinov2_vits14", "unet");
    assert!(unet.contains("unet needs one feature map at each of the strides 4, 8, 16 and 32"), "{unet}");
    assert!(unet.contains("linear") && unet.contains("mit_b0") && unet.contains("resnet50"), "{unet}");
    let deeplab = problem("mit_b0", "deeplabv3plus");
    assert!(deeplab.contains("a last one at 8 or 16") && deeplab.contains("resnet50dilated"), "{deeplab}");
    let drop_path = shape(&ModelConfig { drop_path: 1.0, ..config("mit_b0", "segformer") }).unwrap_err().to_string();
    assert!(drop_path.contains("MODEL.drop_path is 1"), "{drop_path}");
}

#[test]
fn dropped_paths_depend_on_the_image_s_place_in_the_global_batch_alone() {
    for encoder in ["mit_b0", "convnext_tiny", "dinov3_vits16"] {
        let config = ModelConfig { drop_path: 0.5, ..config(encoder, "linear") };
        let network = Network::build(&config, 3, Device::Cpu, 5).unwrap();
        // Branches begin with factors of 1e-6: make them count.
        let _guard = tch::no_grad_guard();
        for variable in &network.store.variables {
            if variable.tensor.dim() == 1 && variable.tensor.max().double_value(&[]) < 1e-4 {
                let _ = variable.tensor.shallow_clone().fill_(0.5);
            }
        }
        let maps = |images: &Tensor, step, first| {
            let dropout = Some(DropoutKey { seed: 3, step, first });
            let pass = Pass { train: true, norm: &Local, dropout, deep_supervision: false };
            network.feature_maps(images, &pass).pop().unwrap()
        };
        let batch = images(2, 64);
        let (together, alone) = (maps(&batch, 0, 4).get(1), maps(&batch.narrow(0, 1, 1), 0, 5).get(0));
        assert!(together.allclose(&alone, 1e-4, 1e-5, false), "{encoder}");
        let steps: Vec<Tensor> = (1..4).map(|step| maps(&batch, step, 4).get(1)).collect();
        assert!(steps.iter().any(|other| !other.allclose(&together, 1e-3, 1e-4, false)), "{encoder}: none is dropped");
    }
}
