//! Values that must go together. One check, one message that says which key to set to what.

use super::Config;
use crate::data::DatasetConfig;
use crate::model;

/// The first thing that is wrong, in one line.
pub fn validate(config: &Config) -> Result<(), String> {
    dataset(&config.DATASET)?;
    recipe(config)?;
    network(config)
}

fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

fn dataset(dataset: &DatasetConfig) -> Result<(), String> {
    let (rate, padding) = (dataset.segm_downsampling_rate, dataset.padding_constant);
    require((1..=255).contains(&dataset.num_class), || {
        format!("DATASET.num_class is {}: set it to 1 … 255", dataset.num_class)
    })?;
    require(!dataset.imgSizes.is_empty() && dataset.imgSizes.iter().all(|&size| size > 0), || {
        "DATASET.imgSizes must name at least one short edge, such as (300, 375, 450)".into()
    })?;
    require(dataset.imgMaxSize > 0, || {
        "DATASET.imgMaxSize is 0: set it to the largest long edge, such as 1000".into()
    })?;
    require(rate > 0 && padding > 0 && padding.is_multiple_of(rate), || {
        format!(
            "DATASET.padding_constant is {padding}: set it to a multiple of DATASET.segm_downsampling_rate ({rate})"
        )
    })?;
    let [low, high] = dataset.scale_jitter;
    require(low > 0.0 && low <= high && high.is_finite(), || {
        format!("DATASET.scale_jitter is [{low}, {high}]: give a range such as [0.5, 2.0]")
    })?;
    require((0.0..=1.0).contains(&dataset.color_jitter), || "DATASET.color_jitter must lie between 0 and 1".into())?;
    require(dataset.crop.is_multiple_of(padding), || {
        format!("DATASET.crop is {}: set it to a multiple of DATASET.padding_constant ({padding})", dataset.crop)
    })
}

fn recipe(config: &Config) -> Result<(), String> {
    let train = &config.TRAIN;
    train.validate()?;
    require((-1..config.DATASET.num_class as i64).contains(&train.padding_label), || {
        format!("TRAIN.padding_label is {}: set it to -1 (ignored) or a class", train.padding_label)
    })?;
    require(config.DIST.bucket_mb > 0.0, || "DIST.bucket_mb must be more than 0".into())?;
    require(config.DIST.start_timeout_s > 0.0 && config.DIST.stall_timeout_s > 0.0, || {
        "DIST.start_timeout_s and DIST.stall_timeout_s must be more than 0 seconds".into()
    })?;
    require(config.CHECKPOINT.keep_last > 0, || "CHECKPOINT.keep_last is 0: keep at least one".into())?;
    require(config.VAL.batch_size > 0, || "VAL.batch_size is 0: set it to at least 1".into())?;
    require(!config.DIR.as_os_str().is_empty(), || "DIR is empty: name the folder of the run".into())
}

fn network(config: &Config) -> Result<(), String> {
    let shape = model::shape(&config.MODEL).map_err(|error| error.to_string())?;
    let rate = config.DATASET.segm_downsampling_rate;
    require(rate == shape.output_stride, || {
        format!(
            "DATASET.segm_downsampling_rate is {rate}, but {} with {} predicts one pixel in {stride}: set it to {stride}",
            config.MODEL.arch_encoder,
            config.MODEL.arch_decoder,
            stride = shape.output_stride
        )
    })?;
    let momentum = config.MODEL.bn_momentum.unwrap_or(0.1);
    require(momentum > 0.0 && momentum <= 1.0, || {
        format!("MODEL.bn_momentum is {momentum}: set it to more than 0, at most 1")
    })
}
