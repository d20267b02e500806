//! A hundred mistakes: each ends with code 2 and one line that names the file or key, the cause, and what to do.

use crate::common::{Ended, run, samples, segdist, tiny};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is typed after `segdist`, what the line names, and words of its advice. `@` stands for `--cfg ok.yaml`, `''` for
/// an empty word; all paths lie in the folder of [`prepare`].
type Row = (&'static str, &'static str, &'static str);

const COMMAND_LINE: &[Row] = &[
    ("frobnicate", "no verb frobnicate", "segdist --help"),
    ("trian @", "no verb trian", "did you mean train?"),
    ("ok.yaml", "ok.yaml: is no verb", "--cfg ok.yaml"),
    ("--config ok.yaml", "no --config", "segdist train --help"),
    ("@ --resum none", "no --resum", "did you mean --resume?"),
    ("--cfg", "--cfg <FILE>", "a value is required"),
    ("train ok.yaml", "ok.yaml", "KEY VALUE or KEY=VALUE"),
    ("config @ TRAIN.seed", "TRAIN.seed", "KEY VALUE or KEY=VALUE"),
    ("bench", "<WHAT>", "must be given"),
    ("bench stepp", "'stepp'", "did you mean step?"),
    ("plan @", "--ranks", "must be given"),
    ("plan @ --ranks two", "--ranks", "it is not a whole number"),
    ("plan @ --ranks 0", "--ranks is 0", "give 1 …"),
    ("plan @ --ranks 2 DATASET.list_train nowhere", "DATASET.list_train: nowhere", "IMAGES:LABELS"),
    ("doctor nonsense", "no nonsense", "segdist doctor --help"),
    ("verify", "<DIR>", "must be given"),
    ("report run", "--out", "must be given"),
    ("demo-data", "--out", "must be given"),
    ("predict @ --out o", "<PATH>...", "must be given"),
    ("convert encoder_w.pth", "only 1 was provided", "segdist convert --help"),
];

const CONFIGURATION: &[Row] = &[
    ("config --cfg nowhere.yaml", "nowhere.yaml", "name a configuration by --cfg"),
    ("config --cfg empty", "empty: cannot be read", "name a configuration"),
    ("config --cfg tab.yaml", "tab.yaml", "line 2 begins with a tab: YAML is indented by spaces"),
    ("config --cfg blank.yaml", "blank.yaml", "sections such as DATASET"),
    ("config --cfg list.yaml", "list.yaml", "sections such as DATASET"),
    ("config --cfg text.txt", "text.txt", "sections such as DATASET"),
    ("config --cfg data/0.png", "data/0.png", "name a YAML file"),
    ("config --cfg typo.yaml", "typo.yaml", "the nearest known key is TRAIN"),
    ("config @ nonsense", "nonsense", "KEY VALUE or KEY=VALUE"),
    ("config @ TRAIN.lr 0.1", "TRAIN.lr;", "TRAIN.lr_encoder or TRAIN.lr_decoder"),
    ("config @ TRIAN.seed 1", "TRIAN.seed", "TRAIN.seed"),
    ("config @ num_epoch 3", "num_epoch", "TRAIN.num_epoch"),
    ("config @ MODEL.imgSizes 3", "MODEL.imgSizes", "DATASET.imgSizes"),
    ("config @ TRAIN.num_epoch ten", "TRAIN.num_epoch", "not a whole number, 0 or more"),
    ("config @ TRAIN.num_epoch 1.5", "TRAIN.num_epoch", "not a whole number"),
    ("config @ TRAIN.num_epoch -3", "TRAIN.num_epoch", "0 or more"),
    ("config @ TRAIN.num_epoch 0", "TRAIN.num_epoch", "at least 1"),
    ("config @ TRAIN.optim Adam", "TRAIN.optim", "one of SGD, AdamW"),
    ("config @ TRAIN.amp fp32", "TRAIN.amp", "one of off, bf16, fp16"),
    ("config @ TRAIN.schedule linear", "TRAIN.schedule", "one of poly, cosine, constant"),
    ("config @ TRAIN.beta1 1.0", "TRAIN.beta1", "set it to 0"),
    ("config @ TRAIN.lr_encoder -1", "TRAIN.lr_encoder", "set it to 0 or more"),
    ("config @ TRAIN.lr_encoder fast", "TRAIN.lr_encoder", "is not a number"),
    ("config @ TRAIN.loss_scale 3", "TRAIN.loss_scale", "a power of two, such as"),
    ("config @ TRAIN.fix_bn maybe", "TRAIN.fix_bn", "not True or False"),
    ("config @ TRAIN.batch_size_per_gpu 0", "TRAIN.batch_size_per_gpu", "set it to 1"),
    ("config @ TRAIN.start_epoch 5", "TRAIN.start_epoch", "at most TRAIN.num_epoch"),
    ("config @ TRAIN.disp_iter 0", "TRAIN.disp_iter", "at least 1"),
    ("config @ TRAIN.padding_label 7", "TRAIN.padding_label", "-1 (ignored) or a class"),
    ("config @ TRAIN.warmup_factor 2", "TRAIN.warmup_factor", "set it to 0"),
    ("config @ DATASET.imgSizes ()", "DATASET.imgSizes", "such as (300, 375, 450)"),
    ("config @ DATASET.imgSizes (a,b)", "DATASET.imgSizes", "not a list of numbers, such as"),
    ("config @ DATASET.imgSizes (100,)", "DATASET.imgMaxSize is 64", "set it to 100 or more"),
    ("config @ DATASET.num_class 256", "DATASET.num_class", "set it to 1 … 255"),
    ("config @ DATASET.padding_constant 12", "DATASET.padding_constant", "a multiple of"),
    ("config @ DATASET.crop 33", "DATASET.crop", "a multiple of DATASET.padding_constant"),
    ("config @ DATASET.scale_jitter 2", "DATASET.scale_jitter: (2)", "a list of numbers"),
    ("config @ DATASET.scale_jitter (2,1)", "DATASET.scale_jitter", "such as [0.5, 2.0]"),
    ("config @ DATASET.color_jitter 3", "DATASET.color_jitter", "set it to 0 … 1"),
    ("config @ DATASET.order random", "DATASET.order", "one of balanced, shuffled"),
    ("config @ DATASET.segm_downsampling_rate 4", "DATASET.segm_downsampling_rate", "set it to 8"),
    ("config @ MODEL.arch_encoder resnet52", "MODEL.arch_encoder", "did you mean \"resnet50\"?"),
    ("config @ MODEL.arch_decoder pmm", "MODEL.arch_decoder", "did you mean \"ppm\"?"),
    ("config @ MODEL.arch_decoder upernet", "DATASET.segm_downsampling_rate", "set it to 4"),
    ("config @ MODEL.fc_dim 100", "MODEL.fc_dim", "set it to that, or to 0"),
    ("config @ MODEL.drop_path 1.5", "MODEL.drop_path", "less than 1"),
    ("config @ MODEL.bn_momentum 0", "MODEL.bn_momentum", "more than 0"),
    ("config @ MODEL.stem plane", "MODEL.stem", "one of deep, plain"),
    ("config @ VAL.batch_size 0", "VAL.batch_size", "set it to 1"),
    ("config @ VAL.iou mean", "VAL.iou", "one of reference, present"),
    ("config @ VAL.window 100000", "VAL.window", "at most 65536"),
    ("config @ DIST.transport ib", "DIST.transport", "one of auto, host"),
    ("config @ DIST.stall_timeout_s 0", "DIST.stall_timeout_s", "more than 0"),
    ("config @ CHECKPOINT.keep_last 0", "CHECKPOINT.keep_last", "at least one"),
    ("config @ CHECKPOINT.every_steps -1", "CHECKPOINT.every_steps", "0 or more"),
    ("config @ DIR ''", "DIR is empty", "name the folder"),
];

const TRAINING: &[Row] = &[
    ("@ DATASET.list_train nowhere.odgt", "DATASET.list_train: nowhere.odgt", "No such file"),
    ("@ DATASET.list_train ''", "DATASET.list_train", "an odgt list (.odgt, .odgt.gz)"),
    ("@ DATASET.list_train text.txt", "text.txt", "a folder of shards (with index.json)"),
    ("@ DATASET.list_train empty", "empty/index.json", "the one that segdist pack wrote"),
    ("@ DATASET.list_train a:b", "data/a", "DATASET.root_dataset, data"),
    ("@ DATASET.list_val nowhere", "DATASET.list_val: nowhere", "IMAGES:LABELS"),
    ("@ DATASET.root_dataset nowhere", ".png: cannot be read", "DATASET.root_dataset, nowhere"),
    ("@ DATASET.num_class 2", "DATASET.num_class, 2", "set that, or say what values mean in DATASET.label_map"),
    ("@ DATASET.label_map nowhere.yaml", "nowhere.yaml", "cannot be read"),
    ("@ DATASET.label_map text.txt", "text.txt", "a YAML mapping of label values to classes"),
    ("@ MODEL.init pretrained", "MODEL.pretrained_dir", "MODEL.init to random"),
    ("@ MODEL.init pretrained MODEL.pretrained_dir empty", "empty/resnet18-imagenet.pth", "MODEL.init to random"),
    ("@ MODEL.weights_encoder nowhere.pth", "MODEL.weights_encoder: nowhere.pth", "give a .pth or .safetensors file"),
    ("@ MODEL.weights_encoder ok.yaml", "ok.yaml", "text, no file of weights; give a .pth"),
    ("@ MODEL.weights_encoder data/0.png", "data/0.png", "no file of weights; give a .pth"),
    ("@ MODEL.weights_encoder empty", "empty", "model.safetensors"),
    ("@ MODEL.weights_encoder decoder_w.pth", "decoder_w.pth", "it is the decoder of c1"),
    ("@ MODEL.weights_encoder encoder_w.pth MODEL.arch_encoder resnet50dilated", "encoder_w.pth", "resnet18dilated"),
    ("@ MODEL.weights_decoder decoder_w.pth MODEL.arch_decoder ppm", "decoder_w.pth", "set MODEL.arch_decoder"),
    ("@ MODEL.weights_decoder decoder_w.pth DATASET.num_class 6", "decoder_w.pth", "DATASET.num_class"),
    ("@ TRAIN.start_epoch 1", "TRAIN.start_epoch 1", "encoder_epoch_1.pth"),
    ("@ DIR text.txt", "DIR text.txt", "name the folder of the run"),
    ("@ DIR text.txt/run", "DIR text.txt/run", "Not a directory"),
    ("@ --resume nowhere", "--resume nowhere", "--init-from"),
    ("@ DIR run TRAIN.seed 9", "TRAIN.seed", "--resume none"),
    ("@ DIST.device cuda DIST.trace no/t.json", "DIST.device cuda", "set DIST.device auto"),
    (
        "@ MODEL.arch_encoder mit_b0 MODEL.arch_decoder segformer DATASET.segm_downsampling_rate 4 DATASET.imgSizes (8,)",
        "DATASET.imgSizes",
        "too small for this network",
    ),
];

const EVALUATION: &[Row] = &[
    ("eval @ DIR empty", "empty holds neither a checkpoint", "set DIR, --checkpoint, or MODEL.weights_encoder"),
    ("eval @ --checkpoint nowhere", "--checkpoint nowhere", "neither latest, best nor weights"),
    ("eval @ DIR empty --checkpoint latest", "empty holds no checkpoint", "--checkpoint latest"),
    ("eval @ --checkpoint weights", "--checkpoint weights", "set MODEL.weights_encoder and MODEL.weights_decoder"),
    ("eval @ DIR run --checkpoint decoder_w.pth", "decoder_w.pth", "MODEL.weights_decoder"),
    ("eval @ DIR run MODEL.arch_encoder resnet50dilated", "step-00000001", "set MODEL.arch_encoder"),
    ("eval @ DIR run DATASET.num_class 6", "step-00000001", "set DATASET.num_class"),
    ("eval @ DIR run DATASET.list_val ''", "DATASET.list_val is empty", "name the images"),
    ("eval @ DIR run VAL.window 100", "VAL.window is 100", "a multiple of DATASET.padding_constant"),
    ("eval @ DIR run --csv text.txt/x.csv", "text.txt/x.csv", "name a place that can be"),
    ("predict @ DIR run --out o nowhere.jpg", "nowhere.jpg", "no such image or folder"),
    ("predict @ DIR run --out o empty", "empty", "images are .jpg"),
    ("predict @ DIR run --out text.txt data/0.png", "text.txt", "name a place that can be"),
    ("predict @ DIR run --out o data/0.png TRAIN.sede 3", "TRAIN.sede", "TRAIN.seed"),
];

const DATA: &[Row] = &[
    ("pack --out x", "nothing to pack", "give --images and --labels"),
    ("pack --odgt data/list.odgt --out x", "--root", "must be given"),
    ("pack --odgt nowhere.odgt --root data --out x", "nowhere.odgt", "cannot be read"),
    ("pack --odgt text.odgt --root data --out x", "text.odgt line 1", "fpath_img, fpath_segm, width, height"),
    ("pack --odgt other.odgt --root data --out x", "data/nowhere.png", "--root, data"),
    ("pack --odgt size.odgt --root data --out x", "data/0.png: is 48 x 32 pixels", "the list says 10 x 10"),
    ("pack --odgt blank.odgt --root data --out x", "blank.odgt", "holds no samples"),
    ("pack --odgt data/list.odgt --root nowhere --out x", "nowhere/0.png", "--root, nowhere"),
    ("pack --odgt data/list.odgt --root data --out text.txt", "text.txt", "name a place that can be"),
    ("pack --odgt data/list.odgt --root data --out set", "set: holds a packed set already", "--force"),
    ("pack --odgt data/list.odgt --root data --out x --num-class 2", "label.png", "above the number of classes, 2"),
    ("pack --odgt data/list.odgt --root data --out x --num-class two", "--num-class", "not a whole number"),
    ("pack --odgt data/list.odgt --root data --out x --nearest-color 3", "--nearest-color", "give --label-map"),
    ("pack --odgt data/list.odgt --root data --out x --threads 100000", "--threads", "at most 4096"),
    ("pack --odgt data/list.odgt --root data --out x --label-map class.yaml", "class.yaml: maps 1", "a class index"),
    ("pack --odgt data/list.odgt --root data --out x --label-map value.yaml", "value.yaml", "from 0 to 65535"),
    ("pack --images empty --labels empty --out x", "empty: holds no images", "images are .jpg"),
    ("pack --images texts --labels texts --out x", "1 .txt files", "images are .jpg"),
    ("pack --images data --labels empty --out x", "data/0.png: has no label map", "expected it at empty/0.png"),
    ("pack --images data --coco text.txt --out x", "text.txt", "no COCO file"),
    ("pack --images data --coco text.txt --background sky --out x", "--background is 'sky'", "the index of a class"),
    ("pack --layout nope --root data --out x", "'nope'", "ade20k, cityscapes"),
    ("pack --layout camvid --root data --out x", "data/train/images", "--root, data"),
    ("init --out i.yaml", "nothing to look at", "give --images and --labels"),
    ("init --images data --labels empty --out i.yaml", "0.png", "no image has a sound label"),
    ("init --images data --labels data --out ok.yaml", "ok.yaml: is there already", "--force"),
    ("init --odgt data/list.odgt --out text.txt/i.yaml", "text.txt", "name a place that can be"),
    ("init --coco text.txt --out i.yaml", "--images", "must be given"),
    ("verify nowhere", "nowhere/index.json", "not a packed set"),
    ("verify text.txt", "text.txt/index.json", "the one that segdist pack wrote"),
    ("demo-data --out text.txt", "text.txt", "name a folder"),
    ("demo-data --out text.txt/x", "text.txt/x", "name a place that can be"),
];

const RESULTS: &[Row] = &[
    ("watch text.txt", "text.txt/metrics.jsonl", "name a run's DIR"),
    ("report empty --out r.html", "empty/metrics.jsonl", "name a run's DIR"),
    ("report run --out text.txt/r.html", "text.txt/r.html", "name a place that can be"),
    ("report run --out empty", "empty: cannot be written", "name a place that can be"),
    ("convert nowhere.pth x.pth", "nowhere.pth", "give a .pth or .safetensors file"),
    ("convert ok.yaml x.pth", "ok.yaml", "text, no file of weights"),
    ("convert encoder_w.pth x.pth --to onnx", "--to onnx", "use pth, safetensors"),
    ("convert encoder_w.pth x.onnx", "x.onnx", "use .pth, .safetensors, .torchscript"),
    ("convert encoder_w.pth decoder_w.pth x.torchscript", "x.torchscript", "give --cfg FILE"),
    ("convert encoder_w.pth encoder_w.pth x.pth", "encoder_w.pth", "name one encoder and one decoder"),
    ("convert encoder_w.pth decoder_w.pth text.txt/x.pth", "text.txt/encoder_x.pth", "name a place that can be"),
    (
        "convert encoder_w.pth decoder_w.pth x.pt @ MODEL.arch_encoder resnet50dilated",
        "encoder_w.pth",
        "set MODEL.arch",
    ),
    ("convert encoder_w.pth x.pth --to hf", "have no name there", "transformers takes"),
    ("bench loader @ DATASET.list_train nowhere", "DATASET.list_train: nowhere", "IMAGES:LABELS"),
    ("bench step @ MODEL.arch_encoder nope", "MODEL.arch_encoder", "did you mean"),
];

/// The folder that the rows are typed in.
fn prepare(folder: &Path) {
    let list = samples(&folder.join("data"), &[(48, 32), (32, 48)], 4, 1);
    let keys = tiny(Path::new("data"), Path::new("new"), 1);
    let yaml = |line: &String| {
        let (key, value) = line.split_once('=').unwrap();
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        (section.to_owned(), format!("{name}: {value}\n"))
    };
    let mut text = String::new();
    for section in ["DATASET", "MODEL", "TRAIN"] {
        text += &format!("{section}:\n");
        keys.iter().map(yaml).filter(|(own, _)| own == section).for_each(|(_, line)| text += &format!("  {line}"));
    }
    text = text.replace("c1_deepsup", "c1");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("ok.yaml", &text);
    write("text.txt", "hello\n");
    write("text.odgt", "hello\n");
    write("blank.odgt", "\n");
    write("blank.yaml", "");
    write("list.yaml", "- 1\n");
    write("tab.yaml", "TRAIN:\n\tseed: 1\n");
    write("typo.yaml", "TRIAN:\n  seed: 1\n");
    write("class.yaml", "1: two\n");
    write("value.yaml", "400000: 1\n");
    let sample = |image: &str, label: &str| {
        format!("{{\"fpath_img\": \"{image}\", \"fpath_segm\": \"{label}\", \"width\": 10, \"height\": 10}}\n")
    };
    write("other.odgt", &sample("nowhere.png", "nowhere.png"));
    write("size.odgt", &sample("0.png", "0_label.png"));
    fs::create_dir(folder.join("empty")).unwrap();
    fs::create_dir(folder.join("texts")).unwrap();
    write("texts/a.txt", "hello\n");
    typed(folder, "@ DIR run").ok();
    typed(folder, "convert run/checkpoints/step-00000001 w.pth").ok();
    typed(folder, &format!("pack --odgt {} --root data --out set", list.display())).ok();
}

fn typed(folder: &Path, words: &str) -> Ended {
    let words = words.replace('@', "--cfg ok.yaml");
    let words = words.split(' ').map(|word| if word == "''" { "" } else { word });
    run(segdist().args(words).current_dir(folder).env("RUST_BACKTRACE", "1"), 120)
}

/// What is wrong with the answer to a row.
fn fault(folder: &Path, number: usize, &(words, names, advises): &Row) -> Option<String> {
    // Two jobs may not train in one DIR.
    let trains = words.starts_with('@') && !words.contains(" DIR ");
    let ended = typed(folder, &if trains { format!("{words} DIR=run-{number}") } else { words.into() });
    let lines = ended.errors();
    let good = |line: &str| line.len() <= 300 && line.contains(names) && line.contains(advises);
    let own_places =
        ["panicked", "frame #", "stack backtrace", ".rs:", ".cpp:"].iter().any(|word| ended.stderr.contains(word));
    let answered = ended.code == 2 && lines.len() == 1 && good(lines[0]) && !own_places;
    (!answered).then(|| format!("segdist {words}\n    wanted `{names}` and `{advises}`: {}", ended.all()))
}

#[test]
fn a_hundred_mistakes_are_answered_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let rows: Vec<&Row> =
        [COMMAND_LINE, CONFIGURATION, TRAINING, EVALUATION, DATA, RESULTS].into_iter().flatten().collect();
    assert!(rows.len() > 100);
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(number) else { return };
                    faults.lock().unwrap().extend(fault(folder.path(), number, row));
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} of {} mistakes:\n{}", faults.len(), rows.len(), faults.join("\n"));
}
