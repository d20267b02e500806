//! A line chart as SVG: no script, a hover text on every point, colours from the page's style.

use crate::report::axis::{Axis, number};
use std::fmt::Write;

/// Drawing area in user units; the page scales it to its own width.
const SIZE: (f64, f64) = (640.0, 300.0);
/// Room for numbers around the plot: left, top, right, bottom.
const FRAME: (f64, f64, f64, f64) = (78.0, 12.0, 20.0, 36.0);
/// Room between the axes and the outermost points.
const INSET: f64 = 8.0;
/// How many points a line keeps; a screen shows no more.
const MOST: usize = 400;

/// One run's values over steps.
pub struct Line {
    /// The run's name, as hover texts give it.
    pub name: String,
    /// Which of the page's line colours, from 0.
    pub colour: usize,
    /// (step, value), in order of steps; values that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// The chart as a figure with its title; empty where no line has a point.
pub fn figure(title: &str, lines: &[Line]) -> String {
    let lines: Vec<(&Line, Vec<(f64, f64)>)> = lines.iter().map(|line| (line, thinned(&line.points))).collect();
    let points = || lines.iter().flat_map(|(_, points)| points);
    if points().next().is_none() {
        return String::new();
    }
    let axis = |values: Vec<f64>, from: f64, to: f64| Axis::over(values, 1e-6, 5.0, (from, to));
    let x_axis = axis(points().map(|point| point.0).collect(), FRAME.0 + INSET, SIZE.0 - FRAME.2);
    let y_axis = axis(points().map(|point| point.1).collect(), SIZE.1 - FRAME.3 - INSET, FRAME.1);
    let (width, height) = SIZE;
    let title = super::escape(title);
    let mut svg = format!(
        "<figure class=\"chart\"><figcaption>{title}</figcaption>\
        <svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">"
    );
    grid(&mut svg, &x_axis, &y_axis);
    for (line, points) in &lines {
        let class = format!("line c{}", line.colour % super::COLOURS);
        let place = |(x, y): &(f64, f64)| format!("{:.1},{:.1}", x_axis.place(*x), y_axis.place(*y));
        let path: Vec<String> = points.iter().map(place).collect();
        let _ = write!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", path.join(" "));
        // Few points may be all there is to see, many would hide the line.
        let radius = match points.len() {
            0..10 => 5,
            10..30 => 3,
            _ => 2,
        };
        for (x, y) in points {
            let (name, left, top) = (super::escape(&line.name), x_axis.place(*x), y_axis.place(*y));
            let _ = write!(
                svg,
                "<circle class=\"point c{}\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"{}\"><title>{name}, step {x}: {}</title></circle>",
                line.colour % super::COLOURS,
                radius,
                number(*y),
            );
        }
    }
    svg + "</svg></figure>"
}

fn grid(svg: &mut String, x_axis: &Axis, y_axis: &Axis) {
    let (right, bottom) = (SIZE.0 - FRAME.2, SIZE.1 - FRAME.3);
    for tick in y_axis.ticks() {
        let y = y_axis.place(tick);
        let _ = write!(svg, "<line class=\"grid\" x1=\"{}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", FRAME.0);
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            FRAME.0 - 6.0,
            y + 4.0,
            y_axis.label(tick)
        );
    }
    for tick in x_axis.ticks() {
        let x = x_axis.place(tick);
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 22.0,
            x_axis.label(tick)
        );
    }
    let _ = write!(svg, "<line class=\"axis\" x1=\"{}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>", FRAME.0);
}

/// At most [`MOST`] of the finite points, evenly spaced, the last one among them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<_> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let every = finite.len().div_ceil(MOST).max(1);
    finite.iter().rev().step_by(every).rev().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_thinned_to_their_last_point() {
        let points: Vec<_> = (0..10_000).map(|at| (f64::from(at), 1.0)).collect();
        let thinned = thinned(&points);
        assert!(thinned.len() <= MOST && thinned.last() == points.last());
    }
}
