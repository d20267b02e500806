//! Values of different sections that must go together; what one section can check itself stands beside its keys. One
//! check, one message that says which key to set to what.

use super::Config;
use crate::fault::require;
use crate::model;

/// The first thing that is wrong, in one line.
pub fn validate(config: &Config) -> Result<(), String> {
    config.DATASET.validate()?;
    config.MODEL.validate()?;
    config.TRAIN.validate()?;
    config.VAL.validate()?;
    config.DIST.validate()?;
    config.CHECKPOINT.validate()?;
    require(!config.DIR.as_os_str().is_empty(), || "DIR is empty: name the folder of the run".into())?;
    padding_label(config)?;
    config.TRAIN.loss.check_classes(config.DATASET.num_class)?;
    output_stride(config)
}

fn padding_label(config: &Config) -> Result<(), String> {
    let label = config.TRAIN.padding_label;
    require((-1..config.DATASET.num_class as i64).contains(&label), || {
        format!("TRAIN.padding_label is {label}: set it to -1 (ignored) or a class")
    })
}

fn output_stride(config: &Config) -> Result<(), String> {
    let shape = model::shape(&config.MODEL).map_err(|error| error.to_string())?;
    let (rate, stride) = (config.DATASET.segm_downsampling_rate, shape.output_stride);
    let network = format!("{} with {}", config.MODEL.arch_encoder, config.MODEL.arch_decoder);
    require(rate == stride || rate == 1, || {
        format!(
            "DATASET.segm_downsampling_rate is {rate}, but {network} predicts one pixel in {stride}: set it to {stride}, \
             or to 1 for a loss at full resolution"
        )
    })?;
    let padding = config.DATASET.padding_constant;
    require(padding.is_multiple_of(stride), || {
        format!(
            "DATASET.padding_constant is {padding}, but {network} predicts one pixel in {stride}: set it to a multiple of \
             {stride}"
        )
    })
}
