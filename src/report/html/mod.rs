//! `segdist report`: runs as one HTML file that needs nothing else, neither a network nor a script.

mod chart;
pub mod run;

use crate::durable;
use crate::fault;
use crate::report::event::{Event, points};
use crate::report::picture::PagePicture;
use chart::Line;
use run::Run;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Line colours that the style has; more runs share them.
const COLOURS: usize = 5;

/// What a chart shows of an event.
type Value = fn(&Event) -> Option<f64>;

/// The charts: title and value.
const CHARTS: [(&str, Value); 6] = [
    ("Loss", |event| Some(event.train()?.loss)),
    ("Pixel accuracy in training", |event| Some(event.train()?.acc)),
    ("Mean IoU in evaluation", |event| Some(event.eval()?.mean_iou)),
    ("Pixel accuracy in evaluation", |event| Some(event.eval()?.pixel_accuracy)),
    ("Learning rate of the decoder", |event| Some(event.train()?.lr_decoder)),
    ("Throughput, images per second", |event| Some(event.train()?.images_per_s)),
];

/// Writes a report on the runs in `dirs` to `out`.
///
/// # Errors
/// A folder without a history; `out` cannot be written.
pub fn write(dirs: &[PathBuf], out: &Path) -> anyhow::Result<()> {
    let runs: Vec<Run> = dirs.iter().map(|dir| Run::read(dir)).collect::<Result<_, _>>()?;
    durable::write(out, page(&runs).as_bytes()).map_err(|cause| fault::unwritable(out, cause))
}

/// The page.
fn page(runs: &[Run]) -> String {
    let names: Vec<String> = runs.iter().map(|run| escape(&run.name)).collect();
    let title = format!("segdist: {}", names.join(", "));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
        <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
        <link rel=\"icon\" href=\"data:,\"><title>{title}</title>\n<style>\n{}</style></head><body>\n<h1>{title}</h1>\n",
        include_str!("style.css")
    );
    page += "<ul class=\"key\">";
    for (at, name) in names.iter().enumerate() {
        let _ = write!(page, "<li><i class=\"c{}\"></i>{name}</li>", at % COLOURS);
    }
    page += "</ul>\n<div class=\"charts\">\n";
    for (title, value) in CHARTS {
        let line =
            |(colour, run): (usize, &Run)| Line { name: run.name.clone(), colour, points: points(&run.events, value) };
        let lines: Vec<Line> = runs.iter().enumerate().map(line).collect();
        page += &chart::figure(title, &lines);
    }
    page += "</div>\n";
    page += &differences(runs);
    page += &classes(runs);
    for run in runs {
        page += &pictures(run);
    }
    for run in runs {
        page += &facts(run);
    }
    page + "</body></html>\n"
}

/// The keys on which the runs' configurations differ, if there are any.
fn differences(runs: &[Run]) -> String {
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.keys.keys()).collect();
    let value = |run: &Run, key: &String| run.keys.get(key).cloned().unwrap_or_else(|| "–".into());
    let differ = |key: &&String| runs.iter().any(|run| value(run, key) != value(&runs[0], key));
    let rows: Vec<&String> = keys.into_iter().filter(differ).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut html =
        String::from("<h2>Where the configurations differ</h2>\n<div class=\"scroll\"><table><tr><th>key</th>");
    runs.iter().for_each(|run| html += &format!("<th>{}</th>", escape(&run.name)));
    html += "</tr>\n";
    for key in rows {
        let _ = write!(html, "<tr><td>{}</td>", escape(key));
        runs.iter().for_each(|run| html += &format!("<td>{}</td>", escape(&value(run, key))));
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

/// IoU per class of every run's last evaluation, best of the first run first.
fn classes(runs: &[Run]) -> String {
    let evaluated: Vec<&Run> = runs.iter().filter(|run| run.evaluation["per_class"].is_array()).collect();
    let Some(first) = evaluated.first() else { return String::new() };
    // A class that the truth does not have counts 0 or nothing, by VAL.iou; it is no bad class.
    let iou = |run: &Run, class: usize| {
        let class = &run.evaluation["per_class"][class];
        class["iou"].as_f64().filter(|_| class["pixels"] != 0)
    };
    let count = first.evaluation["per_class"].as_array().map_or(0, Vec::len);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| iou(first, *b).unwrap_or(-1.0).total_cmp(&iou(first, *a).unwrap_or(-1.0)));
    let mut html =
        String::from("<h2>IoU per class, last evaluation</h2>\n<div class=\"scroll\"><table><tr><th>class</th>");
    for run in &evaluated {
        let _ = write!(html, "<th>{}</th>", escape(&run.name));
    }
    html += "</tr>\n";
    let mut row = |name: &str, values: &dyn Fn(&Run) -> Option<f64>| {
        let _ = write!(html, "<tr><td>{}</td>", escape(name));
        for run in &evaluated {
            let value = values(run).map_or_else(|| "absent".to_owned(), |value| format!("{value:.4}"));
            let _ = write!(html, "<td>{value}</td>");
        }
        html += "</tr>\n";
    };
    row("mean", &|run| run.evaluation["mean_iou"].as_f64());
    for class in order {
        row(first.evaluation["per_class"][class]["name"].as_str().unwrap_or("?"), &|run| iou(run, class));
    }
    html + "</table></div>\n"
}

/// The confusion matrix and some overlays.
fn pictures(run: &Run) -> String {
    let mut html = String::new();
    if let Some(picture) = &run.confusion {
        let _ = write!(
            html,
            "<h2>{}: confusion</h2>{}",
            escape(&run.name),
            figure("rows: truth, columns: prediction; a click shows a picture at its own size", picture)
        );
    }
    if !run.pictures.is_empty() {
        let _ = writeln!(html, "<h2>{}: image, truth, prediction</h2><div class=\"pictures\">", escape(&run.name));
        run.pictures.iter().for_each(|(name, picture)| html += &figure(name, picture));
        html += "</div>\n";
    }
    html
}

/// A picture as wide as there is room; a click, a tap or the space bar shows it at its own size, to be scrolled.
fn figure(caption: &str, picture: &PagePicture) -> String {
    let caption = escape(caption);
    let (mime, data) = (picture.mime, base64(&picture.bytes));
    format!(
        "<figure><figcaption>{caption}</figcaption><label class=\"zoom\"><input type=\"checkbox\" \
        aria-label=\"{caption} at its own size\"><img alt=\"{caption}\" src=\"data:{mime};base64,{data}\"></label>\
        </figure>\n"
    )
}

/// What the run resolved to, and its configuration.
fn facts(run: &Run) -> String {
    let mut html = String::new();
    if !run.about.is_empty() {
        let _ =
            writeln!(html, "<h2>{}: network, data, machine</h2><pre>{}</pre>", escape(&run.name), escape(&run.about));
    }
    if !run.config.is_empty() {
        let (name, config) = (escape(&run.name), escape(&run.config));
        let _ = writeln!(
            html,
            "<h2>{name}: configuration</h2><details><summary>config.yaml</summary><pre>{config}</pre></details>"
        );
    }
    html
}

/// Text that can stand in HTML's text and attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let known = digit <= group.len();
            text.push(if known { DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_standards_examples() {
        assert_eq!(
            ["", "f", "fo", "foo", "foobar"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]
        );
    }

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }
}
