//! metrics.jsonl through its public surface: each step once, whatever was cut short.

use proptest::prelude::*;
use segdist::report::event::{self, Event, Line};
use segdist::report::history::History;
use segdist::stop::StopRequest;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn steps(dir: &Path) -> Vec<u64> {
    let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect()
}

fn trained(loss: f64) -> Event {
    Event::Train(event::Train { loss, ..event::Train::default() })
}

#[test]
fn what_is_written_is_read_and_what_is_of_another_version_is_read_as_far_as_it_goes() {
    let read = |text: &str| Line::parse(text.as_bytes());
    let line = Line { step: 7, event: trained(0.25) };
    let back = read(&line.text().unwrap()).unwrap();
    assert_eq!((back.step, back.event.train().unwrap().loss), (7, 0.25));
    assert!(back.event.train().unwrap().acc.is_nan(), "null");
    let later = read(r#"{"event":"train","step":8,"loss":"low","acc":0.5,"joules":{"a":[1]}}"#).unwrap();
    assert!(later.event.train().unwrap().loss.is_nan() && later.event.train().unwrap().acc == 0.5);
    let unknown = read(r#"{"event":"recalibrated","step":9,"batches":4}"#).unwrap();
    assert!(unknown.step == 9 && matches!(unknown.event, Event::Other));
    for text in ["", "{", "[]", "7", "{}", r#"{"event":"train"}"#, r#"{"event":"train","step":-1}"#] {
        assert!(read(text).is_none(), "{text}");
    }
}

#[test]
fn lines_of_another_version_stay_in_the_file() {
    let dir = TempDir::new().unwrap();
    let lines = "{\"event\":\"recalibrated\",\"step\":1,\"x\":[1]}\n{\"event\":\"train\",\"step\":2,\"joules\":9}\n";
    fs::write(dir.path().join("metrics.jsonl"), lines).unwrap();
    let _ = History::open(dir.path(), 2).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap(), lines);
}

#[test]
fn in_another_process_a_line_outgrows_the_limit() {
    let Some(dir) = std::env::var_os("SEGDIST_TEST_DIR").map(std::path::PathBuf::from) else { return };
    let _stop = StopRequest::install().unwrap();
    let mut history = History::open(&dir, 0).unwrap();
    history.log(1, trained(1.0)).unwrap();
    let before = rustix::process::getrlimit(rustix::process::Resource::Fsize);
    let limit = fs::metadata(dir.join("metrics.jsonl")).unwrap().len() + 20;
    let limited = rustix::process::Rlimit { current: Some(limit), ..before };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limited).unwrap();
    assert!(history.log(2, trained(2.0)).is_err());
    rustix::process::setrlimit(rustix::process::Resource::Fsize, before).unwrap();
    history.log(3, trained(3.0)).unwrap();
}

#[test]
fn after_a_line_that_did_not_fit_the_next_stands_alone() {
    let dir = TempDir::new().unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "history::in_another_process_a_line_outgrows_the_limit", "--test-threads=1"]);
    let output = program.env("SEGDIST_TEST_DIR", dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(steps(dir.path()), [1, 3]);
}

#[test]
fn a_line_has_event_and_step_first_and_is_one_object() {
    let dir = TempDir::new().unwrap();
    let mut history = History::open(dir.path(), 0).unwrap();
    let scores = event::Eval { mean_iou: 0.5, pixel_accuracy: f64::NAN, mean_accuracy: 1.0 };
    history.log(1, Event::Eval(scores)).unwrap();
    history.log(2, Event::Skipped { cause: "not finite".into() }).unwrap();
    history.log(3, Event::Finished {}).unwrap();
    history.sync().unwrap();
    let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    let lines = [
        r#"{"event":"eval","step":1,"mean_iou":0.5,"pixel_accuracy":null,"mean_accuracy":1.0}"#,
        r#"{"event":"skipped","step":2,"cause":"not finite"}"#,
        r#"{"event":"finished","step":3}"#,
    ];
    assert_eq!(text, lines.map(|line| format!("{line}\n")).concat());
}

#[test]
fn after_a_resume_each_step_appears_once() {
    let dir = TempDir::new().unwrap();
    let mut history = History::open(dir.path(), 0).unwrap();
    (1..=7).for_each(|step| history.log(step, trained(0.0)).unwrap());
    history.log(5, Event::Checkpoint(event::Checkpoint::default())).unwrap();
    let mut history = History::open(dir.path(), 5).unwrap();
    (6..=8).for_each(|step| history.log(step, trained(0.0)).unwrap());
    assert_eq!(steps(dir.path()), [1, 2, 3, 4, 5, 5, 6, 7, 8]);
}

#[test]
fn a_run_that_starts_anew_starts_an_empty_history() {
    let dir = TempDir::new().unwrap();
    History::open(dir.path(), 0).unwrap().log(1, trained(0.0)).unwrap();
    let _ = History::open(dir.path(), 0).unwrap();
    assert_eq!(steps(dir.path()), [0u64; 0]);
}

#[test]
fn a_half_written_last_line_is_dropped() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1}\n{\"step\":2,\"loss\":0.").unwrap();
    let mut history = History::open(dir.path(), 9).unwrap();
    history.log(2, trained(0.0)).unwrap();
    assert_eq!(steps(dir.path()), [1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn wherever_the_file_was_cut_what_stays_is_whole(cut in any::<prop::sample::Index>(), resume in 0u64..12) {
        let dir = TempDir::new().unwrap();
        let mut history = History::open(dir.path(), 0).unwrap();
        (1..=10).for_each(|step| history.log(step, trained(1.5)).unwrap());
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
