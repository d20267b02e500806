//! DIST.trace and `bench overlap`: buckets are seen to travel beside backward.

use crate::common::jobs::{Job, wait_for_step};
use crate::common::{mpirun, run, samples, tiny};
use serde_json::Value;
use std::path::Path;

/// The events that a rank has written, all of them whole.
fn events(folder: &Path, rank: usize) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(format!("trace-{rank}.json"))).unwrap();
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(events.iter().all(|event| event["pid"] == rank));
    events
}

/// Beginning and end of the spans with this name, with their events.
fn spans<'a>(events: &'a [Value], name: &str) -> Vec<(f64, f64, &'a Value)> {
    let number = |value: &Value| value.as_f64().unwrap();
    let found = events.iter().filter(|event| event["ph"] == "X" && event["name"] == name);
    found.map(|event| (number(&event["ts"]), number(&event["ts"]) + number(&event["dur"]), event)).collect()
}

/// Transfers that share a moment with backward.
fn beside_backward(events: &[Value]) -> usize {
    let backward = spans(events, "backward");
    let beside = |start: f64, end: f64| backward.iter().any(|(from, to, _)| start < *to && end > *from);
    spans(events, "transfer").iter().filter(|(start, end, _)| beside(*start, *end)).count()
}

fn overrides(folder: &Path, steps: u64) -> Vec<String> {
    let root = folder.join("data");
    samples(&root, &[(48, 32); 8], 4, 1);
    let mut all = tiny(&root, &folder.join("run"), steps);
    all.push(format!("DIST.trace={}", folder.join("trace.json").display()));
    all.push("DIST.bucket_mb=2".into());
    all
}

#[test]
fn every_bucket_is_sent_in_every_step_and_some_beside_backward() {
    let folder = tempfile::tempdir().unwrap();
    run(mpirun(2).args(overrides(folder.path(), 3)), 120).ok();
    for rank in [0, 1] {
        let events = events(folder.path(), rank);
        for part in ["data", "forward", "backward", "wait for gradients", "optimizer"] {
            assert_eq!(spans(&events, part).len(), 3, "{part}");
        }
        let transfers = spans(&events, "transfer");
        let bucket = |event: &Value| event["args"]["bucket"].as_u64().unwrap();
        let buckets = transfers.iter().map(|(_, _, event)| bucket(event)).max().unwrap() + 1;
        assert!(buckets > 3);
        for number in 0..buckets {
            let of_it: Vec<_> = transfers.iter().filter(|(_, _, event)| bucket(event) == number).collect();
            assert_eq!(of_it.len(), 3, "bucket {number}");
            assert!(of_it.iter().all(|(_, _, event)| event["args"]["bytes"].as_u64().unwrap() > 0));
            for phase in ["b", "e"] {
                let of_it = events.iter().filter(|event| event["ph"] == phase && event["id"] == number);
                assert_eq!(of_it.count(), 3, "bucket {number} waits");
            }
        }
        assert!(beside_backward(&events) > 0, "{transfers:?}");
        assert!(events.iter().any(|event| event["cat"] == "batch norm" && event["name"] == "all_reduce"));
    }
}

#[test]
fn without_overlap_every_bucket_waits_for_the_end_of_backward() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = overrides(folder.path(), 2);
    all.push("DIST.overlap=False".into());
    run(mpirun(2).args(all), 120).ok();
    for rank in [0, 1] {
        let events = events(folder.path(), rank);
        assert!(spans(&events, "transfer").len() > 6);
        assert_eq!(beside_backward(&events), 0);
    }
}

#[test]
fn the_file_is_whole_when_the_job_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let job = Job::start(mpirun(2).args(overrides(folder.path(), 100_000)));
    wait_for_step(&folder.path().join("run"), 3);
    job.kill_all();
    for rank in [0, 1] {
        assert!(spans(&events(folder.path(), rank), "forward").len() >= 2);
    }
}

#[test]
fn a_file_that_cannot_be_made_is_named_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = overrides(folder.path(), 3);
    all.push("DIST.trace=/nowhere/trace.json".into());
    let ended = run(mpirun(2).args(all), 60);
    assert_eq!(ended.code, 2, "{}", ended.all());
    let errors = ended.errors();
    assert!(errors.len() == 1 && errors[0].contains("DIST.trace: /nowhere/trace-0.json"), "{}", ended.all());
}

#[test]
fn bench_overlap_times_the_same_update_three_ways() {
    let small = ["MODEL.arch_encoder=resnet18dilated", "MODEL.arch_decoder=c1", "DATASET.imgSizes=(32,)"];
    let ended = run(mpirun(2).args(["bench", "overlap", "--json"]).args(small).arg("DATASET.imgMaxSize=32"), 120).ok();
    let row: Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    for key in ["overlapped_s", "serial_s", "alone_s", "backward_s", "sum_s"] {
        assert!(row[key].as_f64().unwrap() > 0.0, "{key}: {row}");
    }
    assert!(row["hidden"].is_number(), "{row}");
}
