//! `segdist init`: looks at a whole data set, says what it is, and writes a configuration, a label map and two lists that
//! train as they are.
//!
//! 1. [`gather`] finds the pairs of images and labels.
//! 2. [`survey`] reads every one of them: sizes, label values and their shares, what is doubtful.
//! 3. [`classes`] proposes what the values mean, [`split`] which images validate, [`recipe`] how to train.
//! 4. [`write`] puts all of it into files, each choice with its reason.
//!
//! It asks nothing, changes none of the user's files, and makes the same files of the same data.

mod classes;
mod gather;
mod palette_file;
mod recipe;
mod split;
mod survey;
mod write;

use crate::bad_input;
use crate::data::instances::Background;
use crate::data::layout::Layout;
use serde_json::json;
use std::path::PathBuf;

/// Where the samples are.
pub enum Input {
    /// Two folders.
    Folders {
        /// Images.
        images: PathBuf,
        /// Labels.
        labels: PathBuf,
        /// What stands behind an image's stem in its label's name; None to find that out.
        suffix: Option<String>,
    },
    /// Images, and a COCO file of the objects on them.
    Coco {
        /// JSON.
        file: PathBuf,
        /// The folder that its file names start from.
        images: PathBuf,
        /// What pixels are that no object covers.
        background: Background,
    },
    /// An odgt list and the folder that its paths start from.
    List {
        /// `.odgt` or `.odgt.gz`.
        odgt: PathBuf,
        /// Usually DATASET.root_dataset.
        root: PathBuf,
    },
    /// A data set known by name.
    Layout {
        /// From [`Layout::find`].
        layout: &'static Layout,
        /// Its folder.
        root: PathBuf,
    },
}

/// What `segdist init` is told.
pub struct InitOptions {
    /// Where the samples are.
    pub input: Input,
    /// The configuration to write; the other files get its name with an addition, and stand beside it.
    pub out: PathBuf,
    /// Replace files that are there.
    pub force: bool,
    /// Print one JSON object instead of text.
    pub json: bool,
}

/// A value that was chosen, and why.
pub struct Choice {
    /// Dotted key of the configuration.
    pub key: &'static str,
    /// As YAML.
    pub value: String,
    /// One line.
    pub why: String,
}

/// Looks, proposes and writes.
pub fn run(options: &InitOptions) -> anyhow::Result<()> {
    let files = write::Files::beside(&options.out)?;
    if let Some(there) = files.existing().filter(|_| !options.force) {
        bad_input!("{}: is there already; name another file, or give --force to replace it", there.display());
    }
    let gathered = gather::gather(&options.input, &files)?;
    let mut survey = survey::look(gathered)?;
    let classes = classes::propose(&mut survey)?;
    let split = split::split(&survey);
    let mut doubts = survey.doubts();
    doubts.extend(classes.doubts(&survey, &split));
    let choices = recipe::choose(&survey, &classes, &split);
    files.write(&survey, &classes, &split, &choices, &doubts)?;
    if options.json {
        println!("{}", as_json(&files, &survey, &classes, &split, &choices, &doubts));
    } else {
        print!("{}", write::summary(&files, &survey, &classes, &split, &choices, &doubts));
    }
    Ok(())
}

fn as_json(
    files: &write::Files,
    survey: &survey::Survey,
    classes: &classes::Classes,
    split: &split::Split,
    choices: &[Choice],
    doubts: &[String],
) -> serde_json::Value {
    let total = survey.pixels().max(1) as f64;
    let value = |entry: &classes::Meaning| {
        let (raw, share) = (entry.raw.to_string(), entry.pixels as f64 / total);
        json!({ "value": raw, "class": entry.class, "pixels": entry.pixels, "share": share })
    };
    let choices: serde_json::Map<String, serde_json::Value> =
        choices.iter().map(|choice| (choice.key.into(), json!({ "value": choice.value, "why": choice.why }))).collect();
    json!({
        "images": survey.sound.len(),
        "sizes": survey.sizes(),
        "labels": survey.kind(),
        "values": classes.meanings.iter().map(value).collect::<Vec<_>>(),
        "classes": classes.names,
        "images_without_label": survey.images_alone,
        "labels_without_image": survey.labels_alone,
        "left_out": survey.problems,
        "training": split.training.len(),
        "validation": split.validation.len(),
        "doubts": doubts,
        "choices": choices,
        "files": files.paths(),
    })
}
