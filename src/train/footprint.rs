//! How much memory a step takes on a rank, before one is taken.
//!
//! Parameters, gradients and the optimizer's state are counted. What forward keeps for backward is measured: in a step of
//! that size where it is small, else in two steps on small images, since it grows with the pixels of a micro-batch from a
//! part that does not. No formula has to know the layers. A network whose memory grows faster than its pixels would take
//! more than is said.

use super::{Recipe, TrainConfig};
use crate::data::resize::{round_up, target_size};
use crate::fault;
use crate::model::layers::{Local, Role};
use crate::model::{Network, Pass};
use crate::optim::{self, Optim};
use crate::torch::{memory, meter, precision};
use tch::{Device, Kind, Tensor};

/// Sides of the small images: smaller ones are computed in other ways, which need other memory.
const SIDES: [i64; 2] = [64, 128];

/// Bytes of a number.
const F32: u64 = 4;

/// What a step takes, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    /// Parameters, gradients, the optimizer's state, running statistics, and what a step makes.
    pub tensors: u64,
    /// All of the process on the CPU: tensors, and what libraries take for themselves.
    pub process: u64,
}

impl Footprint {
    /// Of a step of `images` of `size` (height, width) at once, found out by small steps on the CPU.
    pub fn measure(recipe: &Recipe, images: usize, size: (i64, i64)) -> anyhow::Result<Footprint> {
        let footprint = Footprint::of_small_steps(recipe, images, size);
        memory::give_freed_memory_back();
        footprint
    }

    fn of_small_steps(recipe: &Recipe, images: usize, size: (i64, i64)) -> anyhow::Result<Footprint> {
        let Recipe { dataset, model, train, .. } = *recipe;
        let network = Network::blank(model, dataset.num_class, Device::Cpu).map_err(fault::classified)?;
        if train.channels_last {
            optim::to_channels_last(&network.store);
        }
        let (wanted, [small, large]) = ((images as i64, size.0, size.1), SIDES.map(|side| (1, side, side)));
        let pixels = |(images, height, width): (i64, i64, i64)| (images * height * width) as f64;
        let (bytes, last) = if pixels(wanted) <= pixels(large) {
            let peak = peak(&network, train, wanted)?;
            (peak, peak)
        } else {
            let [first, last] = [peak(&network, train, small)?, peak(&network, train, large)?];
            let per_pixel = ((last - first) / (pixels(large) - pixels(small))).max(0.0);
            (last + per_pixel * (pixels(wanted) - pixels(large)), last)
        };
        let trained = trained(&network);
        let states = match train.optim {
            Optim::SGD => 1,
            Optim::AdamW => 2,
        };
        let all: u64 = network.store.variables.iter().map(|variable| variable.tensor.numel() as u64).sum();
        let tensors = F32 * (all + (1 + states) * trained) + bytes as u64;
        // Parameters, gradients and the last step are what tensors took so far.
        let known = F32 * (all + trained) + last as u64;
        let others = ((memory::peak_rss_mb() * f64::from(1 << 20)) as u64).saturating_sub(known);
        Ok(Footprint { tensors, process: tensors + others })
    }
}

/// How many numbers are trained.
fn trained(network: &Network) -> u64 {
    let variables = network.store.variables.iter();
    variables.filter(|variable| variable.role != Role::Buffer).map(|variable| variable.tensor.numel() as u64).sum()
}

/// The most bytes of tensors in a step of `size` (images, height, width), gradients of parameters left out.
fn peak(network: &Network, train: &TrainConfig, size: (i64, i64, i64)) -> anyhow::Result<f64> {
    // Gradients are made in the first step and stay.
    step(network, train, size)?;
    let mut outcome = Ok(());
    let peak = meter::peak_bytes(|| outcome = step(network, train, size))?;
    outcome.map(|()| peak as f64)
}

/// Forward and backward as training makes them, up to the loss.
fn step(network: &Network, train: &TrainConfig, (images, height, width): (i64, i64, i64)) -> anyhow::Result<()> {
    let images = Tensor::zeros([images, 3, height, width], (Kind::Float, Device::Cpu));
    let images = if train.channels_last { memory::to_channels_last(&images) } else { images };
    let pass = Pass { train: !train.fix_bn, norm: &Local, dropout: None, deep_supervision: true };
    let logits = precision::autocast(Device::Cpu, train.amp.kind(), || network.forward(&images, &pass))?;
    let heads = [Some(logits.main), logits.deepsup].into_iter().flatten();
    let loss: Tensor = heads.map(|scores| scores.log_softmax(1, Kind::Float).mean(Kind::Float)).sum();
    loss.f_backward()?;
    network.discard_statistics();
    Ok(())
}

/// (height, width) of the largest image of a list, as a step of the recipe pads it; `sizes` are (width, height).
pub fn largest_image(recipe: &Recipe, sizes: &[(u32, u32)]) -> (i64, i64) {
    let dataset = recipe.dataset;
    let padded = |side: u32| i64::from(round_up(side, dataset.padding_constant.max(1)));
    if let Some((width, height)) = dataset.crop_size() {
        return (padded(height), padded(width));
    }
    let short = dataset.imgSizes.iter().copied().max().unwrap_or(dataset.imgMaxSize);
    let short = (f64::from(short) * dataset.scale_jitter[1]) as u32;
    let image = |&size: &(u32, u32)| {
        let (width, height) = target_size(size, short.max(1), dataset.imgMaxSize);
        (padded(height), padded(width))
    };
    sizes.iter().map(image).max_by_key(|(height, width)| height * width).unwrap_or_default()
}
