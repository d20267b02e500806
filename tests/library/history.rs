//! metrics.jsonl through its public surface: each step once, whatever was cut short.

use proptest::prelude::*;
use segdist::report::history::History;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn steps(dir: &Path) -> Vec<u64> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect()
}

#[test]
fn a_line_has_event_and_step_first_and_is_one_object() {
    let dir = TempDir::new().unwrap();
    let mut history = History::open(dir.path(), 0).unwrap();
    history.log("train", 1, json!({"loss": 0.5, "acc": f64::NAN})).unwrap();
    assert!(history.log("train", 2, 7).is_err());
    history.sync().unwrap();
    let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    assert_eq!(text, "{\"event\":\"train\",\"step\":1,\"loss\":0.5,\"acc\":null}\n");
}

#[test]
fn after_a_resume_each_step_appears_once() {
    let dir = TempDir::new().unwrap();
    let mut history = History::open(dir.path(), 0).unwrap();
    (1..=7).for_each(|step| history.log("train", step, json!({})).unwrap());
    history.log("checkpoint", 5, json!({})).unwrap();
    let mut history = History::open(dir.path(), 5).unwrap();
    (6..=8).for_each(|step| history.log("train", step, json!({})).unwrap());
    assert_eq!(steps(dir.path()), [1, 2, 3, 4, 5, 5, 6, 7, 8]);
}

#[test]
fn a_run_that_starts_anew_starts_an_empty_history() {
    let dir = TempDir::new().unwrap();
    History::open(dir.path(), 0).unwrap().log("train", 1, json!({})).unwrap();
    let _ = History::open(dir.path(), 0).unwrap();
    assert_eq!(steps(dir.path()), [0u64; 0]);
}

#[test]
fn a_half_written_last_line_is_dropped() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1}\n{\"step\":2,\"loss\":0.").unwrap();
    let mut history = History::open(dir.path(), 9).unwrap();
    history.log("train", 2, json!({})).unwrap();
    assert_eq!(steps(dir.path()), [1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn wherever_the_file_was_cut_what_stays_is_whole(cut in any::<prop::sample::Index>(), resume in 0u64..12) {
        let dir = TempDir::new().unwrap();
        let mut history = History::open(dir.path(), 0).unwrap();
        (1..=10).for_each(|step| history.log("train", step, json!({"loss": 1.5})).unwrap());
        let path = dir.path().join("metrics.jsonl");
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..cut.index(text.len())]).unwrap();
        let _ = History::open(dir.path(), resume).unwrap();
        let kept = steps(dir.path());
        prop_assert!(kept.len() as u64 <= resume.min(10));
        prop_assert!(kept.iter().copied().eq(1..=kept.len() as u64));
    }

    #[test]
    fn any_bytes_in_the_file_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("metrics.jsonl"), bytes).unwrap();
        let _ = History::open(dir.path(), 3).unwrap();
        let _ = steps(dir.path());
    }
}
