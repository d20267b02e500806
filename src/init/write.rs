//! The files that init writes, and what it prints.

use super::Choice;
use super::classes::Classes;
use super::split::Split;
use super::survey::Survey;
use crate::bad_input;
use crate::data::decode::hex;
use crate::data::label_file::Raw;
use crate::durable;
use crate::fault;
use anyhow::Context;
use serde_json::json;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf, absolute};

/// Where everything goes: beside the configuration, under its name.
pub struct Files {
    config: PathBuf,
    label_map: PathBuf,
    training: PathBuf,
    validation: PathBuf,
    /// Folder of label files that are drawn from outlines.
    pub masks: PathBuf,
    /// DIR of the configuration.
    run: PathBuf,
}

impl Files {
    /// The names that go with a configuration.
    pub fn beside(config: &Path) -> anyhow::Result<Files> {
        let config = absolute(config).with_context(|| config.display().to_string())?;
        let (Some(folder), Some(stem)) = (config.parent(), config.file_stem().and_then(|stem| stem.to_str())) else {
            bad_input!("{}: is no file name; give one such as data.yaml", config.display());
        };
        let file = |ending: &str| folder.join(format!("{stem}{ending}"));
        let (label_map, training, validation) = (file("-labels.yaml"), file("-train.odgt"), file("-val.odgt"));
        let (masks, run) = (file("-masks"), file("-run"));
        Ok(Files { config, label_map, training, validation, masks, run })
    }

    /// The first file that is there already.
    pub fn existing(&self) -> Option<&Path> {
        [&self.config, &self.label_map, &self.training, &self.validation]
            .into_iter()
            .find(|path| path.exists())
            .map(PathBuf::as_path)
    }

    /// What was written.
    pub fn paths(&self) -> serde_json::Value {
        let text = |path: &Path| path.display().to_string();
        json!({
            "config": text(&self.config),
            "label_map": text(&self.label_map),
            "training": text(&self.training),
            "validation": text(&self.validation),
        })
    }

    /// Writes everything, the configuration last.
    pub fn write(
        &self,
        survey: &Survey,
        classes: &Classes,
        split: &Split,
        choices: &[Choice],
        doubts: &[String],
    ) -> anyhow::Result<()> {
        let root = common_folder(survey)?;
        let list = |samples: &[usize]| list(survey, samples, &root);
        let folder = self.config.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|cause| fault::unwritable(folder, cause))?;
        for (path, text) in [
            (&self.training, list(&split.training)?),
            (&self.validation, list(&split.validation)?),
            (&self.label_map, label_map(survey, classes)),
            (&self.config, self.config_text(&root, split, choices, doubts)),
        ] {
            durable::write(path, text.as_bytes()).map_err(|cause| fault::unwritable(path, cause))?;
        }
        Ok(())
    }

    fn config_text(&self, root: &Path, split: &Split, choices: &[Choice], doubts: &[String]) -> String {
        let mut text = String::from("# Written by segdist init. Change what you like.\n#\n");
        let line = |text: &mut String, line: String| text.extend([line.as_str(), "\n"]);
        line(&mut text, format!("#   segdist --cfg {}", quoted(&self.config)));
        line(&mut text, format!("#   segdist report {} --out report.html", quoted(&self.run)));
        if !doubts.is_empty() {
            text += "#\n# To look at:\n";
            doubts.iter().for_each(|doubt| line(&mut text, format!("# - {}", one_line(doubt))));
        }
        let mut section = "";
        let own = [
            ("DATASET.root_dataset", quoted(root), "where the paths in the lists start".to_string()),
            ("DATASET.list_train", quoted(&self.training), format!("{} images; {}", split.training.len(), split.why)),
            ("DATASET.list_val", quoted(&self.validation), format!("{} images", split.validation.len())),
            ("DATASET.label_map", quoted(&self.label_map), "what label values mean".to_string()),
        ];
        let chosen = choices.iter().map(|choice| (choice.key, choice.value.clone(), choice.why.clone()));
        for (key, value, why) in own.into_iter().chain(chosen) {
            let (of, name) = key.split_once('.').unwrap_or(("", key));
            if of != section {
                line(&mut text, format!("\n{of}:"));
                section = of;
            }
            line(&mut text, format!("  {name}: {value} # {}", one_line(&why)));
        }
        line(&mut text, format!("\nDIR: {} # checkpoints and numbers of the run", quoted(&self.run)));
        text
    }
}

/// The deepest folder above all images and labels.
fn common_folder(survey: &Survey) -> anyhow::Result<PathBuf> {
    let mut common: Option<PathBuf> = None;
    for path in survey.sound.iter().flat_map(|sound| [&sound.sample.image, &sound.sample.label]) {
        let path = absolute(path).with_context(|| path.display().to_string())?;
        let folder = path.parent().unwrap_or(Path::new("/")).to_path_buf();
        let shared = match common {
            None => folder,
            Some(common) => common.ancestors().find(|above| folder.starts_with(above)).unwrap_or(Path::new("/")).into(),
        };
        common = Some(shared);
    }
    Ok(common.unwrap_or_else(|| "/".into()))
}

fn list(survey: &Survey, samples: &[usize], root: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for &at in samples {
        let sound = &survey.sound[at];
        let relative = |path: &Path| -> anyhow::Result<String> {
            let path = absolute(path)?;
            Ok(path.strip_prefix(root).unwrap_or(&path).to_str().context("file names are UTF-8")?.to_string())
        };
        let (image, label) = (relative(&sound.sample.image)?, relative(&sound.sample.label)?);
        let (width, height) = sound.size;
        let line = json!({ "fpath_img": image, "fpath_segm": label, "width": width, "height": height });
        writeln!(text, "{line}")?;
    }
    Ok(text)
}

fn label_map(survey: &Survey, classes: &Classes) -> String {
    let mut text =
        String::from("# What label values mean: VALUE or \"#rrggbb\": CLASS, or ignore. Written by segdist init.\n");
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    classes.why.iter().for_each(|why| line(format!("# {}", one_line(why))));
    let total = survey.pixels().max(1) as f64;
    for meaning in &classes.meanings {
        let raw = match meaning.raw {
            Raw::Value(value) => value.to_string(),
            Raw::Color(color) => format!("\"{}\"", hex(color)),
        };
        let class = meaning.class.map_or("ignore".into(), |class| class.to_string());
        let name = meaning.class.map_or("", |class| &classes.names[usize::from(class)]);
        line(format!("{raw}: {class} # {:.2} % {}", 100.0 * meaning.pixels as f64 / total, one_line(name)));
    }
    if let Some(nearest) = classes.nearest {
        line(format!("nearest: {nearest} # other values count as the nearest one, up to this distance"));
    }
    line(format!(
        "names: [{}]",
        classes.names.iter().map(|name| json!(name).to_string()).collect::<Vec<_>>().join(", ")
    ));
    if !classes.colors.is_empty() {
        let colors: Vec<String> = classes.colors.iter().map(|&color| format!("\"{}\"", hex(color))).collect();
        line(format!("colors: [{}]", colors.join(", ")));
    }
    text
}

/// What was found and chosen, for people.
pub fn summary(
    files: &Files,
    survey: &Survey,
    classes: &Classes,
    split: &Split,
    choices: &[Choice],
    doubts: &[String],
) -> String {
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    let [[least_short, .., most_short], [least_long, .., most_long]] =
        [survey.edges(|(w, h)| w.min(h)), survey.edges(|(w, h)| w.max(h))];
    line(format!(
        "{} images, short edges {least_short} to {most_short}, long edges {least_long} to {most_long} pixels",
        survey.sound.len()
    ));
    line(format!("labels: {}", survey.kind()));
    classes.why.iter().for_each(|why| line(format!("  {why}")));
    let total = survey.pixels().max(1) as f64;
    for meaning in &classes.meanings {
        let class = meaning
            .class
            .map_or("ignored".into(), |class| format!("class {class}, {}", classes.names[usize::from(class)]));
        line(format!(
            "  {:>7}  {:6.2} %  {}",
            meaning.raw.to_string(),
            100.0 * meaning.pixels as f64 / total,
            one_line(&class)
        ));
    }
    line(format!("{} train, {} validate: {}", split.training.len(), split.validation.len(), split.why));
    doubts.iter().for_each(|doubt| line(format!("to look at: {}", one_line(doubt))));
    choices.iter().for_each(|choice| line(format!("{}: {} ({})", choice.key, choice.value, one_line(&choice.why))));
    line(format!("written: {}, {}, and lists of both parts", files.config.display(), files.label_map.display()));
    line(format!("next: segdist --cfg {}", files.config.display()));
    text
}

/// A path as a string of YAML.
fn quoted(path: &Path) -> String {
    json!(path.display().to_string()).to_string()
}

/// Comments and lists have one line each, whatever a file name or class name holds.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
