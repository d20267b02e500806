//! The result of an evaluation, and the forms it is given in.

use crate::durable;
use crate::fault;
use crate::metrics::{Confusion, Iou};
use crate::report::palette::Classes;
use crate::report::{canvas::Canvas, matrix, table};
use crate::run_dir::RunDir;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// How many confused pairs are listed.
const CONFUSED: usize = 10;

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Mean IoU by the rule of VAL.iou, 0 to 1.
    pub mean_iou: f64,
    /// Share of labelled pixels that are right.
    pub pixel_accuracy: f64,
    /// Mean accuracy of the classes that the truth has.
    pub mean_accuracy: f64,
    /// VAL.iou.
    pub rule: Iou,
    /// Mean negative log likelihood of the truth, with VAL.loss.
    pub loss: Option<f64>,
    /// Boundary IoU per class, with VAL.boundary.
    pub boundary: Option<Vec<Option<f64>>>,
    /// All counts.
    pub confusion: Confusion,
    /// Names and colours.
    pub classes: Classes,
    /// Images evaluated, over all ranks.
    pub images: usize,
    /// How long it took.
    pub seconds: f64,
}

impl Outcome {
    /// Images a second, over all ranks.
    pub fn images_per_s(&self) -> f64 {
        self.images as f64 / self.seconds.max(1e-9)
    }

    /// Every class from best to worst, then the summary.
    pub fn table(&self) -> String {
        format!("{}\n{}", table::per_class(&self.confusion, &self.classes), self.summary())
    }

    /// One line in the reference's form, and one with the measures that it has not.
    pub fn summary(&self) -> String {
        let mut text = format!(
            "[Eval Summary]: Mean IoU: {:.4}, Accuracy: {:.2}%\nmean accuracy {:.4}, frequency-weighted IoU {:.4}, Dice {:.4}",
            self.mean_iou,
            100.0 * self.pixel_accuracy,
            self.mean_accuracy,
            self.confusion.frequency_weighted_iou(),
            self.confusion.mean_dice(),
        );
        for (name, value) in [("boundary IoU", self.mean_boundary_iou()), ("loss", self.loss)] {
            if let Some(value) = value {
                let _ = write!(text, ", {name} {value:.4}");
            }
        }
        let _ = write!(text, "; {} images, {:.2} images/s", self.images, self.images_per_s());
        text
    }

    /// The object that `segdist eval --json` prints; `weights` says where the network came from.
    pub fn json(&self, weights: &str) -> Value {
        let (iou, accuracy, dice) = (self.confusion.iou(), self.confusion.accuracy(), self.confusion.dice());
        let class = |class: usize| {
            json!({
                "name": self.classes.names[class],
                "iou": self.absent_counts(iou[class]),
                "accuracy": self.absent_counts(accuracy[class]),
                "dice": self.absent_counts(dice[class]),
                "pixels": self.confusion.truth(class),
            })
        };
        let mut object = json!({
            "mean_iou": self.mean_iou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "frequency_weighted_iou": self.confusion.frequency_weighted_iou(),
            "mean_dice": self.confusion.mean_dice(),
            "per_class": (0..self.confusion.classes).map(class).collect::<Vec<_>>(),
            "images": self.images,
            "images_per_s": self.images_per_s(),
            "weights": weights,
        });
        for (name, value) in [("boundary_iou", self.mean_boundary_iou()), ("loss", self.loss)] {
            if let Some(value) = value {
                object[name] = json!(value);
            }
        }
        object
    }

    /// A measure of an absent class: 0 where such classes count 0, null where they do not count.
    fn absent_counts(&self, measure: Option<f64>) -> Option<f64> {
        measure.or((self.rule == Iou::Reference).then_some(0.0))
    }

    fn mean_boundary_iou(&self) -> Option<f64> {
        let present: Vec<f64> = self.boundary.as_ref()?.iter().copied().flatten().collect();
        Some(present.iter().sum::<f64>() / present.len().max(1) as f64)
    }

    /// Writes the table per class to `path`, and beside it the confusion matrix: `<stem>.confusion.csv` (rows are the
    /// truth) and `<stem>.confusion.png`.
    pub fn write_csv(&self, path: &Path) -> anyhow::Result<()> {
        let write =
            |path: &Path, bytes: &[u8]| durable::write(path, bytes).map_err(|cause| fault::unwritable(path, cause));
        write(path, self.csv().as_bytes())?;
        write(&path.with_extension("confusion.csv"), self.confusion_csv().as_bytes())?;
        write(&path.with_extension("confusion.png"), &self.picture().png()?)
    }

    /// Writes what a run's folder keeps of its last evaluation: the object of [`Outcome::json`], the table per class, the
    /// confusion matrix and its picture.
    pub fn keep(&self, dir: &RunDir, weights: &str) -> anyhow::Result<()> {
        self.write_csv(&dir.evaluation_table())?;
        let path = dir.evaluation();
        durable::write(&path, format!("{:#}\n", self.json(weights)).as_bytes())
            .map_err(|cause| fault::unwritable(&path, cause))
    }

    fn csv(&self) -> String {
        let (iou, accuracy, dice) = (self.confusion.iou(), self.confusion.accuracy(), self.confusion.dice());
        let mut text = String::from("class,name,iou,accuracy,dice,pixels\n");
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        for class in 0..self.confusion.classes {
            let measures = [iou[class], accuracy[class], dice[class]].map(number).join(",");
            let pixels = self.confusion.truth(class);
            let _ = writeln!(text, "{class},{},{measures},{pixels}", quoted(&self.classes.names[class]));
        }
        text
    }

    fn confusion_csv(&self) -> String {
        let names: Vec<String> = self.classes.names.iter().map(|name| quoted(name)).collect();
        let mut text = format!("truth,{}\n", names.join(","));
        for (name, row) in names.iter().zip(self.confusion.counts.chunks(self.confusion.classes.max(1))) {
            let counts: Vec<String> = row.iter().map(i64::to_string).collect();
            let _ = writeln!(text, "{name},{}", counts.join(","));
        }
        text
    }

    /// The confusion matrix as a picture, the most confused pairs listed beside it.
    pub fn picture(&self) -> Canvas {
        matrix::picture(&self.confusion, &self.classes, CONFUSED)
    }
}

/// A CSV field. What a spreadsheet would compute (`=cmd`) stays text by a quote in front.
fn quoted(text: &str) -> String {
    let computed = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if computed { format!("'{text}") } else { text.to_string() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_spreadsheet_computes_no_name() {
        let fields = ["road", "a,b", "say \"x\"", "=cmd|' /C calc'!A0", "-1", "@sum"].map(quoted);
        assert_eq!(fields, ["road", "\"a,b\"", "\"say \"\"x\"\"\"", "'=cmd|' /C calc'!A0", "'-1", "'@sum"]);
    }
}
