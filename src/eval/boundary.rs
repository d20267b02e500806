//! Boundary IoU: how well the outlines of the classes agree (Cheng et al., "Boundary IoU", CVPR 2021).
//!
//! A pixel is on a class's boundary if it has the class and a pixel of another class, or the image's edge, lies within
//! 2 % of the image's diagonal (Chebyshev distance, as erosion by 3×3 squares gives). Of truth and prediction only these
//! pixels are compared.

/// Width of the boundary as a share of the image's diagonal, as in the paper.
const SHARE_OF_DIAGONAL: f64 = 0.02;

/// Boundary pixels over many images.
pub struct BoundaryCounts {
    /// (in both, in truth, in prediction) of class 0, of class 1, …
    pub counts: Vec<i64>,
}

impl BoundaryCounts {
    /// All zero.
    pub fn new(classes: usize) -> BoundaryCounts {
        BoundaryCounts { counts: vec![0; 3 * classes] }
    }

    /// Adds an image; negative truth is ignored, in the prediction too.
    pub fn add(&mut self, (width, height): (u32, u32), truth: &[i16], labels: &[u8]) {
        let diagonal = f64::from(width).hypot(f64::from(height));
        let distance = ((SHARE_OF_DIAGONAL * diagonal).round() as usize).max(1);
        let valid = |(class, truth): (&u8, &i16)| if *truth < 0 { -1 } else { i16::from(*class) };
        let predicted: Vec<i16> = labels.iter().zip(truth).map(valid).collect();
        let in_truth = boundary(truth, width as usize, distance);
        let in_prediction = boundary(&predicted, width as usize, distance);
        for at in 0..truth.len() {
            let truth = usize::try_from(truth[at]).ok().filter(|_| in_truth[at]);
            let prediction = usize::try_from(predicted[at]).ok().filter(|_| in_prediction[at]);
            let mut count = |class: Option<usize>, which: usize| {
                if let Some(count) = class.and_then(|class| self.counts.get_mut(3 * class + which)) {
                    *count += 1;
                }
            };
            count(truth.filter(|class| Some(*class) == prediction), 0);
            count(truth, 1);
            count(prediction, 2);
        }
    }

    /// Boundary IoU per class; None where neither truth nor prediction has the class.
    pub fn iou(&self) -> Vec<Option<f64>> {
        let iou = |count: &[i64; 3]| {
            let [both, truth, prediction] = *count;
            let either = truth + prediction - both;
            (either > 0).then(|| both as f64 / either as f64)
        };
        self.counts.as_chunks().0.iter().map(iou).collect()
    }
}

/// Whether each pixel is within `distance` of another label or of the image's edge.
///
/// A pixel is inside if its label fills the square around it: a square is filled if each of its rows is, so runs of
/// equal labels along rows, and then along columns, decide it in two passes.
fn boundary(labels: &[i16], width: usize, distance: usize) -> Vec<bool> {
    let height = labels.len() / width.max(1);
    let mut filled_rows = vec![false; labels.len()];
    for y in 0..height {
        let row = y * width..(y + 1) * width;
        inside(row.len(), distance, |x| labels[row.start + x], |x| filled_rows[row.start + x] = true);
    }
    let mut boundary = vec![true; labels.len()];
    for x in 0..width {
        let at = |y: usize| y * width + x;
        inside(height, distance, |y| (labels[at(y)], filled_rows[at(y)]), |y| boundary[at(y)] = !filled_rows[at(y)]);
    }
    boundary
}

/// Calls `mark` for every position with `distance` equal values on both sides.
fn inside<T: PartialEq>(length: usize, distance: usize, value: impl Fn(usize) -> T, mut mark: impl FnMut(usize)) {
    let mut start = 0;
    for end in 1..=length {
        if end == length || value(end) != value(start) {
            (start + distance..end.saturating_sub(distance)).for_each(&mut mark);
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(labels: &[i16], width: usize, distance: usize) -> Vec<bool> {
        let height = labels.len() / width;
        let near = |at: usize| {
            let (x, y, d) = ((at % width) as i64, (at / width) as i64, distance as i64);
            (y - d..=y + d).any(|v| {
                (x - d..=x + d).any(|u| {
                    let inside = (0..width as i64).contains(&u) && (0..height as i64).contains(&v);
                    !inside || labels[(v * width as i64 + u) as usize] != labels[at]
                })
            })
        };
        (0..labels.len()).map(near).collect()
    }

    proptest! {
        #[test]
        fn two_passes_find_what_looking_around_every_pixel_finds(
            width in 1usize..12, height in 1usize..12, distance in 1usize..4, cuts in prop::collection::vec(0usize..144, 0..4),
        ) {
            let labels: Vec<i16> = (0..width * height).map(|at| cuts.iter().filter(|cut| **cut <= at).count() as i16).collect();
            prop_assert_eq!(boundary(&labels, width, distance), naive(&labels, width, distance));
        }
    }

    #[test]
    fn a_perfect_prediction_has_iou_1_and_an_absent_class_none() {
        let truth: Vec<i16> = (0..400).map(|at| if at % 20 < 9 { 0 } else { 1 }).collect();
        let labels: Vec<u8> = truth.iter().map(|class| *class as u8).collect();
        let mut counts = BoundaryCounts::new(3);
        counts.add((20, 20), &truth, &labels);
        assert_eq!(counts.iou(), [Some(1.0), Some(1.0), None]);
        let shifted: Vec<u8> = (0..400).map(|at| u8::from(at % 20 >= 12)).collect();
        let mut counts = BoundaryCounts::new(3);
        counts.add((20, 20), &truth, &shifted);
        assert!(counts.iou()[0].unwrap() < 0.8);
    }
}
