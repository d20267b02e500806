//! What is known of a run: its curves, its last numbers, and when it may end.

use super::process;
use crate::comm;
use crate::report::axis::number;
use crate::report::event::{self, Event, Line};
use crate::run_dir::RunDir;
use crate::train::TrainConfig;
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The time of a step is the median of this many lines: an evaluation or a busy disk between does not move it.
const RECENT: usize = 21;
/// A run on another host that has written nothing for so many seconds, and twenty steps, may be dead.
const SILENCE: f64 = 600.0;

/// One run.
pub struct Status {
    /// Its folder.
    pub dir: RunDir,
    /// Updates in the whole run, by DIR/config.yaml.
    pub total: Option<u64>,
    /// When the history was last written; None where there is none yet.
    pub written: Option<SystemTime>,
    /// The run's last line says so.
    pub finished: bool,
    /// The step at which the last start stopped on request, if nothing came after.
    stopped: Option<u64>,
    /// Who trains.
    start: Option<event::Start>,
    /// (step, loss).
    pub loss: Vec<(f64, f64)>,
    /// (step, mean IoU).
    pub mean_iou: Vec<(f64, f64)>,
    /// (step, images a second).
    pub images_per_s: Vec<(f64, f64)>,
    /// Seconds a step took, line by line.
    step_s: Vec<f64>,
    train: Option<(u64, event::Train)>,
    eval: Option<(u64, event::Eval)>,
    checkpoint: Option<(u64, event::Checkpoint)>,
    /// Updates that were not made, since a loss or gradient was not finite.
    skipped: u64,
}

impl Status {
    /// Nothing is known yet of the run in `dir`.
    pub fn new(dir: &Path) -> Status {
        Status {
            dir: RunDir::new(dir),
            total: None,
            written: None,
            finished: false,
            stopped: None,
            start: None,
            loss: Vec::new(),
            mean_iou: Vec::new(),
            images_per_s: Vec::new(),
            step_s: Vec::new(),
            train: None,
            eval: None,
            checkpoint: None,
            skipped: 0,
        }
    }

    /// Back to knowing nothing: the history was replaced.
    pub fn forget(&mut self) {
        *self = Status::new(self.dir.path());
    }

    /// Takes in a line of the history; whatever is not one is passed over.
    pub fn add(&mut self, text: &str) {
        let Some(Line { step, event }) = Line::parse(text.as_bytes()) else { return };
        let finite = |value: f64| value.is_finite().then_some((step as f64, value));
        self.finished = matches!(event, Event::Finished {});
        self.stopped = matches!(event, Event::Stopped {}).then_some(step);
        match event {
            Event::Train(train) => {
                self.loss.extend(finite(train.loss));
                self.images_per_s.extend(finite(train.images_per_s));
                self.step_s.extend(finite(train.step_s).map(|(_, seconds)| seconds));
                self.train = Some((step, train));
            }
            Event::Eval(eval) => {
                self.mean_iou.extend(finite(eval.mean_iou));
                self.eval = Some((step, eval));
            }
            Event::Checkpoint(checkpoint) => self.checkpoint = Some((step, checkpoint)),
            Event::Skipped { .. } => self.skipped += 1,
            Event::Start(start) => {
                // What a step took on other machines says nothing about this start.
                self.step_s.clear();
                self.start = Some(start);
            }
            Event::Stopped {} | Event::Finished {} | Event::Other => {}
        }
    }

    /// Reads from DIR/config.yaml how many updates there will be; a resumed run may want more than before.
    pub fn read_total(&mut self) {
        #[derive(Deserialize)]
        #[allow(non_snake_case)]
        struct Config {
            TRAIN: TrainConfig,
        }
        let Ok(text) = fs::read_to_string(self.dir.config()) else { return };
        if let Ok(config) = serde_yaml::from_str::<Config>(&text) {
            self.total = Some(config.TRAIN.total_steps());
        }
    }

    /// The last update that was logged.
    pub fn step(&self) -> u64 {
        self.train.as_ref().map_or(0, |(step, _)| *step)
    }

    /// The part of the updates that is made, 0 to 1.
    pub fn part(&self) -> f64 {
        let total = self.total.unwrap_or(0).max(1);
        if self.finished { 1.0 } else { (self.step() as f64 / total as f64).min(1.0) }
    }

    /// Seconds until the last update, without evaluations.
    pub fn seconds_left(&self) -> Option<f64> {
        Some(self.total?.saturating_sub(self.step()) as f64 * self.step_s()?)
    }

    /// What a step takes lately, since the last start.
    fn step_s(&self) -> Option<f64> {
        let mut recent: Vec<f64> = self.step_s.iter().rev().take(RECENT).copied().collect();
        recent.sort_by(f64::total_cmp);
        recent.get(recent.len() / 2).copied()
    }

    /// One phrase on where the run stands.
    pub fn state(&self) -> String {
        if let Some(step) = self.stopped {
            return format!("stopped on request at step {step}; start again to continue");
        }
        match self.written {
            None => format!("waiting for {}", self.dir.history().display()),
            Some(_) if self.finished => "finished".to_owned(),
            Some(at) => self.under_way_or_dead(at),
        }
    }

    /// The process that trains is looked up where it is on this host. Of other hosts nothing is known but silence.
    fn under_way_or_dead(&self, written: SystemTime) -> String {
        // The writer's clock may be ahead of this node's.
        let silence = SystemTime::now().duration_since(written).unwrap_or(Duration::ZERO).as_secs_f64();
        let known = self.start.as_ref().filter(|start| start.pid > 0);
        let who = known.map(|start| format!("process {} on {}", start.pid, start.host));
        let here = known.filter(|start| start.host == comm::hostname());
        if let (Some(start), Some(who)) = (here, &who)
            && !process::is_writer(start.pid, written)
        {
            return format!("dead: {who} is gone and the run is not finished; start again to continue");
        }
        let ago = format!("last line {} ago", duration(silence));
        let usual = SILENCE.max(20.0 * self.step_s().unwrap_or(0.0));
        match who.filter(|_| here.is_none() && silence > usual) {
            Some(who) => format!("silent, {ago}: if {who} is gone, start again to continue"),
            None => format!("under way, {ago}"),
        }
    }

    /// Step of how many, and when the last one will be made.
    pub fn progress(&self) -> String {
        let total = self.total.map_or(String::new(), |total| format!(" of {total} ({:.1} %)", 100.0 * self.part()));
        let left = self.seconds_left().filter(|_| !self.finished);
        let left = left.map_or(String::new(), |left| format!(", ETA {} without evaluations", duration(left)));
        format!("step {}{total}{left}", self.step())
    }

    /// The last numbers, name by name; what is not known is not there.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if let Some((_, train)) = &self.train {
            let accuracy = finite(train.acc).map_or(String::new(), |acc| format!(", accuracy {:.1} %", 100.0 * acc));
            facts.push(("loss", format!("{}{accuracy}", said(train.loss))));
            let (encoder, decoder) = (said(train.lr_encoder), said(train.lr_decoder));
            facts.push(("learning rate", format!("encoder {encoder}, decoder {decoder}")));
            facts.push(("throughput", throughput(train)));
        }
        if let Some((step, eval)) = &self.eval {
            let best = self.mean_iou.iter().copied().reduce(|best, other| if other.1 > best.1 { other } else { best });
            let best = best.map_or(String::new(), |(step, iou)| format!(", best {iou:.4} at step {step}"));
            let (iou, accuracy) = (eval.mean_iou, 100.0 * eval.pixel_accuracy);
            facts.push(("mean IoU", format!("{iou:.4} at step {step}, pixel accuracy {accuracy:.1} %{best}")));
        }
        if let Some((step, checkpoint)) = &self.checkpoint {
            let failed = checkpoint.error.as_ref().map_or(String::new(), |error| format!(" failed: {error}"));
            facts.push(("checkpoint", format!("step {step}{failed}")));
        }
        if self.skipped > 0 {
            facts.push(("skipped", format!("{} updates, whose loss or gradient was not finite", self.skipped)));
        }
        facts
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn said(value: f64) -> String {
    finite(value).map_or("not finite".to_owned(), number)
}

fn throughput(train: &event::Train) -> String {
    let images = finite(train.images_per_s).map_or(String::new(), |images| format!("{} images/s, ", number(images)));
    let seconds = |value: f64| finite(value).map_or("?".to_owned(), |value| format!("{value:.3}"));
    let (step, data, wait) = (seconds(train.step_s), seconds(train.data_s), seconds(train.comm_s));
    format!("{images}a step {step} s (data {data}, communication {wait})")
}

/// A duration in its two largest units.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round().max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {:02} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes:02} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_two_units() {
        let said = [0.4, 59.0, 61.0, 3725.0, 200_000.0].map(duration);
        assert_eq!(said, ["0 s", "59 s", "1 min 01 s", "1 h 02 min", "2 d 7 h"]);
    }
}
