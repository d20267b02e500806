//! The lines of metrics.jsonl: one type for whoever writes and whoever reads them.
//!
//! A reader takes a line for what it understands of it. A field that is missing, null (a number that was not finite) or of
//! another type is NaN; an event of another version is [`Event::Other`].

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Finished updates.
    pub step: u64,
    /// What happened.
    pub event: Event,
}

/// What happened; `event` in the line is the variant's name in lower case.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A start of the run, from this step on.
    Start(Start),
    /// Means over the updates since the line before.
    Train(Train),
    /// An evaluation.
    Eval(Eval),
    /// A checkpoint was written, or failed.
    Checkpoint(Checkpoint),
    /// An update was not made, since its loss or gradient was not finite.
    Skipped {
        /// In words.
        cause: String,
    },
    /// The run stopped on request, after a checkpoint.
    Stopped {},
    /// All updates are made and saved.
    Finished {},
    /// An event that this version does not know.
    #[serde(other)]
    Other,
}

/// Who trains.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Number of ranks.
    pub ranks: usize,
    /// Host of rank 0.
    pub host: String,
    /// Process of rank 0 there.
    pub pid: u32,
}

/// How a checkpoint was written; times in seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// That training stood still for the copy of the tensors.
    pub stopped_s: f64,
    /// That it stood still before that, for the checkpoint before to be finished.
    pub waited_s: f64,
    /// Of copying and writing, beside training.
    pub write_s: f64,
    /// Of its files.
    pub bytes: u64,
    /// Why there is no such checkpoint, if so.
    pub error: Option<String>,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint { stopped_s: f64::NAN, waited_s: f64::NAN, write_s: f64::NAN, bytes: 0, error: None }
    }
}

/// A struct of numbers, each NaN where a line does not give it, and of counts, which are 0 then.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $field:ident,)* } $($(#[$of_count:meta])* $count:ident,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$of])* #[serde(deserialize_with = "number")] pub $field: f64,)*
            $($(#[$of_count])* #[serde(deserialize_with = "count")] pub $count: u64,)*
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: f64::NAN,)* $($count: 0,)* }
            }
        }
    };
}

numbers! {
    /// Means over updates; times in seconds.
    Train {
        /// Finished updates ÷ TRAIN.epoch_iters.
        epoch,
        /// Training loss.
        loss,
        /// Pixel accuracy, 0 to 1.
        acc,
        /// Learning rate of the encoder.
        lr_encoder,
        /// Learning rate of the decoder.
        lr_decoder,
        /// A step takes.
        step_s,
        /// Of it, waiting for data.
        data_s,
        /// Of it, waiting for other ranks.
        comm_s,
        /// Over all ranks.
        images_per_s,
    }
    /// Reads of samples that were tried again, over all ranks.
    read_retries,
    /// Reads that failed to the last attempt.
    read_failures,
    /// Samples that took the place of damaged ones.
    substituted,
}

numbers! {
    /// Scores of an evaluation, 0 to 1.
    Eval {
        /// By the rule of VAL.iou.
        mean_iou,
        /// Share of labelled pixels that are right.
        pixel_accuracy,
        /// Mean over the classes that the truth has.
        mean_accuracy,
    }
}

fn number<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    // No measure is so large; what a chart computes from such numbers is not finite.
    const LARGEST: f64 = 1e100;
    Ok(Value::deserialize(value)?.as_f64().filter(|number| number.abs() <= LARGEST).unwrap_or(f64::NAN))
}

fn count<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    Ok(Value::deserialize(value)?.as_u64().unwrap_or(0))
}

impl Line {
    /// The line's text: one JSON object, `event` and `step` first, numbers that are not finite as null, a newline.
    pub fn text(&self) -> serde_json::Result<String> {
        let Value::Object(fields) = serde_json::to_value(&self.event)? else {
            unreachable!("a tagged enum becomes an object")
        };
        let mut line = Map::new();
        for (name, value) in fields {
            line.insert(name, value);
            // The tag is the first.
            line.entry("step").or_insert(self.step.into());
        }
        Ok(format!("{}\n", Value::Object(line)))
    }

    /// Reads a line; None where it is no object with a step: half a line, or something else's.
    pub fn parse(text: &[u8]) -> Option<Line> {
        let value: Value = serde_json::from_slice(text).ok()?;
        let step = value["step"].as_u64()?;
        Some(Line { step, event: Event::deserialize(value).unwrap_or(Event::Other) })
    }

    /// The lines of a whole file, whatever is no line left out.
    pub fn parse_all(text: &[u8]) -> Vec<Line> {
        text.split(|byte| *byte == b'\n').filter_map(Line::parse).collect()
    }
}

impl Event {
    /// Its training means, if it is of training.
    pub fn train(&self) -> Option<&Train> {
        if let Event::Train(train) = self { Some(train) } else { None }
    }

    /// Its scores, if it is an evaluation.
    pub fn eval(&self) -> Option<&Eval> {
        if let Event::Eval(eval) = self { Some(eval) } else { None }
    }
}

/// (step, value) of the lines for which `of` knows a value that is finite.
pub fn points(lines: &[Line], of: impl Fn(&Event) -> Option<f64>) -> Vec<(f64, f64)> {
    let point = |line: &Line| Some((line.step as f64, of(&line.event).filter(|value| value.is_finite())?));
    lines.iter().filter_map(point).collect()
}
