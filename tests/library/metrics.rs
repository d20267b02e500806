//! Every measure against a second computation that never builds a matrix: pixel sets, class by class.

use proptest::prelude::*;
use segdist::metrics::{Confusion, Iou};

const CLASSES: usize = 6;

/// Label pairs in which classes are missing from truth, from prediction, or from both, and some pixels are ignored.
fn label_pairs() -> impl Strategy<Value = (Vec<i64>, Vec<i64>)> {
    let some_classes = || prop::sample::subsequence((0..CLASSES as i64).collect::<Vec<_>>(), 1..=CLASSES);
    (some_classes(), some_classes(), 0usize..200).prop_flat_map(|(mut truths, predictions, length)| {
        truths.push(-1);
        let truth = prop::collection::vec(prop::sample::select(truths), length);
        let prediction = prop::collection::vec(prop::sample::select(predictions), length);
        (truth, prediction)
    })
}

/// The measures of one class, by counting sets of pixels.
struct Naive {
    both: f64,
    either: f64,
    truth: f64,
    prediction: f64,
}

fn naive(truth: &[i64], prediction: &[i64], class: i64) -> Naive {
    let valid: Vec<(i64, i64)> =
        truth.iter().copied().zip(prediction.iter().copied()).filter(|(t, _)| *t != -1).collect();
    let count = |keep: &dyn Fn(&(i64, i64)) -> bool| valid.iter().filter(|pair| keep(pair)).count() as f64;
    Naive {
        both: count(&|(t, p)| *t == class && *p == class),
        either: count(&|(t, p)| *t == class || *p == class),
        truth: count(&|(t, _)| *t == class),
        prediction: count(&|(_, p)| *p == class),
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

proptest! {
    #[test]
    fn every_measure_equals_an_independent_computation((truth, prediction) in label_pairs()) {
        let mut confusion = Confusion::new(CLASSES);
        confusion.add(&truth, &prediction);
        let classes: Vec<Naive> = (0..CLASSES as i64).map(|class| naive(&truth, &prediction, class)).collect();
        for (class, naive) in classes.iter().enumerate() {
            let expected = (naive.either > 0.0).then(|| naive.both / naive.either);
            prop_assert_eq!(confusion.iou()[class], expected);
            let expected = (naive.truth > 0.0).then(|| naive.both / naive.truth);
            prop_assert_eq!(confusion.accuracy()[class], expected);
            let sum = naive.truth + naive.prediction;
            prop_assert_eq!(confusion.dice()[class], (sum > 0.0).then(|| 2.0 * naive.both / sum));
        }
        let valid = truth.iter().filter(|t| **t != -1).count() as f64;
        let right = truth.iter().zip(&prediction).filter(|(t, p)| **t != -1 && t == p).count() as f64;
        prop_assert!(close(confusion.pixel_accuracy(), right / valid.max(1.0)));
        let reference: Vec<f64> = classes.iter().map(|n| n.both / (n.either + 1e-10)).collect();
        prop_assert!(close(confusion.mean_iou(Iou::Reference), mean(&reference)));
        let present: Vec<f64> = classes.iter().filter(|n| n.either > 0.0).map(|n| n.both / n.either).collect();
        prop_assert!(close(confusion.mean_iou(Iou::Present), mean(&present)));
        let recalls: Vec<f64> = classes.iter().filter(|n| n.truth > 0.0).map(|n| n.both / n.truth).collect();
        prop_assert!(close(confusion.mean_accuracy(), mean(&recalls)));
        let sums = |n: &Naive| n.truth + n.prediction;
        let dice: Vec<f64> = classes.iter().filter(|n| sums(n) > 0.0).map(|n| 2.0 * n.both / sums(n)).collect();
        prop_assert!(close(confusion.mean_dice(), mean(&dice)));
        let weighted = |n: &Naive| if n.truth > 0.0 { n.truth / valid * n.both / n.either } else { 0.0 };
        prop_assert!(close(confusion.frequency_weighted_iou(), classes.iter().map(weighted).sum::<f64>()));
    }

    #[test]
    fn parts_merge_to_the_whole((truth, prediction) in label_pairs(), cut in 0usize..200) {
        let cut = cut.min(truth.len());
        let mut whole = Confusion::new(CLASSES);
        whole.add(&truth, &prediction);
        let mut first = Confusion::new(CLASSES);
        first.add(&truth[..cut], &prediction[..cut]);
        let mut second = Confusion::new(CLASSES);
        second.add(&truth[cut..], &prediction[cut..]);
        second.merge(&first);
        prop_assert_eq!(second, whole);
    }
}

#[test]
fn an_absent_class_counts_zero_in_the_reference_rule_and_not_at_all_in_the_other() {
    let mut confusion = Confusion::new(4);
    confusion.add(&[0i64, 0, 1, 1, -1], &[0u8, 0, 1, 1, 3]);
    assert!(close(confusion.mean_iou(Iou::Reference), 0.5));
    assert!(close(confusion.mean_iou(Iou::Present), 1.0));
    assert_eq!(confusion.pixels(), 4);
}

#[test]
fn labels_that_are_no_class_are_not_counted() {
    let mut confusion = Confusion::new(2);
    confusion.add(&[0i64, 7, i64::MAX, i64::MIN], &[1i64, 1, 1, 1]);
    confusion.add(&[1i64], &[9i64]);
    assert_eq!(confusion.pixels(), 1);
}

#[test]
fn the_most_confused_pairs_come_largest_first() {
    let mut confusion = Confusion::new(3);
    confusion.counts = vec![90, 5, 0, 7, 80, 1, 0, 2, 70];
    let pairs: Vec<(usize, usize, i64)> =
        confusion.most_confused(3).iter().map(|pair| (pair.truth, pair.prediction, pair.count)).collect();
    assert_eq!(pairs, [(1, 0, 7), (0, 1, 5), (2, 1, 2)]);
}
