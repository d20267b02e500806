//! `segdist watch`: a run's last numbers from whatever its history holds at the moment, and a live view that ends with it.

use crate::common::{Ended, run, segdist, wait};
use segdist::report::event::{self, Event};
use segdist::report::history::History;
use segdist::watch::follow::Follower;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Logs updates `first` to `last` of a run that continues after `first` − 1.
fn train(dir: &Path, first: u64, last: u64) -> History {
    fs::write(dir.join("config.yaml"), "TRAIN:\n  num_epoch: 2\n  epoch_iters: 50\n").unwrap();
    let mut history = History::open(dir, first - 1).unwrap();
    for step in first..=last {
        history.log(step, Event::Train(means(3.0 / step as f64, 2.0))).unwrap();
    }
    history
}

fn means(loss: f64, step_s: f64) -> event::Train {
    let (lr_encoder, lr_decoder, images_per_s) = (0.02, 0.02, 8.0);
    event::Train {
        epoch: 0.1,
        loss,
        acc: 0.75,
        lr_encoder,
        lr_decoder,
        step_s,
        data_s: 0.25,
        comm_s: 0.125,
        images_per_s,
        ..event::Train::default()
    }
}

fn scores(mean_iou: f64, pixel_accuracy: f64) -> Event {
    Event::Eval(event::Eval { mean_iou, pixel_accuracy, mean_accuracy: 0.5 })
}

fn append(dir: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(dir.join("metrics.jsonl")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The one frame of a pipe.
fn frame(dir: &Path) -> String {
    run(segdist().arg("watch").arg(dir), 30).ok().stdout
}

#[test]
fn a_pipe_gets_one_plain_frame_with_the_last_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = train(dir.path(), 1, 40);
    history.log(30, scores(0.5, 0.875)).unwrap();
    history.log(40, scores(0.25, 0.625)).unwrap();
    history.log(40, Event::Checkpoint(event::Checkpoint::default())).unwrap();
    let text = frame(dir.path());
    for part in [
        "under way, last line",
        "step 40 of 100 (40.0 %), ETA 2 min 00 s",
        "0.07500, accuracy 75.0 %",
        "encoder 0.02000, decoder 0.02000",
        "8.000 images/s, a step 2.000 s (data 0.250, communication 0.125)",
        "0.2500 at step 40, pixel accuracy 62.5 %, best 0.5000 at step 30",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn what_is_no_line_of_a_history_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), 1, 3);
    append(dir.path(), "\n[]\n7\n{}\nnot json\n{\"event\":\"train\"}\n{\"event\":\"train\",\"step\":\"x\"}\n\u{0}\n");
    append(dir.path(), "{\"event\":\"novelty\",\"step\":4}\n{\"event\":\"train\",\"step\":4,\"loss\":null}\n");
    OpenOptions::new().append(true).open(dir.path().join("metrics.jsonl")).unwrap().write_all(b"\xff\xfe\n").unwrap();
    append(dir.path(), "{\"event\":\"train\",\"step\":5,\"los");
    let text = frame(dir.path());
    assert!(text.contains("step 4 of 100") && text.contains("not finite"), "{text}");
    assert!(frame(&dir.path().join("later")).contains("waiting for"));
}

/// `watch DIR` on a terminal, until q ends it well; none where no terminal can be made.
fn watched_until_q(dir: &Path) -> Option<Ended> {
    let Some(mut child) = on_a_terminal(dir) else {
        eprintln!("skipped: no `script` on PATH, which makes terminals");
        return None;
    };
    let mut keyboard = child.stdin.take().expect("stdin is a pipe");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    keyboard.write_all(b"q").unwrap();
    Some(wait(child, 60).ok())
}

#[test]
fn numbers_of_any_size_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), 1, 2);
    for (step, rate) in [(3, "-1.8e308"), (4, "1.7e308"), (5, "-1e308"), (6, "1e99")] {
        append(dir.path(), &format!("{{\"event\":\"train\",\"step\":{step},\"images_per_s\":{rate}}}\n"));
    }
    watched_until_q(dir.path());
}

#[test]
fn stopped_dead_and_under_way_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let start = |pid: u32, host: &str| Event::Start(event::Start { ranks: 1, host: host.into(), pid });
    let mut history = train(dir.path(), 1, 40);
    history.log(40, start(gone.id(), &host)).unwrap();
    assert!(frame(dir.path()).contains(&format!("dead: process {} on {host} is gone", gone.id())));
    history.log(40, start(gone.id(), "another.host")).unwrap();
    assert!(frame(dir.path()).contains("under way"), "of another host nothing is known");
    history.log(40, start(std::process::id(), &host)).unwrap();
    history.log(41, Event::Train(means(0.1, 1.0))).unwrap();
    let text = frame(dir.path());
    assert!(text.contains("under way") && text.contains("ETA 59 s"), "steps of this start take 1 s:\n{text}");
    let an_hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let age = || fs::File::open(dir.path().join("metrics.jsonl")).unwrap().set_modified(an_hour_ago).unwrap();
    age();
    assert!(frame(dir.path()).contains("dead: process"), "a process younger than the last line did not write it");
    history.log(41, start(7, "another.host")).unwrap();
    age();
    assert!(frame(dir.path()).contains("silent, last line 1 h 00 min ago: if process 7 on another.host is gone"));
    history.log(41, Event::Stopped {}).unwrap();
    assert!(frame(dir.path()).contains("stopped on request at step 41; start again to continue"));
    history.log(41, start(std::process::id(), &host)).unwrap();
    assert!(frame(dir.path()).contains("under way"));
}

#[test]
fn a_finished_run_says_so_and_one_that_goes_on_does_not() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), 1, 100).log(100, Event::Finished {}).unwrap();
    let text = frame(dir.path());
    assert!(text.contains(": finished\n") && text.contains("(100.0 %)") && !text.contains("ETA"), "{text}");
    train(dir.path(), 101, 102);
    assert!(frame(dir.path()).contains("under way"));
}

#[test]
fn a_history_is_followed_through_half_lines_resumes_and_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let mut follower = Follower::new(dir.path());
    let mut read = || follower.read().map(|news| (news.anew, news.lines.len(), news.written.is_some())).unwrap();
    assert_eq!(read(), (false, 0, false), "nothing is there yet");
    train(dir.path(), 1, 5);
    assert_eq!(read(), (false, 5, true));
    append(dir.path(), "{\"event\":\"train\",");
    assert_eq!(read(), (false, 0, true), "half a line");
    append(dir.path(), "\"step\":6}\n");
    assert_eq!(read(), (false, 1, true), "the whole line");
    train(dir.path(), 4, 9);
    assert_eq!(read(), (true, 9, true), "a resumed run replaced the file");
    let whole = fs::read_to_string(&path).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(whole.lines().next().unwrap().len() as u64 + 1)
        .unwrap();
    assert_eq!(read(), (true, 1, true), "cut in place");
    fs::write(&path, whole.replace("0.75", "0.50")).unwrap();
    assert_eq!(read(), (true, 9, true), "written over in place, and longer than what was read");
    fs::remove_file(&path).unwrap();
    assert_eq!(read(), (true, 0, false));
    assert_eq!(read(), (false, 0, false));
}

/// `segdist watch` on a terminal of its own, whose keyboard is a pipe.
fn on_a_terminal(dir: &Path) -> Option<std::process::Child> {
    let watch = format!("stty rows 24 cols 80; {} watch '{}'", env!("CARGO_BIN_EXE_segdist"), dir.display());
    let mut command = Command::new("script");
    command.args(["-qec", &watch, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()
}

#[test]
fn a_terminal_is_redrawn_while_the_run_writes_until_it_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut child) = on_a_terminal(dir.path()) else {
        eprintln!("skipped: no `script` on PATH, which makes terminals");
        return;
    };
    let _keyboard = child.stdin.take();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    train(dir.path(), 1, 7);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    train(dir.path(), 8, 100).log(100, Event::Finished {}).unwrap();
    let ended = wait(child, 60).ok();
    let place = |text: &str| ended.stdout.find(text).unwrap_or_else(|| panic!("no `{text}` in\n{}", ended.stdout));
    assert!(place("waiting") < place("8.000") && place("8.000") < place("\x1b[?1049l"));
    assert!(place("\x1b[?1049l") < place(": finished"), "the last frame is plain text after the terminal is set back");
}

#[test]
fn q_leaves_a_run_that_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path(), 1, 7);
    let Some(ended) = watched_until_q(dir.path()) else { return };
    assert!(ended.stdout.ends_with("\r\n") && ended.stdout.contains("\x1b[?1049l"), "{}", ended.stdout);
}
