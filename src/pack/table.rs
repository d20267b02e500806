//! The table of what was packed: pixels of each label value.

use super::{Finished, Index, Rules};
use crate::data::label_map::IGNORED;
use comfy_table::{CellAlignment, Table, presets};

/// A row for each label value that occurs.
pub fn classes(finished: &[Finished], index: &Index, rules: &Rules) -> Table {
    let pixels = |value: usize| finished.iter().map(|shard| shard.pixels[value]).sum::<u64>();
    let total: u64 = (0..256).map(pixels).sum();
    let map = rules.map.as_ref();
    let class = |value: u8| match map.and_then(|map| map.class(value)) {
        None => String::new(),
        Some(IGNORED) => "ignored".into(),
        Some(class) => match index.classes.as_ref().and_then(|names| names.get(class as usize)) {
            Some(name) => format!("{class} {name}"),
            None => class.to_string(),
        },
    };
    let mut table = Table::new();
    table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED).set_header(["label value", "class", "pixels", "share"]);
    for value in (0..=255u8).filter(|&value| pixels(value.into()) > 0) {
        let count = pixels(value.into());
        let share = format!("{:.2} %", 100.0 * count as f64 / total as f64);
        table.add_row([value.to_string(), class(value), count.to_string(), share]);
    }
    for column in [0, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
