//! `curve.png`: a run's loss (axis on the left), accuracy and mean IoU (on the right) over its steps, read back from
//! metrics.jsonl.

use super::curve::{Series, Side, chart};
use super::event::{Line, points};
use crate::durable;
use crate::run_dir::RunDir;
use anyhow::Context;

/// Draws the curve from the history; nothing where no step was logged.
pub fn draw(dir: &RunDir) -> anyhow::Result<()> {
    let path = dir.history();
    let text = std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let lines = Line::parse_all(&text);
    let loss = points(&lines, |event| Some(event.train()?.loss));
    let accuracy = points(&lines, |event| Some(event.train()?.acc));
    let iou = points(&lines, |event| Some(event.eval()?.mean_iou));
    if loss.is_empty() {
        return Ok(());
    }
    let series = [
        Series { name: "loss", points: &loss, side: Side::Left },
        Series { name: "pixel accuracy", points: &accuracy, side: Side::Right },
        Series { name: "mean IoU", points: &iou, side: Side::Right },
    ];
    let title = dir.path().file_name().unwrap_or_default().to_string_lossy();
    let picture = chart(&title, ["loss", "step", "scores"], &series).png()?;
    let path = dir.curve();
    durable::write(&path, &picture).with_context(|| format!("{}: cannot be written", path.display()))
}
