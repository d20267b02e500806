//! Polygons to pixels: a pixel belongs to a polygon when its centre is inside, by the even-odd rule.

use super::Span;

/// The pixels that at least one of the polygons holds, as runs of rows.
pub fn spans(polygons: &[Vec<f64>], width: usize, height: usize) -> Vec<Span> {
    if let [polygon] = polygons {
        let mut spans = Vec::new();
        scan(polygon, width, height, |row, from, to| spans.push(Span { row, from, to }));
        return spans;
    }
    let mut mask = vec![false; width * height];
    for polygon in polygons {
        scan(polygon, width, height, |row, from, to| mask[row * width + from..row * width + to].fill(true));
    }
    spans_of(&mask, width)
}

/// The runs of true in a mask, row by row.
pub fn spans_of(mask: &[bool], width: usize) -> Vec<Span> {
    let mut spans = Vec::new();
    for (row, line) in mask.chunks_exact(width.max(1)).enumerate() {
        let mut from = 0;
        for run in line.chunk_by(|a, b| a == b) {
            if run[0] {
                spans.push(Span { row, from, to: from + run.len() });
            }
            from += run.len();
        }
    }
    spans
}

/// Calls `fill(row, from, to)` for every run of centres between two edges.
fn scan(corners: &[f64], width: usize, height: usize, mut fill: impl FnMut(usize, usize, usize)) {
    let corners: Vec<(f64, f64)> = corners.chunks_exact(2).map(|corner| (corner[0], corner[1])).collect();
    if corners.len() < 3 || corners.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
        return;
    }
    let edges: Vec<_> = corners.iter().zip(corners.iter().cycle().skip(1)).collect();
    // The first centre that is not before `at`.
    let first = |at: f64, end: usize| (at - 0.5).ceil().clamp(0.0, end as f64) as usize;
    let ys = corners.iter().map(|corner| corner.1);
    let (top, bottom) = (ys.clone().fold(f64::MAX, f64::min), ys.fold(f64::MIN, f64::max));
    let mut crossings = Vec::new();
    for row in first(top, height)..first(bottom, height) {
        let y = row as f64 + 0.5;
        crossings.clear();
        for ((x0, y0), (x1, y1)) in &edges {
            if (*y0 <= y) != (*y1 <= y) {
                crossings.push(x0 + (y - y0) * (x1 - x0) / (y1 - y0));
            }
        }
        crossings.sort_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            let (from, to) = (first(pair[0], width), first(pair[1], width));
            if from < to {
                fill(row, from, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether a point is inside, edge by edge.
    fn inside(corners: &[(f64, f64)], (x, y): (f64, f64)) -> bool {
        let edges = corners.iter().zip(corners.iter().cycle().skip(1));
        let crossed =
            edges.filter(|((x0, y0), (x1, y1))| (*y0 <= y) != (*y1 <= y) && x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x);
        crossed.count() % 2 == 1
    }

    proptest! {
        #[test]
        fn a_pixel_belongs_to_a_polygon_when_its_centre_is_inside(
            corners in prop::collection::vec((-3.0..15.0f64, -3.0..12.0f64), 3..9)
        ) {
            let flat: Vec<f64> = corners.iter().flat_map(|&(x, y)| [x, y]).collect();
            let mut mask = [false; 12 * 9];
            for Span { row, from, to } in spans(&[flat], 12, 9) {
                mask[row * 12 + from..row * 12 + to].fill(true);
            }
            for (at, &filled) in mask.iter().enumerate() {
                let centre = ((at % 12) as f64 + 0.5, (at / 12) as f64 + 0.5);
                prop_assert_eq!(filled, inside(&corners, centre), "{:?}", centre);
            }
        }
    }

    #[test]
    fn polygons_without_an_area_cover_nothing() {
        for corners in [vec![], vec![1.0, 1.0], vec![0.0, 0.0, 5.0, 5.0], vec![f64::NAN; 6], vec![1e300; 8]] {
            assert_eq!(spans(&[corners], 9, 9), []);
        }
    }
}
