//! A confusion matrix as a picture.

use super::canvas::{Canvas, GLYPH, text_width};
use super::palette::Classes;
use crate::metrics::Confusion;

const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [30, 30, 30];
/// The colour of a share of 1; smaller shares fade to paper.
const FULL: [u8; 3] = [8, 48, 107];
/// Side of the matrix in pixels, about.
const SIDE: i64 = 600;
const MARGIN: i64 = 24;

/// Rows are the truth, each scaled to its own pixels, columns the prediction; on the right the `most` most confused pairs.
pub fn picture(confusion: &Confusion, classes: &Classes, most: usize) -> Canvas {
    let count = confusion.classes as i64;
    let cell = (SIDE / count.max(1)).max(2);
    let side = cell * count;
    let pairs: Vec<String> = confusion
        .most_confused(most)
        .iter()
        .map(|pair| {
            let share = 100.0 * pair.count as f64 / confusion.truth(pair.truth).max(1) as f64;
            format!("{} taken for {}: {share:.1}%", classes.names[pair.truth], classes.names[pair.prediction])
        })
        .collect();
    let list = pairs.iter().map(|text| text_width(text, 1)).max().unwrap_or(0);
    let height = (side + 2 * MARGIN).max(pairs.len() as i64 * 2 * GLYPH + 2 * MARGIN);
    let mut canvas = Canvas::new(side + list + 3 * MARGIN, height, PAPER);
    canvas.text((MARGIN, GLYPH), 1, "rows: truth, columns: prediction", INK);
    for truth in 0..confusion.classes {
        let whole = confusion.truth(truth).max(1) as f64;
        for prediction in 0..confusion.classes {
            let share = confusion.counts[truth * confusion.classes + prediction] as f64 / whole;
            let corner = (MARGIN + prediction as i64 * cell, MARGIN + truth as i64 * cell);
            canvas.rectangle(corner, (cell, cell), shade(share));
        }
    }
    for edge in [0, side] {
        canvas.rectangle((MARGIN, MARGIN + edge), (side + 1, 1), INK);
        canvas.rectangle((MARGIN + edge, MARGIN), (1, side + 1), INK);
    }
    for (row, text) in pairs.iter().enumerate() {
        canvas.text((side + 2 * MARGIN, MARGIN + row as i64 * 2 * GLYPH), 1, text, INK);
    }
    canvas
}

/// Small shares are what one looks for, so the root is shown.
fn shade(share: f64) -> [u8; 3] {
    let part = share.clamp(0.0, 1.0).sqrt();
    std::array::from_fn(|c| (f64::from(PAPER[c]) + part * (f64::from(FULL[c]) - f64::from(PAPER[c]))) as u8)
}
