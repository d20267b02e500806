//! A state.json that is sealed well and says what no run can have said is damaged, and not a panic.

use crate::common::{run, samples, segdist, tiny};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Replaces a value of the state and seals it anew.
fn forge(state: &Path, key: &str, value: &Value) {
    let mut object: Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    object[key] = value.clone();
    object.as_object_mut().unwrap().shift_remove("blake3");
    let mut text = serde_json::to_string_pretty(&object).unwrap();
    text.truncate(text.len() - "\n}".len());
    let seal = blake3::hash(text.as_bytes()).to_hex();
    fs::write(state, format!("{text},\n  \"blake3\": \"{seal}\"\n}}\n")).unwrap();
}

#[test]
fn a_sealed_state_of_nonsense_is_named_and_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (root, dir) = (folder.path().join("data"), folder.path().join("run"));
    samples(&root, &[(48, 32)], 4, 1);
    let arguments = tiny(&root, &dir, 1);
    run(segdist().args(&arguments), 120).ok();
    let state = dir.join("checkpoints/step-00000001/state.json");
    let good = fs::read(&state).unwrap();
    for (key, value) in [
        ("config", json!("5")),
        ("config", json!("TRAIN: 5")),
        ("config", json!("")),
        ("config", json!("[".repeat(200))),
        ("global_batch", json!(1u64 << 63)),
        ("global_batch", json!(0)),
    ] {
        fs::write(&state, &good).unwrap();
        forge(&state, key, &value);
        let ended = run(segdist().args(&arguments), 60);
        assert_eq!(ended.code, 2, "{key} {value}: {}", ended.all());
        let errors = ended.errors();
        assert!(errors.len() == 1 && errors[0].contains("step-00000001/state.json"), "{}", ended.all());
    }
    fs::write(&state, &good).unwrap();
    forge(&state, "loss_scale", &json!(1.0));
    run(segdist().args(&arguments), 60).ok();
}
