//! What parts of a run cost on this machine: a training step, a sum over ranks, loading.

pub mod allreduce;
pub mod loader;
pub mod overlap;
pub mod step;

use comfy_table::Table;
use serde_json::Value;

/// The middle one; NaN of none. Sorts `values`.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CPU seconds that all threads of this process have taken so far, to a hundredth: what other work on the machine adds
/// least to.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, in user mode and in the kernel, in ticks; the second field, a name, ends in a bracket.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / rustix::param::clock_ticks_per_second() as f64
}

/// Prints one JSON object, or the same as a table: its `rows` where it has some, else its own fields.
fn print(result: &Value, json: bool) {
    if json {
        println!("{result}");
        return;
    }
    let own = vec![result.clone()];
    let rows = result.get("rows").and_then(Value::as_array).unwrap_or(&own);
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    if let Some(Value::Object(first)) = rows.first() {
        table.set_header(first.keys());
    }
    for row in rows.iter().filter_map(Value::as_object) {
        table.add_row(row.values().map(text));
    }
    println!("{table}");
}

fn text(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if !value.is_u64() => format!("{number:.4}"),
        _ => value.to_string(),
    }
}
