//! How to train: sizes, network, steps and rates for this data on this machine.

use super::Choice;
use super::classes::Classes;
use super::split::Split;
use super::survey::Survey;
use std::path::Path;

/// Megapixels that a core trains on in a second with the small network (`segdist bench step` here).
const RATE: f64 = 0.045;

/// Seconds that training on a CPU may take.
const BUDGET: f64 = 150.0;

/// Images in a step: enough for batch statistics, few enough for small sets.
const BATCH: u32 = 8;

/// What differs between machines.
struct Machine {
    name: String,
    encoder: &'static str,
    decoder: &'static str,
    /// Largest short edge and side of a crop.
    short: u32,
    crop: u32,
    /// Steps for a crop of this side.
    steps: fn(cores: f64, images: usize, crop: u32) -> u64,
    cores: usize,
}

impl Machine {
    fn here() -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if Path::new("/dev/nvidia0").exists() {
            // Fifty passes, and at least what it takes from random values.
            let steps = |_, images, _| (50 * images as u64 / u64::from(BATCH)).clamp(2_000, 40_000);
            let (name, encoder, decoder) = ("a GPU".to_string(), "resnet50dilated", "ppm_deepsup");
            return Machine { name, encoder, decoder, short: 512, crop: 512, steps, cores };
        }
        let steps = |cores: f64, _, crop: u32| {
            let megapixels = f64::from(BATCH * crop * crop) / 1e6;
            ((BUDGET * RATE * cores / megapixels) as u64).clamp(120, 2_000)
        };
        let name = format!("{cores} CPU cores and no GPU");
        Machine { name, encoder: "resnet18dilated", decoder: "c1", short: 160, crop: 96, steps, cores }
    }
}

/// Every choice in the order of the file.
pub fn choose(survey: &Survey, classes: &Classes, split: &Split) -> Vec<Choice> {
    let machine = Machine::here();
    let [smallest, short, largest] = survey.edges(|(w, h)| w.min(h));
    let eight = |edge: u32| (edge / 8 * 8).max(8);
    let target = eight(short.clamp(96, machine.short));
    let crop = eight(target.min(machine.crop));
    let ratio = survey
        .sound
        .iter()
        .map(|sound| f64::from(sound.size.0.max(sound.size.1)) / f64::from(sound.size.0.min(sound.size.1)));
    let long = (f64::from(target) * ratio.fold(1.0, f64::max).min(4.0)).ceil() as u32;
    let steps = (machine.steps)(machine.cores as f64, split.training.len(), crop);
    let (epochs, choice) = (4, |key, value: String, why: String| Choice { key, value, why });
    let (here, passes) = (&machine.name, steps * u64::from(BATCH) / split.training.len().max(1) as u64);
    vec![
        choice("DATASET.num_class", classes.names.len().to_string(), "see the label map".into()),
        choice(
            "DATASET.imgSizes",
            format!("[{target}]"),
            format!("short edges are {smallest} to {largest} pixels, the median {short}; {here}: at most {}", machine.short),
        ),
        choice("DATASET.imgMaxSize", long.to_string(), "what that makes of the longest image's long edge".into()),
        choice("DATASET.crop", crop.to_string(), format!("side of a random square of each training image; {here}")),
        choice("DATASET.padding_constant", "8".into(), "the network's stride".into()),
        choice("DATASET.segm_downsampling_rate", "8".into(), "the network's stride".into()),
        choice("MODEL.arch_encoder", machine.encoder.into(), format!("fits {here}")),
        choice("MODEL.arch_decoder", machine.decoder.into(), format!("fits {here}")),
        choice(
            "MODEL.init",
            "random".into(),
            "no weights are needed; ImageNet's give more: put their file into a folder, name it in MODEL.pretrained_dir \
             and remove this line"
                .into(),
        ),
        choice("MODEL.bn_momentum", "0.05".into(), "a short run; the network's own 0.001 would remember its first values".into()),
        choice("TRAIN.global_batch", BATCH.to_string(), "images in a step, on any number of ranks".into()),
        choice("TRAIN.batch_size_per_gpu", BATCH.to_string(), "images at once on a rank; fewer need less memory".into()),
        choice("TRAIN.num_epoch", epochs.to_string(), format!("{steps} steps in all, {passes} passes; {here}")),
        choice("TRAIN.epoch_iters", (steps / epochs).to_string(), "steps between checkpoints".into()),
        choice("TRAIN.lr_encoder", "0.02".into(), format!("for steps of {BATCH} images from random values")),
        choice("TRAIN.lr_decoder", "0.02".into(), "as the encoder".into()),
        choice("TRAIN.workers", machine.cores.to_string(), format!("threads that read images: {} cores", machine.cores)),
        choice("TRAIN.disp_iter", "10".into(), "a line in the log every ten steps".into()),
        choice("VAL.every_epochs", "2".into(), "evaluations; the best checkpoint is kept".into()),
        choice("VAL.iou", "present".into(), "a class that does not occur does not count".into()),
    ]
}
