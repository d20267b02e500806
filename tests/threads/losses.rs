//! Every loss trains the same on any number of ranks: those without a labelled pixel, without a micro-batch in a round,
//! with labels as large as the image, and with batch statistics included.

use crate::seams::{Outcome, Setting, equal_on, run, setting};
use segdist::comm::{Comm, threads};
use segdist::config::Config;
use segdist::data::batch_source::{BatchSource, StepBatch};
use segdist::data::synthetic::Synthetic;
use segdist::loss::LossNorm;
use segdist::model::layers::Role;
use std::sync::Arc;
use tch::Tensor;

const ALL: [&str; 7] = [
    "{ce: {smoothing: 0.1, class_weights: [1, 2, 3]}}",
    "{ohem: {threshold: 0.3, least: 5}}",
    "focal",
    "dice",
    "{dice: {over: batch}}",
    "lovasz",
    "{ce: 1, dice: {weight: 3}, ohem: {threshold: 0.3, least: 5}}",
];

fn with(loss: &str, decoder: &str, rate: u32) -> Setting {
    let mut setting = setting(decoder);
    setting.train.loss = Config::load(None, &["TRAIN.loss".into(), loss.into()]).unwrap().TRAIN.loss;
    setting.dataset.segm_downsampling_rate = rate;
    setting
}

/// Synthetic batches of which sample 0 has no label, and sample 1 only some.
struct Unlabelled(Synthetic);

impl BatchSource for Unlabelled {
    fn next(&mut self) -> anyhow::Result<StepBatch> {
        let mut batch = self.0.next()?;
        for part in batch.rounds.iter_mut().flatten() {
            let of_image = part.labels.len() / part.samples.len();
            for (sample, labels) in part.samples.iter().zip(part.labels.chunks_mut(of_image)) {
                let ignored = [of_image, of_image / 3].get(*sample as usize).copied().unwrap_or(0);
                labels[..ignored].fill(-1);
            }
            part.valid = part.labels.iter().filter(|&&label| label >= 0).count() as u64;
        }
        Ok(batch)
    }
}

fn train(setting: &Setting, comm: Arc<dyn Comm>) -> Outcome {
    run(setting.trainer(&comm, Unlabelled(setting.synthetic(&*comm)), None))
}

#[test]
fn each_loss_is_the_same_on_any_ranks_with_and_without_labels() {
    for loss in ALL {
        let setting = with(loss, "c1_deepsup", 8);
        equal_on(&[1, 2, 3, 4], |comm| train(&setting, comm));
    }
}

#[test]
fn each_loss_at_full_resolution_is_the_same_on_any_ranks() {
    for loss in ["ce", "{ohem: {threshold: 0.3, least: 500}, dice: {over: batch}}", "[focal, lovasz]"] {
        let setting = with(loss, "c1_deepsup", 1);
        equal_on(&[1, 2, 4], |comm| train(&setting, comm));
    }
}

#[test]
fn a_mean_of_micro_batches_of_a_sum_of_losses_is_the_same_on_any_ranks() {
    let mut setting = with("{ce: 1, dice: {over: batch}}", "c1", 8);
    setting.train.loss_norm = LossNorm::PerRank;
    equal_on(&[1, 2, 4], |comm| train(&setting, comm));
}

/// The loss of one step, the parameters after it, and the running statistics.
fn first_step(setting: &Setting, comm: Arc<dyn Comm>) -> (f64, Vec<f32>, Vec<f32>) {
    let mut trainer = setting.trainer(&comm, Unlabelled(setting.synthetic(&*comm)), None);
    let loss = trainer.step(false).unwrap().shown.unwrap().loss;
    let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.detach().flatten(0, -1)).unwrap();
    let all = trainer.network().store.variables.iter();
    let (buffers, parameters): (Vec<_>, Vec<_>) = all.partition(|variable| variable.role == Role::Buffer);
    let of = |variables: Vec<&segdist::model::layers::Variable>| {
        variables.iter().flat_map(|variable| values(&variable.tensor)).collect()
    };
    (loss, of(parameters), of(buffers))
}

#[test]
fn joint_losses_with_batch_statistics_and_several_rounds_are_the_same_on_two_ranks_and_observe_once() {
    let on = |ranks: usize, loss: &str| {
        let mut setting = with(loss, "c1", 8);
        setting.train.fix_bn = false;
        // Two rounds, of the same two images each, whatever the ranks.
        setting.train.batch_size_per_gpu = 2 / ranks;
        threads::run(ranks, |comm| first_step(&setting, comm)).remove(0)
    };
    let plain = on(1, "ce");
    for loss in ["{dice: {over: batch}}", "[ce, dice]", "{ce: 1, ohem: {threshold: 0.3, least: 5}}"] {
        let (alone, both) = (on(1, loss), on(2, loss));
        assert_eq!(alone.2, plain.2, "{loss}: statistics depend on the loss");
        assert_ne!(alone.1, plain.1, "{loss} moves nothing of its own");
        assert!((alone.0 - both.0).abs() < 1e-5 * alone.0, "{loss}: {} for {}", both.0, alone.0);
        for (ours, theirs) in [(&both.1, &alone.1), (&both.2, &alone.2)] {
            let off = ours.iter().zip(theirs).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(off < 1e-5, "{loss}: a value is off by {off}");
        }
    }
}
