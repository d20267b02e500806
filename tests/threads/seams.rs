//! The trainer: ranks equal one rank, and parts written here (a loss, a schedule, a gradient backend, a source of
//! batches) train without a change anywhere else.

use segdist::comm::{Comm, CommError, journal::Journal, threads};
use segdist::data::DatasetConfig;
use segdist::data::batch::HostBatch;
use segdist::data::batch_source::{BatchSource, Share, StepBatch};
use segdist::data::synthetic::{Synthetic, SyntheticSpec};
use segdist::fault;
use segdist::loss::{CrossEntropy, Form, Loss, LossNorm};
use segdist::model::layers::Role;
use segdist::model::{Init, ModelConfig};
use segdist::sync::DistConfig;
use segdist::sync::backend::{Backend, GradientBackend, Turn};
use segdist::torch::memory::f32_slice;
use segdist::train::{Beginning, Links, Recipe, Replica, TrainConfig, Trainer};
use std::sync::Arc;
use tch::{Kind, Tensor};

const CLASSES: usize = 3;
const SIDE: u32 = 48;
const STEPS: usize = 3;

/// What is trained, in three steps of four images; the network keeps its activations near 1 while batch norm is the identity.
#[derive(Clone)]
pub struct Setting {
    pub dataset: DatasetConfig,
    pub model: ModelConfig,
    pub train: TrainConfig,
    pub dist: DistConfig,
}

pub fn setting(decoder: &str) -> Setting {
    Setting {
        dataset: DatasetConfig {
            num_class: CLASSES,
            imgSizes: vec![SIDE],
            imgMaxSize: SIDE,
            ..DatasetConfig::default()
        },
        model: ModelConfig {
            arch_encoder: "resnet18dilated".into(),
            arch_decoder: decoder.into(),
            init: Init::Random,
            ..ModelConfig::default()
        },
        train: TrainConfig {
            batch_size_per_gpu: 1,
            global_batch: 4,
            num_epoch: 1,
            epoch_iters: STEPS as u64,
            lr_encoder: 1e-3,
            lr_decoder: 1e-3,
            fix_bn: true,
            disp_iter: 1,
            ..TrainConfig::default()
        },
        dist: DistConfig { bucket_mb: 4.0, ..DistConfig::default() },
    }
}

impl Setting {
    fn recipe(&self) -> Recipe<'_> {
        Recipe { dataset: &self.dataset, model: &self.model, train: &self.train, dist: &self.dist }
    }

    pub fn synthetic(&self, comm: &dyn Comm) -> Synthetic {
        let spec = SyntheticSpec {
            size: (SIDE, SIDE),
            rate: self.dataset.segm_downsampling_rate,
            num_class: CLASSES,
            global_batch: self.train.global_batch,
            micro_batch: self.train.batch_size_per_gpu,
            seed: 5,
        };
        Synthetic::new(spec, Share { rank: comm.rank(), ranks: comm.size() })
    }

    /// A trainer of one rank, over TRAIN's own backend or another.
    pub fn trainer<B: BatchSource>(&self, comm: &Arc<dyn Comm>, batches: B, backend: Option<Backend>) -> Trainer<B> {
        tch::set_num_threads(1);
        let recipe = self.recipe();
        let replica = Replica::build(&recipe, tch::Device::Cpu).unwrap();
        tch::no_grad(|| {
            for variable in replica.network.store.variables.iter().filter(|variable| variable.tensor.dim() == 4) {
                let _ = variable.tensor.shallow_clone().g_mul_scalar_(0.6);
            }
        });
        let links = match backend {
            Some(backend) => Links::over(backend, &recipe, &replica.flat, comm, &Journal::default()),
            None => Links::connect(&recipe, &replica.flat, comm, &Journal::default()),
        };
        let beginning = Beginning::fresh(&self.train, comm.size());
        Trainer::new(&recipe, replica, links.unwrap(), batches, &beginning).unwrap()
    }
}

/// The losses of a run, its last learning rate, and the parameters that it ends with.
pub struct Outcome {
    pub losses: Vec<f64>,
    pub lr: f64,
    pub parameters: Vec<f32>,
}

pub fn run<B: BatchSource>(mut trainer: Trainer<B>) -> Outcome {
    let updates: Vec<_> = (0..STEPS).map(|_| trainer.step(false).unwrap()).collect();
    assert!(updates.iter().all(|update| update.committed));
    let trained = trainer.network().store.variables.iter().filter(|variable| variable.role != Role::Buffer);
    let values = |tensor: &Tensor| Vec::<f32>::try_from(tensor.detach().flatten(0, -1)).unwrap();
    Outcome {
        losses: updates.iter().map(|update| update.shown.expect("TRAIN.disp_iter is 1").loss).collect(),
        lr: updates[STEPS - 1].lr_decoder,
        parameters: trained.flat_map(|variable| values(&variable.tensor)).collect(),
    }
}

#[track_caller]
pub fn assert_alike(ours: &Outcome, theirs: &Outcome, tolerance: f64) {
    for (a, b) in ours.losses.iter().zip(&theirs.losses) {
        assert!((a - b).abs() <= tolerance * b.abs(), "{:?} for {:?}", ours.losses, theirs.losses);
    }
    let off = ours.parameters.iter().zip(&theirs.parameters).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(off < 1e-5, "a parameter is off by {off}");
    let moved = ours.losses.windows(2).all(|pair| pair[0] != pair[1]);
    assert!(moved && ours.losses.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{:?}", ours.losses);
}

/// Every number of ranks must end where the first does, and all ranks of it in the same bits.
#[track_caller]
pub fn equal_on(ranks: &[usize], body: impl Fn(Arc<dyn Comm>) -> Outcome + Sync) -> Outcome {
    let mut all = ranks.iter().map(|&count| {
        let mut of_ranks = threads::run(count, &body);
        assert!(of_ranks.iter().all(|one| one.parameters == of_ranks[0].parameters), "ranks differ");
        of_ranks.remove(0)
    });
    let first = all.next().unwrap();
    for other in all {
        assert_alike(&other, &first, 1e-5);
    }
    first
}

#[test]
fn two_three_and_four_ranks_train_like_one_on_synthetic_batches() {
    let _threads = crate::one_thread();
    let setting = setting("c1_deepsup");
    equal_on(&[1, 2, 3, 4], |comm| run(setting.trainer(&comm, setting.synthetic(&*comm), None)));
}

#[test]
fn with_batch_statistics_the_first_step_of_two_ranks_is_that_of_one() {
    let _threads = crate::one_thread();
    let mut setting = setting("c1");
    setting.train.fix_bn = false;
    let first = |ranks: usize| {
        let mut setting = setting.clone();
        setting.train.batch_size_per_gpu = 4 / ranks;
        threads::run(ranks, |comm| {
            let update = setting.trainer(&comm, setting.synthetic(&*comm), None).step(false).unwrap();
            update.shown.unwrap().loss
        })
        .remove(0)
    };
    let (alone, both) = (first(1), first(2));
    assert!((alone - both).abs() < 1e-5 * alone, "{both} for {alone}");
}

#[test]
fn the_reference_s_mean_of_means_is_the_same_on_any_ranks() {
    let _threads = crate::one_thread();
    let mut setting = setting("c1_deepsup");
    setting.train.loss_norm = LossNorm::PerRank;
    equal_on(&[1, 2, 4], |comm| run(setting.trainer(&comm, setting.synthetic(&*comm), None)));
}

/// 1 − Dice, the mean over classes, of the whole global batch (Milletari et al. 2016, arXiv 1606.04797).
struct Dice;

impl Loss for Dice {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let labelled = labels.ge(0).unsqueeze(1);
        let truth = labels.clamp_min(0).one_hot(CLASSES as i64).permute([0, 3, 1, 2]) * &labelled;
        let shares = logits.softmax(1, Kind::Float) * &labelled;
        let of_classes = |values: Tensor| values.sum_dim_intlist([0i64, 2, 3].as_slice(), false, Kind::Double);
        Tensor::cat(&[of_classes(&shares * &truth), of_classes(shares + truth)], 0)
    }

    fn length(&self) -> usize {
        2 * CLASSES
    }

    fn form(&self) -> Form {
        Form::Joint
    }

    fn value(&self, sums: &Tensor) -> Tensor {
        let (common, all) = (sums.narrow(0, 0, CLASSES as i64), sums.narrow(0, CLASSES as i64, CLASSES as i64));
        1.0 - (common * 2.0 / (all + 1e-6)).mean(Kind::Double)
    }
}

#[test]
fn a_loss_that_needs_all_sums_before_backward_is_the_same_on_any_ranks() {
    let _threads = crate::one_thread();
    for decoder in ["c1", "c1_deepsup"] {
        let setting = setting(decoder);
        let train = |comm: Arc<dyn Comm>| {
            run(setting.trainer(&comm, setting.synthetic(&*comm), None).with_loss(Box::new(Dice)))
        };
        let in_rounds = equal_on(&[1, 2, 3, 4], train);
        let mut whole = setting.clone();
        whole.train.batch_size_per_gpu = 4;
        let at_once =
            threads::run(1, |comm| run(whole.trainer(&comm, whole.synthetic(&*comm), None).with_loss(Box::new(Dice))));
        assert_alike(&at_once[0], &in_rounds, 1e-5);
    }
}

/// Cross-entropy over the pixels whose class has less than 0.7 of the probability (OHEM, arXiv 1604.03540).
struct Hard;

impl Loss for Hard {
    fn sums(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let nll = CrossEntropy::of_pixels(logits, labels);
        let kept = nll.gt(-(0.7f64.ln())).detach();
        Tensor::stack(&[(&nll * &kept).sum(Kind::Double), kept.sum(Kind::Double)], 0)
    }

    fn form(&self) -> Form {
        Form::MeanOfChosen
    }
}

#[test]
fn a_loss_whose_divisor_depends_on_the_scores_is_the_same_on_any_ranks() {
    let _threads = crate::one_thread();
    for decoder in ["c1", "c1_deepsup"] {
        let setting = setting(decoder);
        equal_on(&[1, 2, 4], |comm| {
            run(setting.trainer(&comm, setting.synthetic(&*comm), None).with_loss(Box::new(Hard)))
        });
    }
}

#[test]
fn a_schedule_of_ones_own_sets_the_rates() {
    let _threads = crate::one_thread();
    let setting = setting("c1");
    let outcome = equal_on(&[1, 2], |comm| {
        let trainer = setting.trainer(&comm, setting.synthetic(&*comm), None);
        run(trainer.with_schedule(Box::new(|step: u64| 0.5f64.powi(step as i32))))
    });
    assert_eq!(outcome.lr, 1e-3 * 0.25);
}

/// Sums that every rank takes of everyone's values.
struct Everyone;

impl GradientBackend for Everyone {
    fn name(&self) -> String {
        "everyone's values".into()
    }

    fn sum(&self, bucket: &mut Tensor, turn: &Turn) -> Result<(), CommError> {
        let own: Vec<u8> = f32_slice(bucket).iter().flat_map(|value| value.to_le_bytes()).collect();
        let all = turn.comm.all_gather(&own)?;
        for (at, value) in f32_slice(bucket).iter_mut().enumerate() {
            *value = all.iter().map(|bytes| f32::from_le_bytes(bytes[4 * at..][..4].try_into().unwrap())).sum();
        }
        Ok(())
    }
}

#[test]
fn a_gradient_backend_of_ones_own_carries_the_gradients() {
    let _threads = crate::one_thread();
    let setting = setting("c1");
    let usual = threads::run(2, |comm| run(setting.trainer(&comm, setting.synthetic(&*comm), None))).remove(0);
    let own = threads::run(2, |comm| run(setting.trainer(&comm, setting.synthetic(&*comm), Some(Arc::new(Everyone)))));
    own.iter().for_each(|own| assert_alike(own, &usual, 1e-6));
}

/// One grey image a rank and step, with one label everywhere; the rank `fails` has no batch for its second step.
struct Grey {
    share: Share,
    label: i64,
    step: u64,
    fails: Option<usize>,
}

impl BatchSource for Grey {
    fn next(&mut self) -> anyhow::Result<StepBatch> {
        let (step, Share { rank, ranks }) = (self.step, self.share);
        if step == 1 && self.fails == Some(rank) {
            segdist::bad_input!("grey.png: is black");
        }
        self.step += 1;
        let image = |number: usize| {
            let bytes = vec![(40 * (number + 1) + step as usize) as u8; (3 * SIDE * SIDE) as usize];
            let labels = vec![self.label; (SIDE / 8 * SIDE / 8) as usize];
            HostBatch::new(number, vec![number as u32], (SIDE, SIDE), 8, (bytes, labels))
        };
        let rounds = (0..4usize.div_ceil(ranks)).map(|round| round * ranks + rank);
        let rounds = rounds.map(|number| (number < 4).then(|| image(number))).collect();
        Ok(StepBatch { step, pass: 0, rounds, substituted: 0 })
    }
}

fn grey(comm: &dyn Comm, label: i64, fails: Option<usize>) -> Grey {
    Grey { share: Share { rank: comm.rank(), ranks: comm.size() }, label, step: 0, fails }
}

#[test]
fn a_source_of_ones_own_gives_the_batches() {
    let _threads = crate::one_thread();
    let setting = setting("c1_deepsup");
    equal_on(&[1, 2, 3], |comm| run(setting.trainer(&comm, grey(&*comm, 1, None), None)));
}

#[test]
fn a_rank_without_its_next_batch_ends_all_ranks_with_its_reason_after_the_update_before() {
    let _threads = crate::one_thread();
    let setting = setting("c1");
    for fails in [0, 1] {
        let ended = threads::run(2, |comm| {
            let mut trainer = setting.trainer(&comm, grey(&*comm, 1, Some(fails)), None);
            assert!(trainer.step(false).unwrap().committed);
            let error = trainer.step(false).err().expect("there is no second batch");
            (error.to_string(), fault::exit_code(&error))
        });
        let expected = (format!("rank {fails}: grey.png: is black"), 2);
        assert_eq!(ended, [expected.clone(), expected]);
    }
}

#[test]
fn a_request_to_stop_on_any_rank_is_told_to_all_with_the_update() {
    let _threads = crate::one_thread();
    let setting = setting("c1");
    let told = threads::run(3, |comm| {
        let mut trainer = setting.trainer(&comm, setting.synthetic(&*comm), None);
        [false, comm.rank() == 2].map(|stop| trainer.step(stop).unwrap().stop)
    });
    assert_eq!(told, [[false, true]; 3]);
}

#[test]
fn batches_without_a_labelled_pixel_have_no_loss_and_move_nothing() {
    let _threads = crate::one_thread();
    let mut setting = setting("c1_deepsup");
    setting.train.weight_decay = 0.0;
    let losses: [fn() -> Box<dyn Loss>; 2] = [|| Box::new(CrossEntropy::default()), || Box::new(Hard)];
    for loss in losses {
        let ended = threads::run(2, |comm| {
            let mut trainer = setting.trainer(&comm, grey(&*comm, -1, None), None).with_loss(loss());
            let before: Vec<Tensor> =
                trainer.network().store.variables.iter().map(|variable| variable.tensor.copy()).collect();
            let update = trainer.step(false).unwrap();
            let after = trainer.network().store.variables.iter().map(|variable| &variable.tensor);
            (update.committed, update.shown.unwrap().loss, after.zip(&before).all(|(after, before)| after == before))
        });
        assert_eq!(ended, [(true, 0.0, true); 2]);
    }
}
