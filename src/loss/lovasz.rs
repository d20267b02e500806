//! Lovász-softmax: a convex surrogate of the intersection over union of every class of an image.

use super::tiles::{self, Tiles};
use super::{BatchSize, Form, IGNORE, Loss, labelled_images, only_divisor};
use tch::{Kind, Tensor};

/// The mean over images with a labelled pixel of the mean over the classes in them of the Lovász extension of the
/// Jaccard loss at |t − p|, where p is the softmax and t the truth (Berman et al. 2018, arXiv 1705.08790; `LovaszLoss` of
/// segmentation_models_pytorch with `per_image`).
///
/// Its gradient is written out, so that one class of one image is sorted at a time and none is kept.
pub struct Lovasz;

impl Loss for Lovasz {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let images = labels.size()[0];
        let counts = class_counts(logits.size()[1], labels);
        let differentiable = logits.requires_grad();
        let one = |image: i64| {
            let of_image = |tensor: &Tensor| tensor.narrow(0, image, 1);
            one_image(&of_image(logits), &of_image(labels), &counts[image as usize], differentiable)
        };
        let (sums, gradients): (Vec<Tensor>, Vec<Tensor>) = tch::no_grad(|| (0..images).map(one).unzip());
        let sums: Tensor = sums.into_iter().sum();
        if !differentiable {
            return sums;
        }
        let (kind, gradient) = (logits.kind(), Tensor::cat(&gradients, 0));
        let backward = move |slopes: Tensor| Ok(vec![(&gradient * slopes.get(0).to_kind(Kind::Float)).to_kind(kind)]);
        tiles::attached(sums, logits, backward)
    }

    fn enlarges(&self) -> bool {
        true
    }

    fn form(&self) -> Form {
        Form::Mean
    }

    fn label_sums(&self, labels: &Tensor) -> Option<Tensor> {
        Some(only_divisor(labelled_images(labels)))
    }

    fn largest_divisor(&self, size: BatchSize) -> f64 {
        size.images
    }
}

/// Pixels of each class of each image.
fn class_counts(classes: i64, labels: &Tensor) -> Vec<Vec<i64>> {
    let images = labels.size()[0];
    let offsets = Tensor::arange(images, (Kind::Int64, labels.device())).view([images, 1, 1]) * (classes + 1);
    let counts = (labels + 1 + offsets).flatten(0, 2).bincount::<Tensor>(None, images * (classes + 1));
    let counts = Vec::<i64>::try_from(counts).expect("bincount gives one dimension of i64");
    counts.chunks(classes as usize + 1).map(|of_image| of_image[1..].to_vec()).collect()
}

/// (the loss, whether there is one) of an image, f64 (2), and its gradient with respect to the logits where it is wanted.
fn one_image(logits: &Tensor, labels: &Tensor, counts: &[i64], differentiable: bool) -> (Tensor, Tensor) {
    let tiles = Tiles::new(logits, labels);
    let present: Vec<i64> = (0..counts.len() as i64).filter(|&class| counts[class as usize] > 0).collect();
    let (double, mut gradient) = ((Kind::Double, logits.device()), tiles.zeros());
    if present.is_empty() {
        return (Tensor::zeros([2], double), gradient);
    }
    let share = 1.0 / present.len() as f64;
    let log_total =
        tiles::map(logits, labels, |logits, _| logits.to_kind(Kind::Float).logsumexp([1i64].as_slice(), false));
    let mut value = Tensor::zeros([], double);
    // Σ over classes of p · ∂loss ÷ ∂p, which softmax takes from each class by its p.
    let mut mean_slope = log_total.zeros_like();
    for &class in &present {
        let scores = Tiles::new(&logits.narrow(1, class, 1), labels);
        let probability = (scores.whole().squeeze_dim(1) - &log_total).exp();
        let (loss, slope) = jaccard(&probability, &labels.eq(class), &labels.ne(IGNORE));
        value += loss * share;
        if differentiable {
            let slope = probability * slope * share;
            mean_slope += &slope;
            let own = scores.gradient(|tile, scores| (scores.select(1, 0) * tile.of(&slope)).sum(Kind::Float));
            let _ = gradient.narrow(1, class, 1).g_add_(&own);
        }
    }
    if differentiable {
        gradient -= tiles.gradient(|tile, scores| {
            let shares = scores.detach().softmax(1, Kind::Float) * tile.of(&mean_slope).unsqueeze(1);
            (scores * shares).sum(Kind::Float)
        });
    }
    (Tensor::stack(&[value, Tensor::ones([], double)], 0), gradient)
}

/// The Lovász extension of one class's Jaccard loss, f64, and its gradient with respect to the probabilities.
///
/// All of the same size; `truth`: pixels of the class; `labelled`: pixels that count.
fn jaccard(probability: &Tensor, truth: &Tensor, labelled: &Tensor) -> (Tensor, Tensor) {
    let truth = truth.to_kind(Kind::Float);
    // Pixels that do not count are sorted behind all others.
    let errors = (&truth - probability).abs().masked_fill(&labelled.logical_not(), -1.0);
    let (errors, order) = errors.flatten(0, -1).sort(0, true);
    let hits = truth.flatten(0, -1).index_select(0, &order).to_kind(Kind::Double);
    let all = hits.sum(Kind::Double);
    let common = &all - hits.cumsum(0, Kind::Double);
    let either = all + (1f64 - hits).cumsum(0, Kind::Double);
    let loss: Tensor = 1.0 - common / either;
    let before = Tensor::cat(&[loss.narrow(0, 0, 1).zeros_like(), loss.narrow(0, 0, loss.numel() as i64 - 1)], 0);
    let steps = (loss - before) * errors.ge(0.0);
    let value = (errors * &steps).sum(Kind::Double);
    let slope = steps.zeros_like().scatter_(0, &order, &steps).to_kind(Kind::Float).view_as(probability);
    (value, slope * (1.0 - truth * 2.0))
}
