//! Tables for the terminal.

use super::palette::Classes;
use crate::metrics::Confusion;
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};

/// Every class with IoU, accuracy, Dice and its share of the labelled pixels, best IoU first.
///
/// Classes in neither truth nor prediction stand at the end, with dashes.
pub fn per_class(confusion: &Confusion, classes: &Classes) -> String {
    let (iou, accuracy, dice) = (confusion.iou(), confusion.accuracy(), confusion.dice());
    let mut order: Vec<usize> = (0..confusion.classes).collect();
    order.sort_by(|a, b| iou[*b].unwrap_or(-1.0).total_cmp(&iou[*a].unwrap_or(-1.0)));
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["class", "name", "IoU", "accuracy", "Dice", "share"]);
    let pixels = confusion.pixels().max(1) as f64;
    for class in order {
        let share = confusion.truth(class) as f64 / pixels;
        let measures = [iou[class], accuracy[class], dice[class]].map(|value| number(value, 4));
        let [iou, accuracy, dice] = measures;
        table.add_row([class.to_string(), classes.names[class].clone(), iou, accuracy, dice, percent(share)]);
    }
    for column in [0, 2, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Pairs of a name and a value, one a line.
pub fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    for (name, value) in facts {
        table.add_row([name.to_string(), value]);
    }
    table.to_string()
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_string(), |value| format!("{value:.digits$}"))
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}
