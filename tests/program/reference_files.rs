//! The program on the reference's own files: trained from its weights as it trains, continued from its epochs,
//! evaluated and converted.

use crate::common::{Ended, events, losses, run, samples, segdist};
use crate::golden::{self, Run, difference, norm};
use segdist::data::batch::{MEAN, STD};
use segdist::model::Network;
use segdist::model::weights::{Part, read, write_pth};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use tch::{CModule, Device, Kind, Tensor};

const PAIR: (&str, &str) = ("resnet18dilated", "c1_deepsup");
const LIMIT: u64 = 120;

/// What trainer.py measured: 4 images of 64 × 48, learning rates 1e-3.
#[derive(Deserialize)]
struct Golden {
    plain: Run,
    debiased: Run,
    fix_bn: Vec<f64>,
}

/// A folder with the golden samples and the golden network as the reference would have saved it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        samples(&folder.path().join("data"), &[(64, 48); 4], golden::CLASSES as u8, 1);
        Place(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes encoder_END and decoder_END into a folder.
    fn weights(&self, folder: &str, end: &str) -> Network {
        let network = golden::network(PAIR.0, PAIR.1);
        fs::create_dir_all(self.path(folder)).unwrap();
        for part in [Part::Encoder, Part::Decoder] {
            let own = |name: &str| name.strip_prefix(part.prefix()).map(str::to_owned);
            let entries = network.store.variables.iter();
            let tensors: Vec<_> =
                entries.filter_map(|entry| Some((own(&entry.name)?, entry.tensor.detach()))).collect();
            let path = self.path(folder).join(format!("{}_{end}", part.name()));
            write_pth(&tensors, &mut fs::File::create(path).unwrap()).unwrap();
        }
        network
    }

    /// Runs a verb on the samples and this pair of networks.
    fn segdist(&self, verb: &[&str], more: &[(&str, &str)]) -> Ended {
        let (data, list) = (self.text("data"), self.text("data/list.odgt"));
        let classes = golden::CLASSES.to_string();
        let keys = [
            ("DATASET.root_dataset", data.as_str()),
            ("DATASET.list_train", &list),
            ("DATASET.list_val", &list),
            ("DATASET.num_class", &classes),
            ("DATASET.imgSizes", "(48,)"),
            ("DATASET.imgMaxSize", "64"),
            ("DATASET.random_flip", "False"),
            ("MODEL.arch_encoder", PAIR.0),
            ("MODEL.arch_decoder", PAIR.1),
            ("TRAIN.batch_size_per_gpu", "4"),
            ("TRAIN.num_epoch", "1"),
            ("TRAIN.lr_encoder", "1e-3"),
            ("TRAIN.lr_decoder", "1e-3"),
            ("TRAIN.disp_iter", "1"),
            ("TRAIN.workers", "1"),
        ];
        let mut command = segdist();
        command.args(verb).current_dir(self.0.path());
        command.args(keys.iter().chain(more).map(|(key, value)| format!("{key}={value}")));
        run(&mut command, LIMIT)
    }

    /// Trains from the pair `start/encoder.pth`, `start/decoder.pth` into the folder `run`.
    fn train(&self, steps: &str, more: &[(&str, &str)]) -> Vec<f64> {
        self.weights("start", "w.pth");
        let (encoder, decoder) = (self.text("start/encoder_w.pth"), self.text("start/decoder_w.pth"));
        let dir = self.text("run");
        let own = [
            ("MODEL.weights_encoder", encoder.as_str()),
            ("MODEL.weights_decoder", &decoder),
            ("TRAIN.epoch_iters", steps),
            ("DIR", &dir),
        ];
        self.segdist(&["train"], &[&own[..], more].concat()).ok();
        losses(&self.path("run"))
    }
}

fn assert_close(own: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(own.len(), expected.len());
    let close = own.iter().zip(expected).all(|(own, expected)| difference(*own, *expected) < tolerance);
    assert!(close, "{own:?}\n{expected:?}");
}

fn two_steps(rule: &str, expected: &Run) -> Place {
    let place = Place::new();
    let reference = [("MODEL.bn_running", rule), ("MODEL.bn_recalibrate", "0")];
    assert_close(&place.train("2", &reference), &expected.losses, 1e-5);
    let saved = read(&place.path("run/checkpoints/step-00000002")).unwrap();
    let value = |name: &str| norm(&saved.iter().find(|(saved, _)| saved == name).unwrap().1);
    let order = golden::network(PAIR.0, PAIR.1);
    let layers = order.store.variables.iter().filter_map(|entry| entry.name.strip_suffix(".running_mean"));
    let (mut own, mut golden) = (Vec::new(), Vec::new());
    for (layer, expected) in layers.zip(&expected.statistics) {
        own.extend([value(&format!("{layer}.running_mean")), value(&format!("{layer}.running_var"))]);
        golden.extend(expected);
    }
    assert_eq!(golden.len(), 2 * expected.statistics.len());
    assert_close(&own, &golden, 1e-5);
    place
}

#[test]
fn two_steps_leave_the_running_statistics_of_the_references_single_process() {
    two_steps("plain", &golden::read::<Golden>("trainer.json").plain);
}

#[test]
fn two_steps_leave_the_running_statistics_of_the_references_many_gpus_and_a_pair_for_it_to_read() {
    let place = two_steps("debiased", &golden::read::<Golden>("trainer.json").debiased);
    let checkpoint = place.text("run/checkpoints/step-00000002");
    run(segdist().args(["convert", &checkpoint, &place.text("pair/epoch_1.pth")]), LIMIT).ok();
    let saved = read(Path::new(&checkpoint)).unwrap();
    let mut count = 0;
    for part in [Part::Encoder, Part::Decoder] {
        for (name, tensor) in read(&place.path(&format!("pair/{}_epoch_1.pth", part.name()))).unwrap() {
            let name = format!("{}{name}", part.prefix());
            assert!(tensor.equal(&saved.iter().find(|(saved, _)| *saved == name).unwrap().1), "{name}");
            count += 1;
        }
    }
    assert_eq!(count, saved.len());
}

#[test]
fn ten_steps_with_fixed_statistics_have_the_references_losses() {
    let expected = golden::read::<Golden>("trainer.json").fix_bn;
    assert_close(&Place::new().train("10", &[("TRAIN.fix_bn", "True")]), &expected, 1e-4);
}

#[test]
fn an_epoch_of_the_reference_is_continued_where_its_schedule_stands() {
    let place = Place::new();
    place.weights("run", "epoch_2.pth");
    let dir = place.text("run");
    let keys = [("TRAIN.num_epoch", "3"), ("TRAIN.epoch_iters", "1"), ("DIR", dir.as_str())];
    let start = |epoch| place.segdist(&["train"], &[&keys[..], &[("TRAIN.start_epoch", epoch)][..]].concat());

    let refused = start("1");
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(refused.stderr.contains("encoder_epoch_1.pth"), "{}", refused.stderr);

    start("2").ok();
    let events = events(&place.path("run"), "train");
    let (step, lr) = (events[0]["step"].as_u64(), events[0]["lr_encoder"].as_f64().unwrap());
    assert_eq!((events.len(), step), (1, Some(3)));
    assert!(difference(lr, 1e-3 * (1.0f64 - 2.0 / 3.0).powf(0.9)) < 1e-12, "{lr}");
    let first = golden::read::<Golden>("trainer.json").plain.losses[0];
    assert_close(&losses(&place.path("run")), &[first], 1e-5);
}

#[test]
fn the_pair_that_val_checkpoint_names_in_dir_is_evaluated() {
    let place = Place::new();
    place.weights("epochs", "epoch_7.pth");
    place.weights("start", "w.pth");
    let (dir, nothing) = (place.text("epochs"), place.text("nothing"));
    let (encoder, decoder) = (place.text("start/encoder_w.pth"), place.text("start/decoder_w.pth"));
    let by_name = place.segdist(&["eval", "--json"], &[("DIR", &dir), ("VAL.checkpoint", "epoch_7.pth")]).ok();
    assert!(by_name.stderr.contains("decoder_epoch_7.pth"), "{}", by_name.stderr);
    let keys = [("DIR", nothing.as_str()), ("MODEL.weights_encoder", &encoder), ("MODEL.weights_decoder", &decoder)];
    let by_key = place.segdist(&["eval", "--json"], &keys).ok();
    let result = |ended: &Ended| -> serde_json::Value { serde_json::from_str(&ended.stdout).unwrap() };
    let (by_name, by_key) = (result(&by_name), result(&by_key));
    for field in ["mean_iou", "pixel_accuracy", "per_class"] {
        assert_eq!(by_name[field], by_key[field], "{field}");
    }
    assert!(by_name["pixel_accuracy"].as_f64().unwrap() > 0.0);
    assert_eq!(place.segdist(&["eval"], &[("DIR", &dir), ("VAL.checkpoint", "epoch_8.pth")]).code, 2);
}

#[test]
fn an_exported_module_gives_the_networks_probabilities_for_any_number_of_images() {
    let place = Place::new();
    let network = place.weights("start", "w.pth");
    let output = place.text("network.pt");
    let words = ["start/encoder_w.pth", "start/decoder_w.pth", &output];
    place.segdist(&[&["convert", "--to", "torchscript"][..], &words[..]].concat(), &[]).ok();
    let module = CModule::load(&output).unwrap();
    for count in [1, 3] {
        let images = Tensor::randn([count, 3, 48, 64], (Kind::Float, Device::Cpu));
        let (own, exported) = tch::no_grad(|| {
            let logits = network.forward(&images, &golden::pass(false)).main;
            let own = logits.upsample_bilinear2d([48, 64], false, None, None).softmax(1, Kind::Float);
            (own, module.forward_ts(&[&images]).unwrap())
        });
        let worst = (own - exported).abs().max().double_value(&[]);
        assert!(worst < 1e-6, "{count} images: {worst}");
    }
    let [mean, std] = [MEAN, STD].map(|values| Tensor::from_slice(&values).view([1, 3, 1, 1]));
    let pixels = Tensor::randint(256, [2, 3, 48, 64], (Kind::Uint8, Device::Cpu));
    let by_module = module.forward_ts(&[&pixels]).unwrap();
    let by_hand = module.forward_ts(&[(pixels.to_kind(Kind::Float) / 255 - mean) / std]).unwrap();
    assert!((by_module - by_hand).abs().max().double_value(&[]) < 1e-6);
    let larger = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
    let refusal = module.forward_ts(&[larger]).unwrap_err().to_string();
    assert!(refusal.contains("images must be (n, 3, 48, 64)"), "{refusal}");
}

#[test]
fn torchscript_is_told_by_the_ending_and_asks_for_its_network() {
    let place = Place::new();
    place.weights("start", "w.pth");
    let words = ["start/encoder_w.pth", "start/decoder_w.pth"];
    for (output, to) in [("net.torchscript", None), ("net.pt", Some("torchscript"))] {
        let mut command = segdist();
        command.arg("convert").args(words).arg(output).current_dir(place.0.path());
        let ended = run(command.args(to.map(|to| ["--to", to]).into_iter().flatten()), LIMIT);
        assert!(ended.code == 2 && ended.stderr.contains("give --cfg"), "{}", ended.all());
    }
    let output = place.text("net.torchscript");
    place.segdist(&[&["convert"][..], &words, &[output.as_str()]].concat(), &[]).ok();
    assert!(Path::new(&output).is_file());
}

#[test]
fn the_resolved_configuration_says_what_its_network_costs() {
    let shown = Place::new().segdist(&["config"], &[]).ok().stdout;
    for line in ["#   output_stride: 8", "#   widths: [64, 128, 256, 512]", "one image of 48 x 64"] {
        assert!(shown.contains(line), "{shown}");
    }
    let number = |key: &str| -> u64 {
        let line = shown.lines().find(|line| line.contains(key)).unwrap();
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    };
    assert!(number("parameters:") > 10_000_000 && number("multiply_adds:") > 100_000_000, "{shown}");
    segdist::config::Config::parse(&shown).unwrap();
}

#[test]
fn a_file_that_would_run_a_command_is_refused_by_that_name_and_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights");
    let convert = |file: &str| {
        let mut command = segdist();
        run(command.arg("convert").arg(weights.join(file)).arg("out.safetensors").current_dir(folder.path()), LIMIT)
    };
    for file in ["hostile.zip.pth", "hostile.stream.pth"] {
        let ended = convert(file);
        assert_eq!(ended.code, 2, "{}", ended.all());
        assert!(ended.stderr.contains("os.system"), "{}", ended.stderr);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    for file in ["plain.zip.pth", "plain.stream.pth"] {
        convert(file).ok();
        assert!(folder.path().join("out.safetensors").is_file());
    }
}
