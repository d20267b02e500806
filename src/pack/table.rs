//! What was packed: pixels of each label value and class, as a table and as JSON.

use super::{Finished, Rules};
use crate::data::label_map::IGNORED;
use crate::shard::Index;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

/// Pixels of each stored label value.
pub fn values(finished: &[Finished]) -> Vec<u64> {
    (0..256).map(|value| finished.iter().map(|shard| shard.pixels[value]).sum()).collect()
}

/// Pixels of each class, and of none.
pub fn by_class(values: &[u64], rules: &Rules) -> (Vec<u64>, u64) {
    let mut classes = vec![0; rules.num_class.unwrap_or(0)];
    let mut ignored = 0;
    for (value, &count) in (0..=255u8).zip(values).filter(|(_, count)| **count > 0) {
        match rules.map().class(value) {
            None | Some(IGNORED) => ignored += count,
            Some(class) => {
                classes.resize(classes.len().max(class as usize + 1), 0);
                classes[class as usize] += count;
            }
        }
    }
    (classes, ignored)
}

/// The classes that each record shows.
pub fn seen(finished: &[Finished], rules: &Rules) -> Vec<Vec<u8>> {
    let classes = |values: &Vec<u8>| {
        let classes = values.iter().filter_map(|&value| u8::try_from(rules.map().class(value)?).ok());
        classes.collect::<std::collections::BTreeSet<u8>>().into_iter().collect()
    };
    finished.iter().flat_map(|shard| &shard.seen).map(classes).collect()
}

/// A row for each label value that occurs.
pub fn table(values: &[u64], index: &Index, rules: &Rules) -> Table {
    let total: u64 = values.iter().sum();
    let class = |value: u8| match rules.map().class(value) {
        None => String::new(),
        Some(IGNORED) => "ignored".into(),
        Some(class) => match index.classes.as_ref().and_then(|names| names.get(class as usize)) {
            Some(name) => format!("{class} {name}"),
            None => class.to_string(),
        },
    };
    let mut table = Table::new();
    table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED).set_header(["label value", "class", "pixels", "share"]);
    for (value, &count) in (0..=255u8).zip(values).filter(|(_, count)| **count > 0) {
        let share = format!("{:.2} %", 100.0 * count as f64 / total as f64);
        let raw = if rules.translates() { String::new() } else { value.to_string() };
        table.add_row([raw, class(value), count.to_string(), share]);
    }
    for column in [0, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// One object: `images`, `classes` (pixels of each class, by index), `ignored` (pixels), `names`, `shards`, `bytes`,
/// `dataset_id`.
pub fn json(index: &Index) -> serde_json::Value {
    json!({
        "images": index.shards.iter().map(|shard| u64::from(shard.records)).sum::<u64>(),
        "classes": index.pixels,
        "ignored": index.ignored,
        "names": index.classes,
        "shards": index.shards.len(),
        "bytes": index.shards.iter().map(|shard| shard.bytes).sum::<u64>(),
        "dataset_id": index.dataset_id(),
    })
}
