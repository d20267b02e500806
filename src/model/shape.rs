//! Which encoder and decoder a configuration names, and whether they fit.

use super::{DECODERS, DecoderRow, ENCODERS, EncoderOptions, EncoderRow, FeatureMap, ModelConfig};
use crate::fault::{Failure, Kind};

/// Why a network cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A name that does not exist.
    #[error("{key}: there is no \"{name}\"; did you mean \"{nearest}\"? (known: {known})")]
    #[allow(missing_docs)]
    UnknownName { key: &'static str, name: String, nearest: &'static str, known: String },
    /// An encoder and a decoder that do not fit.
    #[error("MODEL.arch_decoder: {decoder} needs {needs}, and the encoder {encoder} gives {has}; use {instead}")]
    #[allow(missing_docs)]
    Combination { encoder: String, decoder: String, needs: &'static str, has: String, instead: String },
    /// MODEL.fc_dim is not the encoder's width.
    #[error("MODEL.fc_dim: {fc_dim} is not the width of {encoder}, which is {width}; set it to that, or to 0")]
    #[allow(missing_docs)]
    Width { encoder: String, fc_dim: usize, width: i64 },
    /// MODEL.drop_path is no probability.
    #[error("MODEL.drop_path is {0}: set it to 0 or more, and less than 1")]
    DropPath(f64),
}

impl Failure for ModelError {
    fn kind(&self) -> Kind {
        Kind::Input
    }
}

/// What the rest of the program needs to know of a network before it is built.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Channels of the encoder's feature maps, first to last.
    pub widths: Vec<i64>,
    /// Input pixels per output pixel, one direction.
    pub output_stride: u32,
    /// Whether the decoder has a second head for deep supervision.
    pub deep_supervision: bool,
}

/// Checks names and combination, without building anything.
pub fn shape(config: &ModelConfig) -> Result<Shape, ModelError> {
    let (encoder, decoder) = rows(config)?;
    let maps = fit(&encoder, &decoder, config)?;
    Ok(Shape {
        widths: maps.iter().map(|map| map.width).collect(),
        output_stride: decoder.plan.output_stride(&maps),
        deep_supervision: decoder.plan.deep_supervision(),
    })
}

/// The rows that a configuration names; any case will do, as in the reference.
pub(super) fn rows(config: &ModelConfig) -> Result<(EncoderRow, DecoderRow), ModelError> {
    let (encoders, decoders) = (ENCODERS.concat(), DECODERS.concat());
    let encoder = find("MODEL.arch_encoder", &config.arch_encoder, &encoders, |row| row.name)?;
    let decoder = find("MODEL.arch_decoder", &config.arch_decoder, &decoders, |row| row.name)?;
    Ok((encoder, decoder))
}

/// How many names are listed where one is unknown: all decoders, and encoders whose names are like it.
const MOST_NAMES: usize = 12;

fn find<Row: Copy>(
    key: &'static str,
    name: &str,
    rows: &[Row],
    name_of: impl Fn(&Row) -> &'static str,
) -> Result<Row, ModelError> {
    let wanted = name.to_lowercase();
    if let Some(row) = rows.iter().find(|row| name_of(row) == wanted) {
        return Ok(*row);
    }
    let distance = |candidate: &&'static str| strsim::damerau_levenshtein(&wanted, candidate);
    let mut known: Vec<&'static str> = rows.iter().map(&name_of).collect();
    known.sort_by_key(distance);
    let shown = &known[..known.len().min(MOST_NAMES)];
    let more = if known.len() > MOST_NAMES { ", …" } else { "" };
    let (nearest, known) = (known.first().copied().unwrap_or_default(), shown.join(", ") + more);
    Err(ModelError::UnknownName { key, name: name.to_string(), nearest, known })
}

/// How a configuration wants an encoder to be built before `decoder`.
pub(super) fn encoder_options(decoder: &DecoderRow, config: &ModelConfig) -> EncoderOptions {
    EncoderOptions { stem: config.stem, drop_path: config.drop_path, coarsest: decoder.plan.coarsest() }
}

/// The encoder's name, and the file with its ImageNet weights where one is published.
pub(super) fn pretrained_file(config: &ModelConfig) -> Result<(&'static str, Option<&'static str>), ModelError> {
    let (encoder, decoder) = rows(config)?;
    Ok((encoder.name, encoder.plan.pretrained_file(&encoder_options(&decoder, config))))
}

/// The feature maps that go from the encoder to the decoder: all but those finer than it has a use for.
fn maps(encoder: &EncoderRow, decoder: &DecoderRow, config: &ModelConfig) -> Vec<FeatureMap> {
    let mut maps = encoder.plan.maps(&encoder_options(decoder, config));
    maps.retain(|map| map.stride >= decoder.plan.finest());
    maps
}

/// Those maps, if they are what the decoder needs.
pub(super) fn fit(
    encoder: &EncoderRow,
    decoder: &DecoderRow,
    config: &ModelConfig,
) -> Result<Vec<FeatureMap>, ModelError> {
    if !(0.0..1.0).contains(&config.drop_path) {
        return Err(ModelError::DropPath(config.drop_path));
    }
    let maps = maps(encoder, decoder, config);
    let width = maps.last().map_or(0, |map| map.width);
    if config.fc_dim != 0 && config.fc_dim as i64 != width {
        return Err(ModelError::Width { encoder: encoder.name.into(), fc_dim: config.fc_dim, width });
    }
    let needs = decoder.plan.needs();
    if (needs.met_by)(&maps) {
        return Ok(maps);
    }
    let strides: Vec<String> = maps.iter().map(|map| map.stride.to_string()).collect();
    Err(ModelError::Combination {
        encoder: encoder.name.into(),
        decoder: decoder.name.into(),
        needs: needs.words,
        has: format!("{} (input pixels per pixel: {})", maps.len(), strides.join(", ")),
        instead: instead(encoder, decoder, config),
    })
}

/// What would fit: other decoders on this encoder, other encoders under this decoder.
fn instead(encoder: &EncoderRow, decoder: &DecoderRow, config: &ModelConfig) -> String {
    let fits =
        |encoder: &EncoderRow, decoder: &DecoderRow| (decoder.plan.needs().met_by)(&maps(encoder, decoder, config));
    let (encoders, decoders) = (ENCODERS.concat(), DECODERS.concat());
    let decoders: Vec<&str> = decoders.iter().filter(|other| fits(encoder, other)).map(|row| row.name).collect();
    let encoders: Vec<&str> = encoders.iter().filter(|other| fits(other, decoder)).map(|row| row.name).collect();
    let list = |names: Vec<&str>, part: &str| match names.len() {
        0 => format!("another {part}"),
        _ => names.join(", "),
    };
    format!(
        "{} after {}, or {} after one of {}",
        list(decoders, "decoder"),
        encoder.name,
        decoder.name,
        list(encoders, "encoder")
    )
}
