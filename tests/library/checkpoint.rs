//! Checkpoints through their public surface: whatever happens to the writing process or to the files, the newest one
//! that is believed is whole.

use segdist::checkpoint::{self, CheckpointConfig, Lock, LockError, Saver, Score, State};
use segdist::run_dir::RunDir;
use segdist::stop::StopRequest;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tch::Tensor;
use tempfile::TempDir;

type Tensors = Vec<(String, Tensor)>;

const FILES: [&str; 4] = ["model.safetensors", "optimizer.safetensors", "state.json", "statistics.safetensors"];

/// Tensors whose every value depends on the step.
fn tensors(step: u64, length: i64) -> Tensors {
    let values = Tensor::arange(length, (tch::Kind::Float, tch::Device::Cpu)) * 0.1 + step as f64;
    vec![("encoder.weight".into(), values), ("encoder.count".into(), Tensor::from(step as i64))]
}

fn state(step: u64, scores: &[(u64, f64)]) -> State {
    let scores = scores.iter().map(|&(step, mean_iou)| Score { step, mean_iou }).collect();
    State { step, updates: step, scores, config: "TRAIN: {seed: 3}".into(), ..State::default() }
}

/// Starts a checkpoint with tensors in all its files.
fn start(saver: &mut Saver, state: State, length: i64) {
    let of = |offset: u64, length: i64| tensors(state.step + offset, length);
    let (model, optimizer, statistics) = (of(0, length), of(1000, 3), of(2000, 2));
    saver.save(
        state,
        checkpoint::Tensors { model: &model, optimizer: &optimizer, statistics: &statistics, average: &[] },
    );
}

/// Writes the checkpoint of `step` and returns what went wrong, if anything.
fn save(saver: &mut Saver, step: u64, length: i64, scores: &[(u64, f64)]) -> Option<String> {
    start(saver, state(step, scores), length);
    let outcomes = saver.finish();
    assert_eq!(outcomes.iter().map(|outcome| outcome.step).collect::<Vec<_>>(), [step]);
    outcomes.into_iter().next().unwrap().error
}

fn keeping(keep_last: usize, keep_best: usize) -> CheckpointConfig {
    CheckpointConfig { keep_last, keep_best, ..CheckpointConfig::default() }
}

/// A run's folder with good checkpoints of these steps.
fn run_with(steps: &[u64]) -> TempDir {
    let run = TempDir::new().unwrap();
    let mut saver = Saver::new(run.path(), &keeping(99, 0));
    for &step in steps {
        assert_eq!(save(&mut saver, step, 5, &[]), None);
    }
    run
}

fn newest_step(run: &Path) -> Option<u64> {
    checkpoint::newest(run).unwrap().map(|found| found.state.step)
}

fn folder(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}"))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Fails unless `step` loads with exactly the tensors that were saved.
fn assert_loads(run: &Path, step: u64) {
    let loaded = checkpoint::load(&folder(run, step)).unwrap();
    assert_eq!(loaded.state.step, step);
    for (read, step) in [(loaded.model, step), (loaded.optimizer, step + 1000), (loaded.statistics, step + 2000)] {
        assert_eq!(read.len(), 2);
        for (name, tensor) in read {
            let length = tensor.size().first().copied().unwrap_or(0);
            let saved = tensors(step, length).into_iter().find(|(other, _)| *other == name).unwrap().1;
            assert!(tensor.equal(&saved), "{name} of step {step}");
        }
    }
}

#[test]
fn what_is_saved_is_loaded() {
    let run = run_with(&[10, 20]);
    let found = checkpoint::newest(run.path()).unwrap().unwrap();
    assert_eq!((found.path, found.warnings.len()), (folder(run.path(), 20), 0));
    let unsealed = State { model: Default::default(), optimizer: Default::default(), statistics: None, ..found.state };
    assert_eq!(unsealed, state(20, &[]));
    assert_loads(run.path(), 10);
    assert_loads(run.path(), 20);
    assert_eq!(names(&folder(run.path(), 20)), FILES);
}

#[test]
fn a_run_without_checkpoints_has_no_newest() {
    let run = TempDir::new().unwrap();
    assert_eq!(newest_step(run.path()), None);
    fs::create_dir_all(run.path().join("checkpoints/.new-step-00000009")).unwrap();
    for name in ["step-9", "step-", "step-0000000009", "step-0000000x", "notes"] {
        fs::create_dir(run.path().join("checkpoints").join(name)).unwrap();
    }
    assert_eq!(newest_step(run.path()), None);
}

#[test]
fn every_changed_byte_is_detected_named_and_passed_over() {
    let run = run_with(&[10, 20]);
    for name in FILES {
        let path = folder(run.path(), 20).join(name);
        let good = fs::read(&path).unwrap();
        let flipped = (0..good.len()).map(|at| {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            bad
        });
        let cut = (0..good.len()).step_by(7).map(|length| good[..length].to_vec());
        for bad in flipped.chain(cut).chain([[good.as_slice(), b"\n"].concat()]) {
            fs::write(&path, &bad).unwrap();
            let found = checkpoint::newest(run.path()).unwrap().unwrap();
            assert_eq!(found.state.step, 10);
            assert_eq!(found.warnings.len(), 1);
            assert!(found.warnings[0].contains(&*path.to_string_lossy()), "{:?}", found.warnings);
            assert!(checkpoint::load(&folder(run.path(), 20)).is_err());
        }
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(newest_step(run.path()), Some(20));
}

#[test]
fn a_missing_file_or_a_file_for_a_folder_is_passed_over() {
    let run = run_with(&[10, 20]);
    fs::remove_file(folder(run.path(), 20).join("optimizer.safetensors")).unwrap();
    fs::write(folder(run.path(), 30), "not a folder").unwrap();
    let found = checkpoint::newest(run.path()).unwrap().unwrap();
    assert_eq!((found.state.step, found.warnings.len()), (10, 2));
}

#[test]
fn nothing_undamaged_is_an_error_and_no_silent_new_start() {
    let run = run_with(&[10]);
    fs::write(folder(run.path(), 10).join("state.json"), "{}").unwrap();
    let error = checkpoint::newest(run.path()).unwrap_err().to_string();
    assert!(error.contains("step-00000010") && error.contains("--resume none"), "{error}");
}

#[test]
fn the_newest_and_the_best_are_kept() {
    let run = TempDir::new().unwrap();
    let mut saver = Saver::new(run.path(), &keeping(2, 1));
    let scores = [(1, 0.2), (2, 0.9), (3, 0.1), (4, 0.3), (5, 0.4)];
    for step in 1..=5 {
        assert_eq!(save(&mut saver, step, 5, &scores[..step as usize]), None);
    }
    assert_eq!(names(&run.path().join("checkpoints")), [2, 4, 5].map(|step| format!("step-{step:08}")));
    let best = checkpoint::best(run.path()).unwrap().unwrap();
    assert_eq!(best.state.step, 2);
}

#[test]
fn one_that_is_due_while_another_is_written_follows_it() {
    let run = TempDir::new().unwrap();
    let mut saver = Saver::new(run.path(), &keeping(9, 0));
    for step in 1..=3 {
        start(&mut saver, state(step, &[]), 100_000);
    }
    let outcomes = saver.finish();
    assert_eq!(outcomes.iter().map(|outcome| outcome.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(outcomes.iter().all(|outcome| outcome.error.is_none() && outcome.bytes > 400_000));
    (1..=3).for_each(|step| assert_loads(run.path(), step));
}

#[test]
fn the_same_step_saved_again_replaces_the_first() {
    let run = run_with(&[10]);
    let mut saver = Saver::new(run.path(), &keeping(3, 0));
    assert_eq!(save(&mut saver, 10, 8, &[(10, 0.5)]), None);
    assert_eq!(checkpoint::newest(run.path()).unwrap().unwrap().state.scores.len(), 1);
    assert_eq!(names(&run.path().join("checkpoints")), ["step-00000010"]);
}

#[test]
fn a_run_set_aside_leaves_room_and_loses_nothing() {
    let run = run_with(&[10]);
    let dir = RunDir::new(run.path());
    for name in RunDir::WRITTEN.iter().filter(|name| **name != "checkpoints") {
        fs::write(run.path().join(name), "of the run").unwrap();
    }
    let own = ["encoder_epoch_1.pth", "plots", "evaluation.txt"];
    own.iter().for_each(|name| fs::write(run.path().join(name), "the user's own").unwrap());
    let aside = dir.set_aside().unwrap().unwrap();
    assert_eq!(aside, run.path().join("previous-001"));
    assert_eq!(names(run.path()), ["encoder_epoch_1.pth", "evaluation.txt", "plots", "previous-001"]);
    let mut written: Vec<&str> = RunDir::WRITTEN.to_vec();
    written.sort_unstable();
    assert_eq!(names(&aside), written);
    assert_loads(&aside, 10);
    assert_eq!(dir.set_aside().unwrap(), None);
}

#[test]
fn checkpoints_past_the_resumed_step_are_set_aside() {
    let run = run_with(&[10, 20, 30]);
    assert_eq!(checkpoint::set_aside_after(&RunDir::new(run.path()), 30).unwrap(), None);
    let aside = checkpoint::set_aside_after(&RunDir::new(run.path()), 10).unwrap().unwrap();
    assert_eq!(newest_step(run.path()), Some(10));
    assert_eq!(newest_step(&aside), Some(30));
}

/// This test binary once more, running only the part `name` of another process, on `dir`.
fn other_process(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", &format!("checkpoint::{name}"), "--nocapture", "--test-threads=1"])
        .env("SEGDIST_TEST_DIR", dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::piped());
    command
}

/// The folder to work on, where this process was started by [`other_process`].
fn other_process_dir() -> Option<PathBuf> {
    env::var_os("SEGDIST_TEST_DIR").map(PathBuf::from)
}

#[test]
fn in_another_process_checkpoints_are_written_pruned_and_replaced() {
    let Some(run) = other_process_dir() else { return };
    let mut saver = Saver::new(&run, &keeping(1, 0));
    for (step, length) in [(1, 5), (2, 5), (2, 7)] {
        assert_eq!(save(&mut saver, step, length, &[]), None);
        fs::write(run.join("finished"), step.to_string()).unwrap();
    }
}

#[test]
fn a_crash_at_any_system_call_leaves_a_loadable_newest_checkpoint() {
    let mut crashes = 0;
    for call in 1..200 {
        let run = TempDir::new().unwrap();
        let mut command = other_process("in_another_process_checkpoints_are_written_pruned_and_replaced", run.path());
        if command.env("SEGDIST_FAULT", format!("checkpoint:{call}")).output().unwrap().status.success() {
            break;
        }
        crashes += 1;
        let finished = fs::read_to_string(run.path().join("finished")).map_or(0, |step| step.parse().unwrap());
        let found = checkpoint::newest(run.path()).unwrap();
        assert!(found.as_ref().is_none_or(|found| found.warnings.is_empty()), "call {call}");
        let newest = found.map_or(0, |found| found.state.step);
        assert!(newest == finished || newest == finished + 1, "call {call}: {newest} after {finished}");
        if newest > 0 {
            assert_loads(run.path(), newest);
        }
        let mut saver = Saver::new(run.path(), &keeping(1, 0));
        assert_eq!(save(&mut saver, 4, 5, &[]), None, "call {call}");
        assert_eq!(names(&run.path().join("checkpoints")), ["step-00000004"], "call {call}");
    }
    assert!((30..199).contains(&crashes), "{crashes} places");
}

#[test]
fn in_another_process_the_lock_is_held() {
    let Some(run) = other_process_dir() else { return };
    let _lock = Lock::take(&run).unwrap();
    println!("\nlocked");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn lock_elsewhere(run: &Path) -> Child {
    let mut child = other_process("in_another_process_the_lock_is_held", run).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "locked"));
    child
}

#[test]
fn a_second_job_is_refused_by_the_holders_name_until_that_is_gone() {
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("new/run");
    let mut first = lock_elsewhere(&run);
    let error = Lock::take(&run).unwrap_err();
    assert!(matches!(error, LockError::Held { .. }));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert!(error.to_string().contains(&format!("process {} on {host}", first.id())), "{error}");
    first.kill().unwrap();
    first.wait().unwrap();
    let lock = Lock::take(&run).expect("a killed job's lock is gone");
    drop(lock);
    let mut second = lock_elsewhere(&run);
    second.stdin.take().unwrap().write_all(b"\n").unwrap();
    second.wait().unwrap();
    fs::write(run.join(".lock"), [0xff; 4000]).unwrap();
    Lock::take(&run).expect("what the file says locks nothing");
}

/// Where large files do not fit: a large checkpoint fails by name, the one before it stays, and a small one fits again.
fn assert_survives_a_full_disk(run: &Path, cause: &str) {
    let mut saver = Saver::new(run, &keeping(3, 0));
    assert_eq!(save(&mut saver, 1, 5, &[]), None);
    let error = save(&mut saver, 2, 1_000_000, &[]).expect("a failure");
    assert!(error.contains("model.safetensors") && error.contains(cause), "{error}");
    assert_eq!(names(&run.join("checkpoints")), ["step-00000001"]);
    assert_loads(run, 1);
    assert_eq!(save(&mut saver, 3, 5, &[]), None);
    assert_eq!(newest_step(run), Some(3));
}

#[test]
fn in_another_process_files_have_a_limit() {
    let Some(run) = other_process_dir() else { return };
    StopRequest::install().unwrap();
    assert_survives_a_full_disk(&run, "File too large");
}

#[test]
fn a_limit_on_file_sizes_fails_one_checkpoint_and_no_more() {
    let run = TempDir::new().unwrap();
    let program = other_process("in_another_process_files_have_a_limit", run.path());
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\""]).arg(program.get_program()).args(program.get_args());
    let output = limited.env("SEGDIST_TEST_DIR", run.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_full_file_system_fails_one_checkpoint_and_no_more() {
    let mount = TempDir::new().unwrap();
    let tmpfs = |program: &str, args: &[&str]| {
        Command::new(program)
            .args(args)
            .arg(mount.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if tmpfs("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
        let result = std::panic::catch_unwind(|| assert_survives_a_full_disk(mount.path(), "No space left on device"));
        tmpfs("umount", &[]);
        result.unwrap();
    }
}

#[test]
fn a_folder_that_takes_no_files_is_a_failure_with_its_name() {
    let run = TempDir::new().unwrap();
    fs::write(run.path().join("checkpoints"), "a file").unwrap();
    let error = save(&mut Saver::new(run.path(), &keeping(3, 0)), 1, 5, &[]).unwrap();
    assert!(error.contains("checkpoints") && error.contains("Not a directory"), "{error}");
}
