//! An encoder and a decoder that stand in no file of the program: a row each is all that a network takes.

use segdist::model::layers::{Context, Conv2d, ConvNorm, ConvShape, Local};
use segdist::model::path::Path;
use segdist::model::{
    BnRunning, Decoder, DecoderOptions, DecoderPlan, DecoderRow, EVALUATE, Encoder, EncoderPlan, EncoderRow,
};
use segdist::model::{
    EncoderOptions, FeatureMap, Initial, Logits, ModelConfig, ModelError, Needs, Network, Pass, shape,
};
use tch::{Device, Kind, Tensor};

/// Three convolutions, two feature maps.
struct ThreeConvolutions([ConvNorm; 3]);

impl Encoder for ThreeConvolutions {
    fn forward(&self, images: &Tensor, context: &Context) -> Vec<Tensor> {
        let [first, second, third] = &self.0;
        let finer = second.forward_relu(&first.forward_relu(images, context), context);
        let coarser = third.forward_relu(&finer, context);
        vec![finer, coarser]
    }
}

struct ThreePlan;

impl EncoderPlan for ThreePlan {
    fn maps(&self, _: &EncoderOptions) -> Vec<FeatureMap> {
        vec![FeatureMap { width: 12, stride: 4 }, FeatureMap { width: 16, stride: 8 }]
    }

    fn initial(&self) -> Initial {
        Initial::FanOut
    }

    fn build(&self, path: &Path, _: &EncoderOptions) -> Box<dyn Encoder> {
        let layer = |(number, inputs, outputs)| {
            let shape = ConvShape::new(inputs, outputs, 3).stride(2);
            ConvNorm::new(&(path / format!("conv{number}")), &(path / format!("bn{number}")), shape)
        };
        Box::new(ThreeConvolutions([(1, 3, 8), (2, 8, 12), (3, 12, 16)].map(layer)))
    }
}

/// Scores from both maps, added up on the finer one.
struct Sum([Conv2d; 2]);

impl Decoder for Sum {
    fn forward(&self, maps: &[Tensor], context: &Context) -> Logits {
        let finer = self.0[0].forward(&maps[0], context);
        let size = finer.size();
        let coarser = self.0[1].forward(&maps[1], context);
        Logits { main: finer + coarser.upsample_bilinear2d(&size[2..], false, None, None), deepsup: None }
    }
}

struct SumPlan;

impl DecoderPlan for SumPlan {
    fn needs(&self) -> Needs {
        Needs { words: "one map at stride 4 and one at stride 8", met_by: |maps| strides(maps) == [4, 8] }
    }

    fn output_stride(&self, maps: &[FeatureMap]) -> u32 {
        maps[0].stride
    }

    fn build(&self, path: &Path, maps: &[FeatureMap], options: &DecoderOptions) -> Box<dyn Decoder> {
        let layer =
            |i: usize| Conv2d::with_bias(&(path / "score" / i), ConvShape::new(maps[i].width, options.classes, 1));
        Box::new(Sum([layer(0), layer(1)]))
    }
}

fn strides(maps: &[FeatureMap]) -> Vec<u32> {
    maps.iter().map(|map| map.stride).collect()
}

const ENCODER: EncoderRow = EncoderRow { name: "three_convolutions", plan: &ThreePlan };
const DECODER: DecoderRow = DecoderRow { name: "sum", plan: &SumPlan };

fn network(encoder: &EncoderRow, decoder: &DecoderRow) -> Result<Network, ModelError> {
    Network::from_rows(encoder, decoder, &ModelConfig::default(), 5, Device::Cpu, 7)
}

/// A row of the program's own table.
fn known<Row: Copy>(rows: &[&[Row]], is_it: impl Fn(&Row) -> bool) -> Row {
    *rows.concat().iter().find(|row| is_it(row)).expect("the table holds it")
}

#[test]
fn a_network_of_parts_written_here_trains_and_evaluates() {
    let network = network(&ENCODER, &DECODER).unwrap();
    assert_eq!(network.store.variables[0].name, "encoder.conv1.weight");
    assert_eq!(network.store.variables.last().unwrap().name, "decoder.score.1.bias");
    let images = Tensor::randn([2, 3, 32, 48], (Kind::Float, Device::Cpu));
    let train = Pass { train: true, norm: &Local, dropout: None, deep_supervision: true };
    network.forward(&images, &train).main.log_softmax(1, Kind::Float).square().mean(Kind::Float).backward();
    assert!(network.store.variables[0].tensor.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0);
    network.commit_statistics(BnRunning::Debiased);
    let folded = network.for_inference(1).remove(0);
    let scores = |network: &Network| tch::no_grad(|| network.forward(&images, &EVALUATE).main);
    assert_eq!(scores(&network).size(), [2, 5, 8, 12]);
    assert!(scores(&folded).allclose(&scores(&network), 1e-4, 1e-5, false));
}

#[test]
fn parts_written_here_go_with_the_program_s_own() {
    let ppm = known(segdist::model::DECODERS, |row| row.name == "ppm");
    let images = Tensor::zeros([1, 3, 32, 32], (Kind::Float, Device::Cpu));
    let scores = network(&ENCODER, &ppm).unwrap().forward(&images, &EVALUATE).main;
    assert_eq!(scores.size(), [1, 5, 4, 4]);
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let resnet = known(segdist::model::ENCODERS, |row| row.name == "resnet18");
    let problem = network(&resnet, &DECODER).err().expect("four maps are not two").to_string();
    assert!(problem.contains("sum needs one map at stride 4 and one at stride 8"), "{problem}");
    assert!(problem.contains("4 (input pixels per pixel: 4, 8, 16, 32)"), "{problem}");
    let config =
        ModelConfig { arch_encoder: "hrnetv2".into(), arch_decoder: "upernet".into(), ..ModelConfig::default() };
    let problem = shape(&config).unwrap_err().to_string();
    assert!(problem.contains("upernet needs four feature maps, and the encoder hrnetv2 gives 1"), "{problem}");
    assert!(problem.contains("use c1, ppm") && problem.contains("or upernet after one of mobilenetv2"), "{problem}");
}
