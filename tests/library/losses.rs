//! Losses: those of published implementations, at the size of the scores and enlarged; tiles of rows are the whole.

use crate::golden;
use segdist::config::Config;
use segdist::loss::{Loss, LossConfig, LossNorm, Objective};
use serde::Deserialize;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Golden {
    images: i64,
    classes: i64,
    height: i64,
    width: i64,
    labels: Vec<i64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    /// TRAIN.loss.
    loss: String,
    value: f64,
    gradient: Vec<f32>,
    /// Of scores that are enlarged to the size of the labels.
    enlarged: f64,
    enlarged_gradient: Vec<f32>,
}

/// TRAIN.loss, as the command line reads it.
fn config(text: &str) -> Result<LossConfig, String> {
    let config = Config::load(None, &["TRAIN.loss".into(), text.into()]).map_err(|error| error.to_string())?;
    config.TRAIN.validate()?;
    Ok(config.TRAIN.loss)
}

fn loss(text: &str, classes: i64) -> Box<dyn Loss> {
    config(text).unwrap().build(LossNorm::Global, classes as usize, None)
}

/// The value of a loss and the gradient of the logits.
fn measured(loss: &dyn Loss, logits: &Tensor, labels: &Tensor) -> (f64, Tensor) {
    let logits = logits.detach().copy().set_requires_grad(true);
    let value = loss.value(&loss.sums(&logits, labels).to_kind(Kind::Double));
    value.backward();
    (value.double_value(&[]), logits.grad())
}

fn largest(values: &Tensor) -> f64 {
    values.abs().max().double_value(&[])
}

#[test]
fn values_and_gradients_are_those_of_the_published_losses() {
    let golden: Golden = golden::read("losses.json");
    let Golden { images, classes, height, width, .. } = golden;
    let labels = Tensor::from_slice(&golden.labels).view([images, height, width]);
    let scores = |height: i64, width: i64| {
        let values = golden::uniform("scores", images * classes * height * width);
        Tensor::from_slice(&values).view([images, classes, height, width]) * 3.0
    };
    for case in &golden.cases {
        let enlarged = (2, 3, case.enlarged, &case.enlarged_gradient);
        for (height, width, value, gradient) in [(height, width, case.value, &case.gradient), enlarged] {
            let (found, slope) = measured(&*loss(&case.loss, classes), &scores(height, width), &labels);
            assert!((found - value).abs() < 1e-5, "{} at {height} × {width}: {found} for {value}", case.loss);
            let off = largest(&(slope.flatten(0, -1) - Tensor::from_slice(gradient)));
            assert!(off < 1e-6, "{} at {height} × {width}: a gradient is off by {off}", case.loss);
        }
    }
}

const ALL: [&str; 9] = [
    "ce",
    "{ce: {smoothing: 0.1, class_weights: [1, 2, 3, 4, 5, 6, 7, 0]}}",
    "{ohem: {threshold: 0.1, least: 9000}}",
    "{ohem: {threshold: 0.2, least: 10, over: labelled}}",
    "{focal: {gamma: 1.5, alpha: 0.3}}",
    "{dice: {smooth: 1}}",
    "{dice: {over: batch}}",
    "lovasz",
    "[ce 1.0, dice 3.0, lovasz 0.5]",
];
const CLASSES: i64 = 8;

/// Scores and labels of `size`, a third of them ignored.
fn noise(size: [i64; 4], label_size: [i64; 2]) -> (Tensor, Tensor) {
    let scores = Tensor::from_slice(&golden::uniform("scores", size.iter().product())).view(size) * 4.0;
    let count = size[0] * label_size[0] * label_size[1];
    let draws = (Tensor::from_slice(&golden::uniform("classes", count)) + 1.0) * 0.5 * (CLASSES * 3 / 2) as f64;
    let labels = (draws.floor().to_kind(Kind::Int64) - CLASSES / 2).clamp_min(-1);
    (scores, labels.view([size[0], label_size[0], label_size[1]]))
}

#[test]
fn tiles_of_rows_give_the_loss_of_the_whole_enlarged_scores() {
    // A stride that is no power of two, and more scores than a tile holds.
    for (size, label_size) in [([2, CLASSES, 6, 7], [84, 98]), ([1, CLASSES, 90, 100], [900, 801])] {
        let (scores, labels) = noise(size, label_size);
        for text in ALL {
            let loss = loss(text, CLASSES);
            let (value, gradient) = measured(&*loss, &scores, &labels);
            let small = scores.copy().set_requires_grad(true);
            let whole = small.upsample_bilinear2d(label_size, false, None, None);
            let plain = loss.value(&loss.sums(&whole, &labels).to_kind(Kind::Double));
            plain.backward();
            let plain = plain.double_value(&[]);
            assert!((value - plain).abs() < 1e-5 * plain.abs().max(1.0), "{text}: {value} for {plain}");
            let (off, most) = (largest(&(&gradient - small.grad())), largest(&small.grad()));
            // Errors that are nearly equal are sorted either way.
            let tolerance = if text.contains("lovasz") { 1e-4 } else { 1e-5 };
            assert!(off < tolerance * most, "{text}: a gradient is off by {off} of {most}");
        }
    }
}

#[test]
fn pixels_without_a_label_have_no_part_and_nothing_but_them_is_zero() {
    let (scores, labels) = noise([2, CLASSES, 8, 9], [8, 9]);
    let ignored = labels.eq(-1).unsqueeze(1);
    let nothing = labels.full_like(-1);
    for text in ALL {
        let loss = loss(text, CLASSES);
        let (value, gradient) = measured(&*loss, &scores, &labels);
        assert_eq!(largest(&(gradient * &ignored)), 0.0, "{text}");
        let (other, _) = measured(&*loss, &(&scores + ignored.to_kind(Kind::Float) * 5.0), &labels);
        assert!((value - other).abs() < 1e-12 * value.abs(), "{text}: {other} for {value}");
        for labels in [&nothing, &nothing.repeat([1, 4, 4])] {
            let (value, gradient) = measured(&*loss, &scores, labels);
            assert_eq!((value, largest(&gradient)), (0.0, 0.0), "{text}");
        }
    }
}

#[test]
fn slopes_from_the_labels_alone_are_those_from_all_sums() {
    let (scores, labels) = noise([2, CLASSES, 8, 9], [8, 9]);
    let size = segdist::loss::BatchSize { pixels: 144.0, images: 2.0, micro_batches: 1.0 };
    for text in ALL {
        let objective = Objective::new(loss(text, CLASSES), vec![1.0, 0.4], size);
        let Some(of_labels) = objective.label_sums(&labels) else { continue };
        let sums = objective.sums(&[scores.shallow_clone(), &scores * 2.0], &labels);
        let values = |tensor: &Tensor| Vec::<f64>::try_from(tensor).unwrap();
        let slopes = [&sums, &of_labels].map(|sums| values(&objective.slopes(&values(sums))));
        // A divisor has a slope, and no gradient.
        for (at, ours) in slopes[1].iter().enumerate().filter(|(at, _)| at % 2 == 0) {
            assert!((ours - slopes[0][at]).abs() < 1e-12, "{text}: {slopes:?}");
        }
    }
}

#[test]
fn a_loss_is_written_as_a_name_a_list_or_a_mapping_and_read_back() {
    let same = [
        ["ce", "[ce 1.0]", "{ce: {smoothing: 0.0}}", "CE 1"],
        ["[ce 1.0, dice 3.0]", "ce, dice 3", "{ce: 1, dice: 3.0}", "{ce: {weight: 1}, dice: {weight: 3, over: image}}"],
    ];
    for forms in same {
        let first = config(forms[0]).unwrap();
        assert!(forms.iter().all(|form| config(form).unwrap() == first), "{forms:?}");
    }
    for text in ALL.iter().chain(same.iter().flatten()) {
        let all = Config::load(None, &["TRAIN.loss".into(), text.to_string()]).unwrap();
        assert_eq!(Config::parse(&all.dump()).unwrap().dump(), all.dump(), "{text}");
    }
    assert!(Config::default().dump().contains("\n  loss: ce\n"));
}

#[test]
fn what_is_no_loss_is_refused_in_words() {
    for (text, words) in [
        ("dise", "dise is no loss; there are ce, ohem, focal, dice, lovasz"),
        ("[ce, ce 2]", "ce stands there twice"),
        ("ce much", "much is no weight of ce"),
        ("ce -1", "ce: the weight is -1: set it above 0"),
        ("ce nan", "ce: the weight is NaN: set it above 0"),
        ("{ce: {smoothin: 0.1}}", "ce: unknown field `smoothin`, expected `smoothing` or `class_weights`"),
        ("{ce: {smoothing: 1.5}}", "smoothing is 1.5: set it to 0 … 1"),
        ("{ce: {class_weights: heavy}}", "class_weights are balanced, or a list of one number a class"),
        ("{ce: {class_weights: [1, -2]}}", "-2 is no weight of a class"),
        ("{ohem: {threshold: 7}}", "ohem: threshold is 7: set it to 0 … 1"),
        ("{focal: {gamma: 0.5}}", "focal: gamma is 0.5: set it to 0, or 1 … 100"),
        ("{dice: {over: all}}", "dice: unknown variant `all`, expected `image` or `batch`"),
        ("3", "3 is no loss"),
        ("", "is no loss"),
        ("{}", "no loss is named"),
        ("{{{{{{{", "TRAIN.loss"),
    ] {
        let message = config(text).expect_err(text);
        assert!(message.contains("TRAIN.loss") && message.contains(words) && message.len() <= 300, "{text}: {message}");
    }
    let words = ["TRAIN.loss", "{ce: {class_weights: [1, 2]}}"].map(String::from);
    let message = Config::load(None, &words).unwrap().validate().unwrap_err().to_string();
    assert!(message.contains("there are 2 class_weights for DATASET.num_class 150"), "{message}");
}

#[test]
fn balanced_weights_follow_the_pixels_and_are_alike_where_these_are_unknown() {
    let (scores, labels) = noise([1, CLASSES, 8, 9], [8, 9]);
    let pixels = [100u64, 50, 10, 5, 5, 20, 200, 0];
    let weights: Vec<String> = pixels
        .iter()
        .map(|&count| if count == 0 { 0.0 } else { 390.0 / (7.0 * count as f64) })
        .map(|w| w.to_string())
        .collect();
    let listed = loss(&format!("{{ce: {{class_weights: [{}]}}}}", weights.join(", ")), CLASSES);
    let balanced = config("{ce: {class_weights: balanced}}").unwrap();
    assert!(balanced.is_balanced());
    let build = |pixels| balanced.build(LossNorm::Global, CLASSES as usize, pixels);
    let value = |loss: &dyn Loss| measured(loss, &scores, &labels).0;
    assert!((value(&*build(Some(&pixels))) - value(&*listed)).abs() < 1e-6);
    assert_eq!(value(&*build(None)), value(&*loss("ce", CLASSES)));
}
