//! What is known of a run: its curves, its last numbers, and when it may end.

use crate::report::axis::number;
use crate::train::TrainConfig;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The time of a step is the median of this many lines: an evaluation or a busy disk between does not move it.
const RECENT: usize = 21;

/// A line of metrics.jsonl; what it does not say, or says as null, is None.
#[derive(Deserialize)]
struct Line {
    event: String,
    step: u64,
    loss: Option<f64>,
    acc: Option<f64>,
    lr_encoder: Option<f64>,
    lr_decoder: Option<f64>,
    step_s: Option<f64>,
    data_s: Option<f64>,
    comm_s: Option<f64>,
    images_per_s: Option<f64>,
    mean_iou: Option<f64>,
    pixel_accuracy: Option<f64>,
    error: Option<String>,
}

/// One run.
pub struct Status {
    /// Its folder.
    pub dir: PathBuf,
    /// Updates in the whole run, by DIR/config.yaml.
    pub total: Option<u64>,
    /// When the history was last written; None where there is none yet.
    pub written: Option<SystemTime>,
    /// The run's last line says so.
    pub finished: bool,
    /// (step, loss).
    pub loss: Vec<(f64, f64)>,
    /// (step, mean IoU).
    pub mean_iou: Vec<(f64, f64)>,
    /// (step, images a second).
    pub images_per_s: Vec<(f64, f64)>,
    /// Seconds a step took, line by line.
    step_s: Vec<f64>,
    train: Option<Line>,
    eval: Option<Line>,
    checkpoint: Option<Line>,
    /// Updates that were not made, since a loss or gradient was not finite.
    skipped: u64,
}

impl Status {
    /// Nothing is known yet of the run in `dir`.
    pub fn new(dir: &Path) -> Status {
        Status {
            dir: dir.to_owned(),
            total: None,
            written: None,
            finished: false,
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
        *self = Status::new(&self.dir);
    }

    /// Takes in a line of the history; whatever is not one is passed over.
    pub fn add(&mut self, text: &str) {
        let Ok(line) = serde_json::from_str::<Line>(text) else { return };
        let step = line.step as f64;
        let add = |curve: &mut Vec<(f64, f64)>, value: Option<f64>| curve.extend(value.map(|value| (step, value)));
        self.finished = line.event == "finished";
        match line.event.as_str() {
            "train" => {
                add(&mut self.loss, line.loss);
                add(&mut self.images_per_s, line.images_per_s);
                self.step_s.extend(line.step_s);
                self.train = Some(line);
            }
            "eval" => {
                add(&mut self.mean_iou, line.mean_iou);
                self.eval = Some(line);
            }
            "checkpoint" => self.checkpoint = Some(line),
            "skipped" => self.skipped += 1,
            _ => {}
        }
    }

    /// Reads from DIR/config.yaml how many updates there will be; a resumed run may want more than before.
    pub fn read_total(&mut self) {
        #[derive(Deserialize)]
        #[allow(non_snake_case)]
        struct Config {
            TRAIN: TrainConfig,
        }
        let Ok(text) = fs::read_to_string(self.dir.join("config.yaml")) else { return };
        if let Ok(config) = serde_yaml::from_str::<Config>(&text) {
            self.total = Some(config.TRAIN.total_steps());
        }
    }

    /// The last update that was logged.
    pub fn step(&self) -> u64 {
        self.train.as_ref().map_or(0, |line| line.step)
    }

    /// The part of the updates that is made, 0 to 1.
    pub fn part(&self) -> f64 {
        let total = self.total.unwrap_or(0).max(1);
        if self.finished { 1.0 } else { (self.step() as f64 / total as f64).min(1.0) }
    }

    /// Seconds until the last update, without evaluations.
    pub fn seconds_left(&self) -> Option<f64> {
        let mut recent: Vec<f64> = self.step_s.iter().rev().take(RECENT).copied().collect();
        recent.sort_by(f64::total_cmp);
        let step_s = recent.get(recent.len() / 2)?;
        Some(self.total?.saturating_sub(self.step()) as f64 * step_s)
    }

    /// One phrase on where the run stands.
    pub fn state(&self) -> String {
        match self.written {
            None => format!("waiting for {}", self.dir.join(crate::report::history::FILE).display()),
            Some(_) if self.finished => "finished".to_owned(),
            Some(at) => {
                // The writer's clock may be ahead of this node's.
                let ago = SystemTime::now().duration_since(at).unwrap_or(Duration::ZERO);
                format!("under way, last line {} ago", duration(ago.as_secs_f64()))
            }
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
        if let Some(line) = &self.train {
            let said = |value: Option<f64>| value.map_or("not finite".to_owned(), number);
            let accuracy = line.acc.map_or(String::new(), |accuracy| format!(", accuracy {:.1} %", 100.0 * accuracy));
            facts.push(("loss", format!("{}{accuracy}", said(line.loss))));
            let (encoder, decoder) = (said(line.lr_encoder), said(line.lr_decoder));
            facts.push(("learning rate", format!("encoder {encoder}, decoder {decoder}")));
            facts.push(("throughput", throughput(line)));
        }
        if let Some(line) = &self.eval {
            let best = self.mean_iou.iter().copied().reduce(|best, other| if other.1 > best.1 { other } else { best });
            let best = best.map_or(String::new(), |(step, iou)| format!(", best {iou:.4} at step {step}"));
            let (iou, accuracy) = (line.mean_iou.unwrap_or(0.0), 100.0 * line.pixel_accuracy.unwrap_or(0.0));
            facts.push(("mean IoU", format!("{iou:.4} at step {}, pixel accuracy {accuracy:.1} %{best}", line.step)));
        }
        if let Some(line) = &self.checkpoint {
            let failed = line.error.as_ref().map_or(String::new(), |error| format!(" failed: {error}"));
            facts.push(("checkpoint", format!("step {}{failed}", line.step)));
        }
        if self.skipped > 0 {
            facts.push(("skipped", format!("{} updates, whose loss or gradient was not finite", self.skipped)));
        }
        facts
    }
}

fn throughput(line: &Line) -> String {
    let images = line.images_per_s.map_or(String::new(), |images| format!("{} images/s, ", number(images)));
    let seconds = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.3}"));
    let (step, data, wait) = (seconds(line.step_s), seconds(line.data_s), seconds(line.comm_s));
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
