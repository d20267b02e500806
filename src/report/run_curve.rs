//! `curve.png`: a run's loss, accuracy and mean IoU over its steps, read back from metrics.jsonl.

use super::curve::{Series, chart};
use super::{history, write_whole};
use anyhow::Context;
use std::path::Path;

/// Draws `dir/curve.png` from `dir/metrics.jsonl`; nothing where no step was logged.
pub fn draw(dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(history::FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let lines: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let points = |event: &str, field: &str| -> Vec<(f64, f64)> {
        let point = |line: &serde_json::Value| Some((line["step"].as_f64()?, line[field].as_f64()?));
        lines.iter().filter(|line| line["event"] == event).filter_map(point).collect()
    };
    let (loss, accuracy, iou) = (points("train", "loss"), points("train", "acc"), points("eval", "mean_iou"));
    if loss.is_empty() {
        return Ok(());
    }
    let series = [
        Series { name: "loss", points: &loss },
        Series { name: "pixel accuracy", points: &accuracy },
        Series { name: "mean IoU", points: &iou },
    ];
    let title = dir.file_name().unwrap_or_default().to_string_lossy();
    let picture = chart(&title, "step", &series).png()?;
    let path = dir.join("curve.png");
    write_whole(&path, &picture).with_context(|| format!("{}: cannot be written", path.display()))
}
