//! Times updates of the configured network on a synthetic batch of the configured size.

use super::{cpu_seconds, median};
use crate::bad_input;
use crate::comm::{Comm, journal::Journal};
use crate::data::DatasetConfig;
use crate::data::batch_source::Share;
use crate::data::synthetic::{Synthetic, SyntheticSpec};
use crate::torch::{memory, trouble::readable};
use crate::train::{Beginning, Footprint, Links, Recipe, Replica, Trainer, Update};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tch::Device;

/// Updates before the clock counts: buffers are made, libraries choose their kernels.
const WARM_UP: usize = 3;
const MEASURED: usize = 10;

/// Says how much memory a step will take, then prints `median_s`, `cpu_s` (this rank's CPU time of a step), `images_per_s`
/// over all ranks, `peak_rss_mb` (this rank's), `estimated_mb` (what was said) and, on a GPU, `peak_device_mb`.
pub fn run(recipe: &Recipe, device: Device, comm: &Arc<dyn Comm>, json: bool) -> anyhow::Result<()> {
    memory::keep_freed_memory();
    let (height, width) = batch_size(recipe.dataset);
    let footprint = Footprint::measure(recipe, recipe.train.batch_size_per_gpu, (height, width))?;
    let expected = if device == Device::Cpu { footprint.process } else { footprint.tensors };
    if comm.is_root() && !json {
        println!("a step takes about {} on each rank", readable(expected));
    }
    let mut trainer = trainer(recipe, device, comm)?;
    let mut times = Vec::new();
    let mut cpu_before = 0.0;
    for measured in 0..WARM_UP + MEASURED {
        if measured == WARM_UP {
            cpu_before = cpu_seconds();
        }
        comm.barrier()?;
        let start = Instant::now();
        update(&mut trainer, device)?;
        if measured >= WARM_UP {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    if !comm.is_root() {
        return Ok(());
    }
    let cpu_s = (cpu_seconds() - cpu_before) / MEASURED as f64;
    let median_s = median(&mut times);
    let images = recipe.train.global_batch_on(comm.size());
    let mut row = json!({
        "median_s": median_s,
        "cpu_s": cpu_s,
        "images_per_s": images as f64 / median_s,
        "peak_rss_mb": memory::peak_rss_mb(),
        "estimated_mb": expected as f64 / f64::from(1 << 20),
        "width": width,
        "height": height,
        "images": images,
        "ranks": comm.size(),
        "threads": tch::get_num_threads(),
    });
    if let Device::Cuda(index) = device {
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

/// Training's own trainer of a network with random values, on synthetic batches. A collective.
pub fn trainer(recipe: &Recipe, device: Device, comm: &Arc<dyn Comm>) -> anyhow::Result<Trainer<Synthetic>> {
    let Recipe { dataset, train, .. } = *recipe;
    let (height, width) = batch_size(dataset);
    if height == 0 || train.batch_size_per_gpu == 0 {
        bad_input!("bench step: imgSizes, imgMaxSize and batch_size_per_gpu must be positive");
    }
    let beginning = Beginning::fresh(train, comm.size());
    let spec = SyntheticSpec {
        size: (width as u32, height as u32),
        rate: dataset.segm_downsampling_rate,
        num_class: dataset.num_class,
        global_batch: beginning.global_batch,
        micro_batch: train.batch_size_per_gpu,
        seed: train.seed,
    };
    let batches = Synthetic::new(spec, Share { rank: comm.rank(), ranks: comm.size() });
    let replica = Replica::build(recipe, device)?;
    let links = Links::connect(recipe, &replica.flat, comm, &Journal::default())?;
    Trainer::new(recipe, replica, links, batches, &beginning)
}

/// One update, to the end of it on the device.
pub fn update(trainer: &mut Trainer<Synthetic>, device: Device) -> anyhow::Result<Update> {
    let update = trainer.step(false)?;
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
    Ok(update)
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
