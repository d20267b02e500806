//! Which network a file of weights is of, where it is not the one that was asked for.
//!
//! Every encoder and decoder of the tables is built without memory, only for its tensors' names and sizes, and compared
//! with the file as if the file were to be loaded.

use super::load::{Part, compare};
use crate::model::{DECODERS, DecoderRow, ENCODERS, EncoderRow, ModelConfig, Network, Stem};
use tch::Tensor;

/// How many networks are named at most.
const MOST: usize = 3;

/// Any number of classes: a head with another one is the same network.
const CLASSES: usize = 19;

/// The remedy where `tensors` are a network of the tables, or the other part of one; None where they are none.
pub(super) fn remedy(part: Part, tensors: &[(String, Tensor)]) -> Option<String> {
    let find = |part| match part {
        Part::Encoder => encoders(tensors),
        Part::Decoder => decoders(tensors),
    };
    let (own, other) = match part {
        Part::Encoder => (part, Part::Decoder),
        Part::Decoder => (part, Part::Encoder),
    };
    if let Some(names) = find(own) {
        let name = own.name();
        return Some(format!("it is the {name} of {names}: set MODEL.arch_{name} to that, or name another file"));
    }
    let (name, other_name) = (own.name(), other.name());
    find(other).map(|names| {
        format!("it is the {other_name} of {names} and holds no {name}: name it in MODEL.weights_{other_name}")
    })
}

fn encoders(tensors: &[(String, Tensor)]) -> Option<String> {
    let c1 = DECODERS.concat().into_iter().find(|row| row.name == "c1")?;
    let mut fitting = Vec::new();
    for encoder in ENCODERS.concat() {
        for (stem, addition) in [(Stem::Deep, ""), (Stem::Plain, " with MODEL.stem plain")] {
            let config = ModelConfig { stem, ..ModelConfig::default() };
            if let Some(unused) = unused(Part::Encoder, tensors, &encoder, &c1, &config) {
                fitting.push((unused, format!("{}{addition}", encoder.name)));
                // Most have no stem to choose.
                break;
            }
        }
    }
    best(fitting)
}

fn decoders(tensors: &[(String, Tensor)]) -> Option<String> {
    let config = ModelConfig::default();
    let mut fitting = Vec::new();
    for decoder in DECODERS.concat() {
        let mut seen = Vec::new();
        for encoder in ENCODERS.concat() {
            let Ok(maps) = super::super::shape::fit(&encoder, &decoder, &config) else { continue };
            let published = encoder.plan.decoder_dim(decoder.name);
            let widths = (maps.iter().map(|map| map.width).collect::<Vec<_>>(), published);
            if seen.contains(&widths) {
                continue;
            }
            seen.push(widths);
            if let Some(unused) = unused(Part::Decoder, tensors, &encoder, &decoder, &config) {
                fitting.push((unused, format!("{} behind {}", decoder.name, encoder.name)));
            }
        }
    }
    best(fitting)
}

/// How many tensors of the file this network has no use for, if it has all it needs.
fn unused(
    part: Part,
    tensors: &[(String, Tensor)],
    encoder: &EncoderRow,
    decoder: &DecoderRow,
    config: &ModelConfig,
) -> Option<usize> {
    let store = Network::outline(encoder, decoder, config, CLASSES).ok()?;
    let found = compare(&store, part, tensors).ok()?;
    let fits = found.report.mismatched.is_empty() || found.other_classes().is_some();
    (fits && found.report.missing.is_empty() && !found.report.loaded.is_empty()).then_some(found.report.unused.len())
}

/// The names of those that leave least unused.
fn best(fitting: Vec<(usize, String)>) -> Option<String> {
    let least = fitting.iter().map(|(unused, _)| *unused).min()?;
    let names: Vec<String> = fitting.into_iter().filter(|(unused, _)| *unused == least).map(|(_, name)| name).collect();
    let more = if names.len() > MOST { " …" } else { "" };
    Some(names[..names.len().min(MOST)].join(" or ") + more)
}
