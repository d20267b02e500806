//! A run that an earlier version began is continued by this one, to what that version would have made of it.

use crate::common::{events, losses, run, segdist};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const STEP: &str = "checkpoints/step-00000002";

/// The run of version 0.1 after two of its four steps, unpacked in a folder of its own, from which its paths start.
fn begun_by_version_0_1() -> tempfile::TempDir {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-0.1");
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| fs::copy(fixture.join(name), folder.path().join(name)).unwrap();
    fs::create_dir_all(folder.path().join("run").join(STEP)).unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    for name in ["run/config.yaml", "run/metrics.jsonl", "data/list.odgt", &format!("run/{STEP}/state.json")] {
        copy(name);
    }
    for index in 0..3 {
        copy(&format!("data/{index}.png"));
        copy(&format!("data/{index}_label.png"));
    }
    for name in ["model", "optimizer"] {
        let packed = fs::read(fixture.join(format!("run/{STEP}/{name}.safetensors.zst"))).unwrap();
        let tensors = zstd::stream::decode_all(&packed[..]).unwrap();
        fs::write(folder.path().join(format!("run/{STEP}/{name}.safetensors")), tensors).unwrap();
    }
    folder
}

/// What version 0.1 logged of the other two steps.
fn rest() -> Vec<Value> {
    let text = include_str!("../fixtures/version-0.1/rest.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_begun_by_version_0_1_ends_as_it_would_have_ended_there() {
    let folder = begun_by_version_0_1();
    let mut command = segdist();
    command.current_dir(folder.path()).args(["--cfg", "run/config.yaml"]);
    run(&mut command, 120).ok();
    let dir: PathBuf = folder.path().join("run");
    let all = losses(&dir);
    assert_eq!(all.len(), 4);
    let theirs = rest().into_iter().filter(|line| line["event"] == "train").map(|line| line["loss"].as_f64().unwrap());
    for (ours, theirs) in all[2..].iter().zip(theirs) {
        assert!((ours - theirs).abs() < 1e-5 * theirs, "{all:?}");
    }
    assert_eq!((events(&dir, "finished").len(), events(&dir, "eval").len()), (1, 1));
}
