//! Times updates of the configured network on a synthetic batch of the configured size.

use super::{Workload, median};
use crate::comm::{Comm, trace::Trace};
use crate::data::DatasetConfig;
use crate::loss::summed_nll_of_heads;
use crate::model::layers::{DropoutKey, Normalize};
use crate::model::{self, ModelConfig, Network, Pass};
use crate::optim::{self, Flat, Optimizer};
use crate::schedule::TrainConfig;
use crate::sync::batch_norm::SyncBatchNorm;
use crate::sync::buckets::Reducer;
use crate::sync::transport;
use crate::torch::{memory, precision};
use crate::{bad_input, fault};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Updates before the clock counts: buffers are made, libraries choose their kernels.
const WARM_UP: usize = 3;
const MEASURED: usize = 10;

/// Prints `median_s`, `images_per_s` over all ranks, `peak_rss_mb` (this rank's) and, on a GPU, `peak_device_mb`.
pub fn run(workload: &Workload, comm: &Arc<dyn Comm>, json: bool) -> anyhow::Result<()> {
    memory::keep_freed_memory();
    let mut step = Step::new(workload, comm)?;
    let mut times = Vec::new();
    for measured in 0..WARM_UP + MEASURED {
        comm.barrier()?;
        let start = Instant::now();
        step.run(measured as u64)?;
        if measured >= WARM_UP {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    if !comm.is_root() {
        return Ok(());
    }
    let median_s = median(&mut times);
    let images = workload.train.batch_size_per_gpu * comm.size();
    let mut row = json!({
        "median_s": median_s,
        "images_per_s": images as f64 / median_s,
        "peak_rss_mb": memory::peak_rss_mb(),
        "width": step.images.size()[3],
        "height": step.images.size()[2],
        "images": images,
        "ranks": comm.size(),
        "threads": tch::get_num_threads(),
    });
    if let Device::Cuda(index) = workload.device {
        row["peak_device_mb"] = memory::peak_device_mb(index)?.into();
    }
    super::print(&row, json);
    Ok(())
}

/// (short, long) side of the padded batch: the largest of imgSizes and 4/3 of it, at most imgMaxSize.
pub fn batch_size(dataset: &DatasetConfig) -> (i64, i64) {
    let short = dataset.imgSizes.iter().copied().max().unwrap_or(0);
    let long = (short * 4 / 3).min(dataset.imgMaxSize).max(short.min(dataset.imgMaxSize));
    let constant = dataset.padding_constant.max(1);
    let padded = |side: u32| i64::from(side.div_ceil(constant) * constant);
    (padded(short.min(dataset.imgMaxSize)), padded(long))
}

/// A network, what trains it, and one batch of random images.
pub struct Step {
    network: Network,
    optimizer: Optimizer,
    reducer: Reducer,
    norm: Box<dyn Normalize>,
    recipe: TrainConfig,
    model: ModelConfig,
    device: Device,
    images: Tensor,
    labels: Tensor,
    /// Labelled pixels on all ranks.
    valid: f64,
}

impl Step {
    /// Every rank of `comm` makes its own. A collective.
    pub fn new(workload: &Workload, comm: &Arc<dyn Comm>) -> anyhow::Result<Step> {
        let Workload { dataset, model, train, dist, device } = *workload;
        let stride = i64::from(model::shape(model).map_err(fault::classified)?.output_stride);
        let network = Network::build(model, dataset.num_class, device, train.seed).map_err(fault::classified)?;
        if train.channels_last {
            optim::to_channels_last(&network.store);
        }
        let flat = Flat::new(&network.store, dist.bucket_bytes());
        let (height, width) = batch_size(dataset);
        let count = train.batch_size_per_gpu as i64;
        if height == 0 || count == 0 {
            bad_input!("bench step: imgSizes, imgMaxSize and batch_size_per_gpu must be positive");
        }
        let images = Tensor::randn([count, 3, height, width], (Kind::Float, device));
        let images = if train.channels_last { memory::to_channels_last(&images) } else { images };
        let rounded_up = |side: i64| (side + stride - 1) / stride;
        let size = [count, rounded_up(height), rounded_up(width)];
        let labels = Tensor::randint_low(-1, dataset.num_class as i64, size, (Kind::Int64, device));
        let backend = transport::choose(&**comm, device, dist)?;
        let mut valid = [labels.ge(0).sum(Kind::Int64).int64_value(&[])];
        comm.all_reduce_i64(&mut valid)?;
        Ok(Step {
            optimizer: Optimizer::new(&flat, train),
            reducer: Reducer::new(&flat, comm.duplicate()?, backend, dist, &Trace::default())?,
            network,
            norm: Box::new(SyncBatchNorm::new(comm.duplicate()?, model.bn_variance)),
            recipe: train.clone(),
            model: model.clone(),
            device,
            images,
            labels,
            valid: valid[0].max(1) as f64,
        })
    }

    /// One update, to the end of it on the device; seconds of backward, and of the wait for gradients after it.
    pub fn run(&mut self, number: u64) -> anyhow::Result<(f64, f64)> {
        self.reducer.zero();
        let loss = precision::autocast(self.device, self.recipe.amp.kind(), || self.loss(number))?;
        self.reducer.arm();
        let start = Instant::now();
        loss.backward();
        let backward_s = start.elapsed().as_secs_f64();
        let reduced = self.reducer.wait()?;
        if reduced.squared_norm.is_finite() {
            self.optimizer.step(self.recipe.lr_encoder, self.recipe.lr_decoder, 1.0)?;
            self.network.commit_statistics(self.model.bn_running);
        } else {
            self.network.discard_statistics();
        }
        if let Device::Cuda(index) = self.device {
            tch::Cuda::synchronize(index as i64);
        }
        Ok((backward_s, reduced.waited_s))
    }

    fn loss(&self, number: u64) -> Tensor {
        let train = !self.recipe.fix_bn;
        let key = DropoutKey { seed: self.recipe.seed, step: number, first: 0 };
        let pass = Pass { train, norm: &*self.norm, dropout: train.then_some(key), deep_supervision: true };
        let logits = self.network.forward(&self.images, &pass);
        let (main, deepsup) = (&logits.main, logits.deepsup.as_ref());
        summed_nll_of_heads(main, deepsup, self.recipe.deep_sup_scale, &self.labels) / self.valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(short: u32, most: u32) -> (i64, i64) {
        batch_size(&DatasetConfig { imgSizes: vec![32, short], imgMaxSize: most, ..DatasetConfig::default() })
    }

    #[test]
    fn the_long_side_is_four_thirds_of_the_short_one_within_the_limit() {
        assert_eq!(size(600, 1000), (600, 800));
        assert_eq!(size(160, 160), (160, 160));
        assert_eq!(size(601, 1000), (608, 808));
    }
}
