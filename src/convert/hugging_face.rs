//! A folder that `from_pretrained` of transformers opens: weights, what network they are of, and what to do to images.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::{Container, Weights, save_file, save_tensors};
use crate::bad_input;
use crate::checkpoint;
use crate::data::batch::{MEAN, STD};
use crate::fault::{classified, unwritable};
use crate::model::weights::{Package, export};

/// What is read of a config.json, at most; one with 1,000 classes takes 0.1 MB.
const MAX_CONFIG: u64 = 16 << 20;

/// Names and colours of classes, as far as an input says them.
#[derive(Default)]
struct Classes {
    names: Vec<String>,
    palette: Vec<[u8; 3]>,
}

/// Writes `config.json`, `model.safetensors` and `preprocessor_config.json` into the new folder `output`. What the inputs
/// say of the classes goes with them.
///
/// # Errors
/// [`crate::fault::BadInput`] for networks that transformers does not have, and where `output` holds something.
pub fn write_folder(inputs: &[PathBuf], weights: &Weights, output: &Path) -> anyhow::Result<()> {
    if std::fs::read_dir(output).is_ok_and(|mut entries| entries.next().is_some()) || output.is_file() {
        bad_input!("{}: is there already; name a folder that is new or empty", output.display());
    }
    let exported = export(weights, Package::Transformers).map_err(classified)?;
    let classes = inputs.iter().map(|input| classes(input)).collect::<anyhow::Result<Vec<_>>>()?;
    let classes = classes.into_iter().find(|classes| !classes.names.is_empty()).unwrap_or_default();
    let mut config = network(weights).with_context(|| format!("no network of {}", exported.source))?;
    let count = shape(weights, "decoder.classifier.weight", 0).context("the classifier is missing")?;
    config.extend(labels(&classes, count));

    std::fs::create_dir_all(output).map_err(|cause| unwritable(output, cause))?;
    save_tensors(&output.join("model.safetensors"), Container::Safetensors, &exported.tensors)?;
    save_json(&output.join("preprocessor_config.json"), &Value::Object(preprocessor(&classes)))?;
    // Last, since a folder without it is not opened.
    save_json(&output.join("config.json"), &Value::Object(config))
}

fn save_json(path: &Path, value: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    save_file(path, |unfinished| Ok(unfinished.file().write_all(text.as_bytes())?))?;
    println!("{}", path.display());
    Ok(())
}

/// What a checkpoint's folder, or one of Hugging Face's, says about the classes.
fn classes(input: &Path) -> anyhow::Result<Classes> {
    if input.join("state.json").is_file() {
        let state = checkpoint::check(input).map_err(classified)?;
        return Ok(Classes { names: state.class_names, palette: state.palette });
    }
    let Ok(file) = std::fs::File::open(input.join("config.json")) else { return Ok(Classes::default()) };
    let config: Value = serde_json::from_reader(BufReader::new(file.take(MAX_CONFIG))).unwrap_or_default();
    let names: BTreeMap<usize, String> = serde_json::from_value(config["id2label"].clone()).unwrap_or_default();
    let palette = serde_json::from_value(config["palette"].clone()).unwrap_or_default();
    let whole = names.keys().copied().eq(0..names.len());
    Ok(Classes { names: if whole { names.into_values().collect() } else { Vec::new() }, palette })
}

/// `id2label`, `label2id` and, beside what transformers knows, `palette`.
fn labels(classes: &Classes, count: i64) -> Map<String, Value> {
    let name = |class: usize| classes.names.get(class).cloned().unwrap_or_else(|| format!("LABEL_{class}"));
    let names: Vec<String> = (0..count as usize).map(name).collect();
    let mut labels = Map::new();
    labels.insert(
        "id2label".into(),
        names.iter().enumerate().map(|(class, name)| (class.to_string(), json!(name))).collect(),
    );
    labels.insert(
        "label2id".into(),
        names.iter().enumerate().map(|(class, name)| (name.clone(), json!(class))).collect(),
    );
    if !classes.palette.is_empty() {
        labels.insert("palette".into(), json!(classes.palette));
    }
    labels
}

/// Size `axis` of the tensor `name`, if it is there.
fn shape(weights: &Weights, name: &str, axis: usize) -> Option<i64> {
    let (_, tensor): &(String, Tensor) = weights.iter().find(|(other, _)| other == name)?;
    tensor.size().get(axis).copied()
}

/// How often a name that holds `{}` is there with 0, 1, … in its place.
fn count(weights: &Weights, name: &str) -> usize {
    (0..).take_while(|index: &usize| shape(weights, &name.replace("{}", &index.to_string()), 0).is_some()).count()
}

/// What config.json says of the network, read off its tensors' shapes.
fn network(weights: &Weights) -> Option<Map<String, Value>> {
    let config = if shape(weights, "encoder.patch_embeddings.0.proj.weight", 0).is_some() {
        segformer(weights)?
    } else {
        upernet(weights)?
    };
    config.as_object().cloned()
}

fn segformer(weights: &Weights) -> Option<Value> {
    let each = |name: &str, axis| -> Option<Vec<i64>> {
        (0..4).map(|stage: usize| shape(weights, &name.replace("{}", &stage.to_string()), axis)).collect()
    };
    let widths = each("encoder.patch_embeddings.{}.proj.weight", 0)?;
    let hidden = each("encoder.block.{}.0.mlp.dense1.weight", 0)?;
    let reduction =
        |stage| shape(weights, &format!("encoder.block.{stage}.0.attention.self.sr.weight"), 2).unwrap_or(1);
    // A head is as wide as the first map, which has one (Xie et al. 2021, table 6).
    Some(json!({
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        "num_channels": 3,
        "num_encoder_blocks": 4,
        "depths": (0..4).map(|stage| count(weights, &format!("encoder.block.{stage}.{{}}.layer_norm_1.weight"))).collect::<Vec<_>>(),
        "hidden_sizes": &widths,
        "num_attention_heads": widths.iter().map(|width| width / widths[0]).collect::<Vec<_>>(),
        "patch_sizes": each("encoder.patch_embeddings.{}.proj.weight", 2)?,
        "strides": [4, 2, 2, 2],
        "sr_ratios": (0..4).map(reduction).collect::<Vec<_>>(),
        "mlp_ratios": hidden.iter().zip(&widths).map(|(hidden, width)| hidden / width).collect::<Vec<_>>(),
        "decoder_hidden_size": shape(weights, "decoder.linear_c.0.proj.weight", 0)?,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.1,
        "drop_path_rate": 0.1,
        "layer_norm_eps": 1e-6,
        "reshape_last_stage": true,
        "semantic_loss_ignore_index": 255,
        "dtype": "float32",
    }))
}

fn upernet(weights: &Weights) -> Option<Value> {
    let depth = |stage| count(weights, &format!("encoder.stages.{stage}.layers.{{}}.pwconv1.weight"));
    let width = |stage| shape(weights, &format!("encoder.stages.{stage}.layers.0.pwconv1.weight"), 1);
    let stages = ["stage1", "stage2", "stage3", "stage4"];
    Some(json!({
        "architectures": ["UperNetForSemanticSegmentation"],
        "model_type": "upernet",
        "backbone_config": {
            "model_type": "convnext",
            "num_channels": 3,
            "patch_size": 4,
            "num_stages": 4,
            "depths": (0..4).map(depth).collect::<Vec<_>>(),
            "hidden_sizes": (0..4).map(width).collect::<Option<Vec<_>>>()?,
            "hidden_act": "gelu",
            "out_features": stages,
        },
        "hidden_size": shape(weights, "decoder.bottleneck.conv.weight", 0)?,
        "pool_scales": [1, 2, 3, 6],
        "use_auxiliary_head": true,
        "auxiliary_loss_weight": 0.4,
        "auxiliary_in_channels": shape(weights, "decoder.auxiliary_head.convs.0.conv.weight", 1)?,
        "auxiliary_channels": shape(weights, "decoder.auxiliary_head.convs.0.conv.weight", 0)?,
        "auxiliary_num_convs": count(weights, "decoder.auxiliary_head.convs.{}.conv.weight"),
        "auxiliary_concat_input": false,
        "loss_ignore_index": 255,
        "dtype": "float32",
    }))
}

/// Images as they are, scaled and normalised as in training; labels are class indices, 255 where there is none.
fn preprocessor(classes: &Classes) -> Map<String, Value> {
    let mut processor = Map::new();
    for (key, value) in [
        ("image_processor_type", json!("SegformerImageProcessor")),
        ("do_resize", json!(false)),
        ("do_reduce_labels", json!(false)),
        ("do_rescale", json!(true)),
        ("rescale_factor", json!(1.0 / 255.0)),
        ("do_normalize", json!(true)),
        ("image_mean", json!(MEAN)),
        ("image_std", json!(STD)),
    ] {
        processor.insert(key.into(), value);
    }
    if !classes.names.is_empty() {
        processor.insert("labels".into(), json!(classes.names));
        processor.insert("palette".into(), json!(classes.palette));
    }
    processor
}
