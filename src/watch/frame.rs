//! The frame that a terminal shows, and its plain text.

use super::status::Status;
use crate::report::axis::{Axis, number};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Block, Chart, Dataset, Gauge, GraphType, Paragraph};
use std::fmt::Write;

const LOSS: Color = Color::Cyan;
const MEAN_IOU: Color = Color::Green;
const THROUGHPUT: Color = Color::Yellow;
/// Fewer rows than this have no room for the throughput's curve; its last number is shown in any case.
const TALL: u16 = 22;
/// Width of a name in front of its numbers.
const NAMES: usize = 15;

/// Everything as lines of text.
pub fn plain(status: &Status) -> String {
    let mut text = format!("{}: {}\n", status.dir.path().display(), status.state());
    if status.written.is_some() {
        let _ = writeln!(text, "{}", status.progress());
    }
    for (name, value) in status.facts() {
        let _ = writeln!(text, "{name:NAMES$}{value}");
    }
    text
}

/// Everything, over the whole terminal.
pub fn draw(frame: &mut Frame, status: &Status) {
    let facts: Vec<Line> = status
        .facts()
        .into_iter()
        .map(|(name, value)| Line::from(vec![format!("{name:NAMES$}").dim(), value.into()]))
        .collect();
    let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1)];
    let rows = rows.into_iter().chain([Constraint::Length(facts.len() as u16), Constraint::Length(1)]);
    let [title, bar, charts, numbers, help] = Layout::vertical(rows).areas(frame.area());
    let name = status.dir.path().display().to_string();
    frame.render_widget(Line::from(vec![name.bold(), ": ".into(), status.state().into()]), title);
    let gauge = Gauge::default().gauge_style(Style::new().fg(Color::Blue).bg(Color::Black));
    frame.render_widget(gauge.ratio(status.part()).label(status.progress()), bar);
    draw_charts(frame, status, charts);
    frame.render_widget(Paragraph::new(facts), numbers);
    frame.render_widget("q or Ctrl-C leaves; the run goes on".dim(), help);
}

/// The loss, beside it the mean IoU once there is one, below them the throughput where there is room.
fn draw_charts(frame: &mut Frame, status: &Status, area: Rect) {
    let below = if area.height >= TALL { Constraint::Percentage(30) } else { Constraint::Length(0) };
    let [above, below] = Layout::vertical([Constraint::Fill(1), below]).areas(area);
    let right = if status.mean_iou.is_empty() { Constraint::Length(0) } else { Constraint::Percentage(40) };
    let [left, right] = Layout::horizontal([Constraint::Fill(1), right]).areas(above);
    draw_chart(frame, left, "loss", &status.loss, LOSS);
    draw_chart(frame, right, "mean IoU", &status.mean_iou, MEAN_IOU);
    draw_chart(frame, below, "images/s", &status.images_per_s, THROUGHPUT);
}

fn draw_chart(frame: &mut Frame, area: Rect, title: &str, points: &[(f64, f64)], colour: Color) {
    // A character has two columns of dots.
    let points = means(points, 2 * usize::from(area.width));
    let axis = |values: Vec<f64>| {
        let [low, high] = Axis::over(values, 1e-6, 1.0, (0.0, 1.0)).range();
        let labels = [low, (low + high) / 2.0, high].map(number);
        ratatui::widgets::Axis::default().bounds([low, high]).labels(labels).style(Style::new().dim())
    };
    let data = Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).style(colour).data(&points);
    let steps = ratatui::widgets::Axis::labels(
        axis(points.iter().map(|point| point.0).collect()),
        points.first().into_iter().chain(points.last()).map(|point| format!("{:.0}", point.0)),
    );
    let values = axis(points.iter().map(|point| point.1).collect());
    let block = Block::bordered().border_style(Style::new().dim()).title(format!(" {title} "));
    frame.render_widget(Chart::new(vec![data]).block(block).x_axis(steps).y_axis(values), area);
}

/// At most `most` points: means of neighbours where there are more.
fn means(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let mean = |group: &[(f64, f64)]| {
        let sum = group.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / group.len() as f64, sum.1 / group.len() as f64)
    };
    points.chunks(points.len().div_ceil(most.max(1)).max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::path::Path;
    use std::time::SystemTime;

    /// What a terminal of this size shows, row by row.
    fn drawn(status: &Status, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, status)).unwrap();
        let cells = terminal.backend().buffer().content().chunks(usize::from(width));
        cells.map(|row| row.iter().map(|cell| cell.symbol()).collect()).collect()
    }

    fn status(steps: u32) -> Status {
        let mut status = Status::new(Path::new("runs/street"));
        (status.written, status.total) = (Some(SystemTime::now()), Some(2000));
        for step in 1..=steps {
            let loss = 3.0 / f64::from(step);
            status.add(&format!(
                "{{\"event\":\"train\",\"step\":{step},\"loss\":{loss},\"step_s\":0.5,\"images_per_s\":8}}"
            ));
        }
        status
    }

    #[test]
    fn a_terminal_shows_curves_and_numbers_at_any_size() {
        let mut status = status(1000);
        let dots =
            |rows: &[String]| rows.concat().chars().filter(|sign| ('\u{2801}'..='\u{28ff}').contains(sign)).count();
        let rows = drawn(&status, 80, 24);
        assert!(rows[0].contains("runs/street: under way"), "{rows:#?}");
        assert!(rows[1].contains("step 1000 of 2000 (50.0 %), ETA 8 min 20 s"), "{rows:#?}");
        let whole = rows.join("\n");
        assert!(whole.contains(" loss ") && whole.contains("8.000 images/s") && !whole.contains(" mean IoU "));
        assert!(dots(&rows) > 30, "{rows:#?}");
        status.add("{\"event\":\"eval\",\"step\":900,\"mean_iou\":0.25,\"pixel_accuracy\":0.75}");
        let rows = drawn(&status, 100, 40);
        let whole = rows.join("\n");
        assert!(whole.contains(" mean IoU ") && whole.contains(" images/s ") && whole.contains("0.2500 at step 900"));
        for (width, height) in [(1, 1), (10, 3), (40, 12), (300, 100)] {
            drawn(&status, width, height);
        }
    }

    #[test]
    fn a_run_without_a_line_is_waited_for() {
        let rows = drawn(&Status::new(Path::new("runs/later")), 80, 24);
        assert!(rows[0].contains("waiting for runs/later/metrics.jsonl"), "{rows:#?}");
    }

    #[test]
    fn many_points_become_few_means() {
        let points: Vec<_> = (0..10).map(|at| (f64::from(at), 2.0 * f64::from(at))).collect();
        assert_eq!(means(&points, 3), [(1.5, 3.0), (5.5, 11.0), (8.5, 17.0)]);
        assert_eq!(means(&points, 10), points);
        assert_eq!(means(&[], 10), []);
    }
}
