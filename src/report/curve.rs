//! Line charts as pictures: loss and accuracy over steps.

use super::axis::Axis;
use super::canvas::{Canvas, GLYPH, text_width};

const SIZE: (i64, i64) = (960, 540);
const PAPER: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [40, 40, 40];
const GRID: [u8; 3] = [225, 225, 225];
/// Room for numbers and names around the plot: left, top, right, bottom.
const FRAME: (i64, i64, i64, i64) = (90, 40, 80, 50);
/// Colours of the series, in order (Okabe and Ito's set, which colour-blind people can tell apart).
const COLOURS: [[u8; 3]; 5] = [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167], [230, 159, 0]];

/// Which of the two vertical axes a row is drawn by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one on the left, whose round numbers cross the plot.
    Left,
    /// The one on the right; it is there where a row wants it.
    Right,
}

/// A named row of (x, y).
pub struct Series<'a> {
    /// As the legend gives it.
    pub name: &'a str,
    /// In order of x; points that are not finite are left out.
    pub points: &'a [(f64, f64)],
    /// Its axis.
    pub side: Side,
}

/// Draws all series over the same steps, each by its axis, with numbers on all and the names above; `names` are those of the
/// axes: left, below, right.
pub fn chart(title: &str, names: [&str; 3], series: &[Series]) -> Canvas {
    let mut canvas = Canvas::new(SIZE.0, SIZE.1, PAPER);
    let finite = |series: &Series| -> Vec<(f64, f64)> {
        series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = series.iter().map(finite).collect();
    let axis = |values: Vec<f64>, from: i64, to: i64| Axis::over(values, 1.0, 6.0, (from as f64, to as f64));
    let x_axis = axis(lines.iter().flatten().map(|point| point.0).collect(), FRAME.0, SIZE.0 - FRAME.2);
    let y_axis = |side: Side| {
        let own = series.iter().zip(&lines).filter(|(series, _)| series.side == side);
        let values: Vec<f64> = own.flat_map(|(_, line)| line.iter().map(|point| point.1)).collect();
        let is_used = !values.is_empty();
        (axis(values, SIZE.1 - FRAME.3, FRAME.1), is_used)
    };
    let ((left, _), (right, right_is_used)) = (y_axis(Side::Left), y_axis(Side::Right));
    draw_grid(&mut canvas, &x_axis, &left);
    canvas.text((FRAME.0, 14), 2, title, INK);
    canvas.text((FRAME.0 - 8 - text_width(names[0], 1), FRAME.1 - 2 * GLYPH), 1, names[0], INK);
    canvas.text((SIZE.0 - FRAME.2 - text_width(names[1], 1), SIZE.1 - 16), 1, names[1], INK);
    if right_is_used {
        canvas.text((SIZE.0 - FRAME.2 + 8, FRAME.1 - 2 * GLYPH), 1, names[2], INK);
        draw_right(&mut canvas, &right);
    }
    let mut legend = SIZE.0 - FRAME.2;
    for (position, line) in lines.iter().enumerate() {
        let colour = COLOURS[position % COLOURS.len()];
        let axis = if series[position].side == Side::Left { &left } else { &right };
        let place = |point: &(f64, f64)| (x_axis.place(point.0), axis.place(point.1));
        for pair in line.windows(2) {
            canvas.line(place(&pair[0]), place(&pair[1]), colour);
        }
        if let [only] = line.as_slice() {
            let (x, y) = place(only);
            canvas.rectangle((x as i64 - 2, y as i64 - 2), (5, 5), colour);
        }
        legend -= text_width(series[position].name, 1) + 2 * GLYPH;
        canvas.text((legend, 18), 1, series[position].name, colour);
    }
    canvas
}

fn draw_grid(canvas: &mut Canvas, x_axis: &Axis, y_axis: &Axis) {
    let (right, bottom) = (SIZE.0 - FRAME.2, SIZE.1 - FRAME.3);
    for tick in x_axis.ticks() {
        let (x, text) = (x_axis.place(tick) as i64, x_axis.label(tick));
        canvas.rectangle((x, FRAME.1), (1, bottom - FRAME.1), GRID);
        canvas.text((x - text_width(&text, 1) / 2, bottom + 8), 1, &text, INK);
    }
    for tick in y_axis.ticks() {
        let (y, text) = (y_axis.place(tick) as i64, y_axis.label(tick));
        canvas.rectangle((FRAME.0, y), (right - FRAME.0, 1), GRID);
        canvas.text((FRAME.0 - 8 - text_width(&text, 1), y - GLYPH / 2), 1, &text, INK);
    }
    canvas.rectangle((FRAME.0, FRAME.1), (1, bottom - FRAME.1), INK);
    canvas.rectangle((FRAME.0, bottom), (right - FRAME.0, 1), INK);
}

/// The axis on the right, which marks its round numbers by strokes: the lines across are the left one's.
fn draw_right(canvas: &mut Canvas, axis: &Axis) {
    let right = SIZE.0 - FRAME.2;
    canvas.rectangle((right, FRAME.1), (1, SIZE.1 - FRAME.3 - FRAME.1), INK);
    for tick in axis.ticks() {
        let y = axis.place(tick) as i64;
        canvas.rectangle((right, y), (5, 1), INK);
        canvas.text((right + 8, y - GLYPH / 2), 1, &axis.label(tick), INK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inked(points: &[(f64, f64)]) -> usize {
        let loss = Series { name: "loss", points, side: Side::Left };
        let canvas = chart("loss", ["loss", "step", "scores"], &[loss]);
        canvas.pixels.as_chunks::<3>().0.iter().filter(|pixel| **pixel == COLOURS[0]).count()
    }

    #[test]
    fn a_score_has_the_height_of_the_plot_beside_a_large_loss() {
        let (loss, score) = ([(0.0, 50.0), (9.0, 3.0)], [(0.0, 0.1), (9.0, 0.9)]);
        let series = [
            Series { name: "loss", points: &loss, side: Side::Left },
            Series { name: "score", points: &score, side: Side::Right },
        ];
        let canvas = chart("run", ["loss", "step", "scores"], &series);
        let row = |(at, _): (usize, &[u8; 3])| at as i64 / canvas.width;
        let pixels = canvas.pixels.as_chunks::<3>().0.iter().enumerate();
        // Below the legend.
        let rows: Vec<i64> =
            pixels.filter(|(_, pixel)| **pixel == COLOURS[1]).map(row).filter(|row| *row > 30).collect();
        assert!(rows.last().unwrap() - rows[0] > 400, "{:?} to {:?}", rows.first(), rows.last());
    }

    #[test]
    fn a_line_is_drawn_and_nothing_breaks_it() {
        let nothing = inked(&[]);
        assert!(inked(&[(1.0, 3.0), (2.0, 2.0), (3.0, f64::NAN), (4.0, 1.0)]) > nothing + 500);
        assert!(inked(&[(1.0, 3.0)]) > nothing);
        assert!(inked(&[(1.0, 3.0), (2.0, 3.0)]) > nothing + 500);
        inked(&[(0.0, f64::MAX), (1.0, f64::MIN), (f64::INFINITY, 0.0)]);
    }
}
