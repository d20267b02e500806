//! A confusion matrix as a picture.

use super::canvas::{Canvas, GLYPH, text_width};
use super::palette::Classes;
use crate::metrics::{Confused, Confusion};

const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [30, 30, 30];
/// The colour of a share of 1; smaller shares fade to paper.
const FULL: [u8; 3] = [8, 48, 107];
/// Side of the matrix in pixels, about.
const SIDE: i64 = 600;
const MARGIN: i64 = 24;
/// Where the matrix begins, below its title and the columns' numbers.
const TOP: i64 = 2 * MARGIN - GLYPH;

/// Rows are the truth, each scaled to its own pixels, columns the prediction; on the right the `most` most confused pairs.
///
/// Rows carry their classes' names where there is room for all, else numbers as far as there is; columns carry numbers.
pub fn picture(confusion: &Confusion, classes: &Classes, most: usize) -> Canvas {
    let count = confusion.classes as i64;
    let cell = (SIDE / count.max(1)).max(2);
    let side = cell * count;
    let rows = row_names(classes, cell);
    let pairs = pair_names(confusion, classes, most);
    let widest = |texts: &mut dyn Iterator<Item = &String>| texts.map(|text| text_width(text, 1)).max().unwrap_or(0);
    let left = MARGIN + widest(&mut rows.iter().map(|(_, name)| name));
    let right = left + side + MARGIN;
    let height = (side + 3 * MARGIN).max(pairs.len() as i64 * 2 * GLYPH + 3 * MARGIN);
    let mut canvas = Canvas::new(right + widest(&mut pairs.iter()) + MARGIN, height, PAPER);
    canvas.text((left, GLYPH), 1, "rows: truth, columns: prediction", INK);
    let middle = |class: i64| class * cell + (cell - GLYPH) / 2;
    for (class, name) in &rows {
        canvas.text((left - GLYPH / 2 - text_width(name, 1), TOP + middle(*class)), 1, name, INK);
    }
    for class in (0..count).step_by(every(cell, 4 * GLYPH)) {
        let number = class.to_string();
        let centred = left + class * cell + (cell - text_width(&number, 1)) / 2;
        canvas.text((centred, TOP - GLYPH - 2), 1, &number, INK);
    }
    draw_cells(&mut canvas, confusion, (left, cell));
    for (row, text) in pairs.iter().enumerate() {
        canvas.text((right, TOP + row as i64 * 2 * GLYPH), 1, text, INK);
    }
    canvas
}

fn draw_cells(canvas: &mut Canvas, confusion: &Confusion, (left, cell): (i64, i64)) {
    let side = cell * confusion.classes as i64;
    for truth in 0..confusion.classes {
        let whole = confusion.truth(truth).max(1) as f64;
        for prediction in 0..confusion.classes {
            let share = confusion.counts[truth * confusion.classes + prediction] as f64 / whole;
            let corner = (left + prediction as i64 * cell, TOP + truth as i64 * cell);
            canvas.rectangle(corner, (cell, cell), shade(share));
        }
    }
    for edge in [0, side] {
        canvas.rectangle((left, TOP + edge), (side + 1, 1), INK);
        canvas.rectangle((left + edge, TOP), (1, side + 1), INK);
    }
}

/// What stands in front of the rows: class and text.
fn row_names(classes: &Classes, cell: i64) -> Vec<(i64, String)> {
    let step = every(cell, GLYPH + 2);
    let name = |class: usize| match step {
        1 => format!("{class}: {}", classes.label(class)),
        _ => class.to_string(),
    };
    (0..classes.count()).step_by(step).map(|class| (class as i64, name(class))).collect()
}

/// The most confused pairs in words.
fn pair_names(confusion: &Confusion, classes: &Classes, most: usize) -> Vec<String> {
    let name = |pair: &Confused| {
        let share = 100.0 * pair.count as f64 / confusion.truth(pair.truth).max(1) as f64;
        format!("{} taken for {}: {share:.1}%", classes.label(pair.truth), classes.label(pair.prediction))
    };
    confusion.most_confused(most).iter().map(name).collect()
}

/// The smallest round number of cells that have `room` pixels.
fn every(cell: i64, room: i64) -> usize {
    [1, 2, 5, 10, 20].into_iter().find(|cells| *cells as i64 * cell >= room).unwrap_or(50)
}

/// Small shares are what one looks for, so the root is shown.
fn shade(share: f64) -> [u8; 3] {
    let part = share.clamp(0.0, 1.0).sqrt();
    std::array::from_fn(|c| (f64::from(PAPER[c]) + part * (f64::from(FULL[c]) - f64::from(PAPER[c]))) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_where_all_fit_and_numbered_otherwise() {
        let names = |classes: usize| row_names(&Classes::new(classes, None, None), (SIDE / classes as i64).max(2));
        assert_eq!(names(60)[59], (59, "59: class 59".into()));
        assert_eq!(names(150).iter().map(|(class, _)| *class).take(3).collect::<Vec<_>>(), [0, 5, 10]);
        assert_eq!(names(150)[1].1, "5");
    }

    #[test]
    fn any_number_of_classes_makes_a_picture() {
        for classes in [0, 1, 2, 60, 61, 256] {
            let mut confusion = Confusion::new(classes);
            confusion.counts.fill(3);
            let canvas = picture(&confusion, &Classes::new(classes, None, None), 5);
            assert!(canvas.height >= 2 * classes as i64 && canvas.width > canvas.height / 2, "{classes}");
        }
    }
}
