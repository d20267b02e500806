//! Event files as TensorBoard reads them: of a real run, every scalar, every class and every picture. Where no python3 on
//! PATH has the package, the test says that it was skipped.

use crate::common::{events, run, samples, segdist, tiny};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Prints what TensorBoard finds below a folder: {"scalars": {tag: [[step, value]]}, "images": {tag: [step, width, height,
/// first bytes]}}.
const READ: &str = r#"
import json, sys
try: from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError: sys.exit(77)
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0}); events.Reload()
tags = events.Tags()
scalars = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]}
image = lambda e: [e.step, e.width, e.height, list(e.encoded_image_string[:4])]
print(json.dumps(dict(scalars=scalars, images={tag: image(events.Images(tag)[-1]) for tag in tags["images"]})))
"#;

/// What TensorBoard reads in `folder`; None where there is none.
fn read(folder: &Path) -> Option<Value> {
    let output = Command::new("python3").args(["-c", READ]).arg(folder).output().ok()?;
    if output.status.code() == Some(77) {
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("the script prints JSON"))
}

/// TensorBoard's (step, value), which it keeps as f32.
fn curve(scalars: &Value, tag: &str) -> Vec<(u64, f32)> {
    let points = scalars[tag].as_array().unwrap_or_else(|| panic!("no {tag}"));
    points.iter().map(|point| (point[0].as_u64().unwrap(), point[1].as_f64().unwrap() as f32)).collect()
}

/// The same of a field of the history's events of one kind.
fn history(dir: &Path, event: &str, field: &str) -> Vec<(u64, f32)> {
    let point = |line: &Value| (line["step"].as_u64().unwrap(), line[field].as_f64().unwrap() as f32);
    events(dir, event).iter().map(point).collect()
}

#[test]
fn tensorboard_reads_every_scalar_class_and_picture_of_a_real_run() {
    let folder = tempfile::tempdir().unwrap();
    let (data, dir) = (folder.path().join("data"), folder.path().join("run"));
    samples(&data, &[(48, 40), (40, 48), (48, 40)], 4, 1);
    let evaluated = ["TRAIN.num_epoch=2", "VAL.every_epochs=1"].map(String::from);
    run(segdist().args(tiny(&data, &dir, 3)).args(evaluated), 120).ok();
    let Some(found) = read(&dir.join("tensorboard")) else {
        eprintln!("skipped: no python3 with tensorboard on PATH");
        return;
    };
    let scalars = &found["scalars"];
    for (tag, event, field) in [
        ("train/loss", "train", "loss"),
        ("train/accuracy", "train", "acc"),
        ("train/lr_encoder", "train", "lr_encoder"),
        ("train/lr_decoder", "train", "lr_decoder"),
        ("train/images_per_s", "train", "images_per_s"),
        ("eval/mean_iou", "eval", "mean_iou"),
        ("eval/pixel_accuracy", "eval", "pixel_accuracy"),
        ("eval/mean_accuracy", "eval", "mean_accuracy"),
    ] {
        assert_eq!(curve(scalars, tag), history(&dir, event, field), "{tag}");
    }
    assert_eq!(curve(scalars, "train/loss").len(), 6);
    let summary: Value = serde_json::from_slice(&std::fs::read(dir.join("evaluation.json")).unwrap()).unwrap();
    for class in summary["per_class"].as_array().unwrap() {
        let iou = curve(scalars, &format!("iou/{}", class["name"].as_str().unwrap()));
        assert_eq!(iou[0].0, 3, "{class}");
        assert_eq!(iou[1..], [(6, class["iou"].as_f64().unwrap() as f32)], "{class}");
    }
    let pictures = found["images"].as_object().unwrap();
    assert_eq!(pictures.len(), 3, "{pictures:?}");
    for (tag, picture) in pictures {
        assert!(tag.starts_with("overlay/0000"), "{tag}");
        let wide = picture[1].as_i64().unwrap() > 3 * 40;
        assert!(picture[0] == 6 && wide && picture[3] == serde_json::json!(b"\x89PNG"), "{tag}: {picture}");
    }
}
