//! What label values mean: a proposal, with names and colours.

use super::gather::Known;
use super::palette_file::{self, Line};
use super::split::Split;
use super::survey::Survey;
use crate::bad_input;
use crate::data::label_file::Raw;
use std::collections::{BTreeMap, HashMap};

/// Largest number of classes that one-byte labels hold.
const MAX_CLASSES: usize = 255;

/// Colours closer than this to one that was drawn are its blurred edge: what JPEG leaves stays within about 40.
const BLUR: f64 = 48.0;

/// One raw value and its class.
pub struct Meaning {
    pub raw: Raw,
    /// None: ignored.
    pub class: Option<u8>,
    pub pixels: u64,
}

/// The proposal.
pub struct Classes {
    /// In the order of the classes, ignored values last.
    pub meanings: Vec<Meaning>,
    pub names: Vec<String>,
    /// Empty where none are known.
    pub colors: Vec<[u8; 3]>,
    /// Values that are not named count as the nearest, up to this distance.
    pub nearest: Option<u32>,
    /// Why it is proposed so, line by line.
    pub why: Vec<String>,
}

/// What there is to know before classes are numbered.
struct Entry {
    raw: Raw,
    pixels: u64,
    name: Option<String>,
    ignored: bool,
}

/// Proposes classes for all values that occur.
pub fn propose(survey: &mut Survey) -> anyhow::Result<Classes> {
    let mut why = Vec::new();
    let (mut values, nearest) = clean(survey, &mut why);
    if values.iter().all(|(raw, _)| matches!(raw, Raw::Value(_))) {
        values.sort();
    }
    if values.len() > MAX_CLASSES + 1 {
        bad_input!(
            "labels hold {} different values, more than {MAX_CLASSES} classes; are these numbers of objects? \
             name the classes in a label map, and pack with --label-map",
            values.len()
        );
    }
    let entries = match &survey.known {
        Known::No => guessed(survey, &values, &mut why),
        Known::Reference => by_reference(&values, &[], &mut why),
        Known::Drawn(names) => by_reference(&values, names, &mut why),
        Known::Layout(layout) => {
            let (names, colors) = layout.classes();
            why.push(format!("values, names and colours are those of the layout {}", layout.name));
            return Ok(of_layout(layout, names, colors, &values, why));
        }
    };
    Ok(numbered(survey, entries, nearest, why))
}

/// Values as they were drawn: of blurred labels, those that the others are traces of.
fn clean(survey: &Survey, why: &mut Vec<String>) -> (Vec<(Raw, u64)>, Option<u32>) {
    let values = survey.values();
    let total = survey.pixels().max(1);
    let colors = values.iter().any(|(raw, _)| matches!(raw, Raw::Color(_)));
    let extremes = |raw: &Raw| matches!(raw, Raw::Value(0 | 255));
    let binary: u64 = values.iter().filter(|(raw, _)| extremes(raw)).map(|(_, count)| count).sum();
    let smoothed = !colors && values.len() > 16 && binary * 10 > total * 9;
    if survey.lossy == 0 && !smoothed && !(colors && values.len() > MAX_CLASSES + 1) {
        return (values, None);
    }
    let mut by_count: Vec<(Raw, u64)> = values.clone();
    by_count.sort_by_key(|&(raw, count)| (std::cmp::Reverse(count), raw));
    let mut drawn: Vec<Raw> = Vec::new();
    for &(raw, count) in &by_count {
        if count * 500 >= total && drawn.iter().all(|other| distance(raw, *other) > BLUR) {
            drawn.push(raw);
        }
    }
    let mut counts: HashMap<Raw, u64> = HashMap::new();
    let mut farthest = 0.0f64;
    for &(raw, count) in &values {
        let near = drawn.iter().map(|&other| (distance(raw, other), other)).min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((far, other)) = near else { continue };
        farthest = farthest.max(far);
        *counts.entry(other).or_insert(0) += count;
    }
    why.push(format!(
        "{} values occur, but only {} of them in quantity: the rest are traces of JPEG or smoothing, and count as the \
         nearest one; labels stored without loss would be better",
        values.len(),
        drawn.len()
    ));
    let cleaned = values.iter().filter_map(|(raw, _)| Some((*raw, *counts.get(raw)?))).collect();
    (cleaned, Some(farthest.ceil() as u32 + 1))
}

fn distance(a: Raw, b: Raw) -> f64 {
    match (a, b) {
        (Raw::Value(a), Raw::Value(b)) => f64::from(a.abs_diff(b)),
        (Raw::Color(a), Raw::Color(b)) => {
            a.into_iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(b)).powi(2)).sum::<f64>().sqrt()
        }
        _ => f64::MAX,
    }
}

/// Without any word on what values mean: names from a list beside the labels, else what values usually mean.
fn guessed(survey: &Survey, values: &[(Raw, u64)], why: &mut Vec<String>) -> Vec<Entry> {
    let total = survey.pixels().max(1);
    let named = palette_file::find(&survey.beside);
    if let Some((file, _)) = &named {
        why.push(format!("names are those of {}", file.display()));
    }
    let lines = named.map(|(_, lines)| lines).unwrap_or_default();
    let name = |raw: Raw| name_in(&lines, raw, &survey.palette);
    let highest_but_one = values.iter().rev().nth(1).map(|(raw, _)| *raw);
    let two = values.len() == 2;
    let entry = |&(raw, pixels): &(Raw, u64)| {
        let name = name(raw);
        let convention = match raw {
            // 255 and 65535 stand for "no class" behind small numbers; among values that are far apart, such as 0, 85 and
            // 255, they are one more class.
            Raw::Value(255) => {
                !two && highest_but_one.is_some_and(|raw| raw <= Raw::Value(2 * values.len() as u16 + 8))
            }
            Raw::Value(u16::MAX) => !two,
            // The border of PASCAL VOC's objects.
            Raw::Color(color) => color == [224, 224, 192] && lines.is_empty(),
            _ => false,
        };
        let ignored = name.as_deref().map_or(convention, palette_file::means_ignored);
        Entry { raw, pixels, name, ignored }
    };
    let mut entries: Vec<Entry> = values.iter().map(entry).collect();
    // Classes of a list that no label shows keep their place.
    for (index, line) in lines.iter().enumerate() {
        let raw = line.color.map_or(Raw::Value(index as u16), Raw::Color);
        let known = entries.iter().any(|entry| entry.name.as_ref() == Some(&line.name));
        let has_value = line.color.is_none() || survey.palette.is_empty();
        if has_value && !known {
            let ignored = palette_file::means_ignored(&line.name);
            entries.push(Entry { raw, pixels: 0, name: Some(line.name.clone()), ignored });
        }
    }
    if !lines.is_empty() {
        let place = |entry: &Entry| lines.iter().position(|line| entry.name.as_ref() == Some(&line.name));
        entries.sort_by_key(|entry| place(entry).unwrap_or(usize::MAX));
    }
    for entry in &mut entries {
        if entry.ignored {
            why.push(format!("{} is ignored: that is what this value or name usually means", entry.raw));
        }
        let zero = matches!(entry.raw, Raw::Value(0) | Raw::Color([0, 0, 0]));
        if entry.name.is_none() && zero && (two || entry.pixels * 5 > total * 2) {
            entry.name = Some("background".into());
        }
        if entry.name.is_none() && two && entry.raw == Raw::Value(255) {
            entry.name = Some("foreground".into());
        }
    }
    entries
}

fn name_in(lines: &[Line], raw: Raw, palette: &[[u8; 3]]) -> Option<String> {
    let colored = lines.iter().any(|line| line.color.is_some());
    let color = match raw {
        Raw::Color(color) => Some(color),
        Raw::Value(index) => palette.get(usize::from(index)).copied(),
    };
    let line = match (raw, colored) {
        (_, true) => lines.iter().find(|line| line.color.is_some() && line.color == color),
        (Raw::Value(index), false) => lines.get(usize::from(index)),
        (Raw::Color(_), false) => None,
    };
    line.map(|line| line.name.clone())
}

/// 0 is ignored, k is class k - 1.
fn by_reference(values: &[(Raw, u64)], names: &[String], why: &mut Vec<String>) -> Vec<Entry> {
    why.push("0 is ignored and k is class k - 1: the rule of odgt lists".into());
    let counts: BTreeMap<u16, u64> = values
        .iter()
        .filter_map(|(raw, count)| match raw {
            Raw::Value(value) => Some((*value, *count)),
            Raw::Color(_) => None,
        })
        .collect();
    let last = counts.keys().last().copied().unwrap_or(0).max(names.len() as u16);
    let entry = |value: u16| Entry {
        raw: Raw::Value(value),
        pixels: counts.get(&value).copied().unwrap_or(0),
        name: usize::from(value).checked_sub(1).and_then(|class| names.get(class).cloned()),
        ignored: value == 0,
    };
    (0..=last).map(entry).collect()
}

fn of_layout(
    layout: &crate::data::layout::Layout,
    names: Vec<String>,
    colors: Vec<[u8; 3]>,
    values: &[(Raw, u64)],
    why: Vec<String>,
) -> Classes {
    use crate::data::label_map::LabelMap;
    let map = layout.label_map().unwrap_or_else(|| LabelMap::reference(names.len()));
    let counts: HashMap<Raw, u64> = values.iter().copied().collect();
    let meaning = |(value, class): (u8, Option<u8>)| {
        let raw = Raw::Value(value.into());
        Meaning { raw, class, pixels: counts.get(&raw).copied().unwrap_or(0) }
    };
    let meanings = map.entries().into_iter().map(meaning).collect();
    Classes { meanings, names, colors, nearest: None, why }
}

/// Gives classes their numbers in the order of the entries.
fn numbered(survey: &Survey, entries: Vec<Entry>, nearest: Option<u32>, why: Vec<String>) -> Classes {
    let (mut meanings, mut names, mut colors) = (Vec::new(), Vec::new(), Vec::new());
    let (ignored, classes): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.ignored);
    for entry in classes.into_iter().take(MAX_CLASSES) {
        colors.extend(match entry.raw {
            Raw::Color(color) => Some(color),
            Raw::Value(value) => survey.palette.get(usize::from(value)).copied(),
        });
        let class = names.len() as u8;
        names.push(entry.name.unwrap_or_else(|| format!("class {class}")));
        meanings.push(Meaning { raw: entry.raw, class: Some(class), pixels: entry.pixels });
    }
    let none = |entry: Entry| Meaning { raw: entry.raw, class: None, pixels: entry.pixels };
    meanings.extend(ignored.into_iter().map(none));
    if colors.len() != names.len() {
        colors.clear();
    }
    Classes { meanings, names, colors, nearest, why }
}

impl Classes {
    /// Pixels of a class.
    pub fn pixels(&self, class: usize) -> u64 {
        let of_class = |meaning: &&Meaning| meaning.class.is_some_and(|own| usize::from(own) == class);
        self.meanings.iter().filter(of_class).map(|meaning| meaning.pixels).sum()
    }

    /// Pixels of all classes.
    pub fn labelled(&self) -> u64 {
        (0..self.names.len()).map(|class| self.pixels(class)).sum()
    }

    /// What is doubtful about classes and their shares.
    pub fn doubts(&self, survey: &Survey, split: &Split) -> Vec<String> {
        let mut doubts = Vec::new();
        let labelled = self.labelled().max(1);
        let ignored = survey.pixels() - self.labelled().min(survey.pixels());
        if ignored * 2 > survey.pixels() {
            doubts.push(format!("{:.0} % of all pixels are ignored", 100.0 * ignored as f64 / survey.pixels() as f64));
        }
        if self.names.len() < 2 {
            doubts.push("there is one class only: nothing can be told apart".into());
        }
        for (class, name) in self.names.iter().enumerate() {
            let share = self.pixels(class) as f64 / labelled as f64;
            if share > 0.95 && self.names.len() > 1 {
                doubts.push(format!("{:.1} % of the labelled pixels are {name} (class {class})", 100.0 * share));
            } else if share == 0.0 {
                doubts.push(format!("{name} (class {class}) does not occur"));
            } else if share < 0.001 {
                doubts.push(format!("{name} (class {class}) covers {:.3} % of the labelled pixels", 100.0 * share));
            }
        }
        let seen: std::collections::HashSet<Raw> =
            split.validation.iter().flat_map(|&at| survey.sound[at].values.iter().map(|(raw, _)| *raw)).collect();
        for meaning in self.meanings.iter().filter(|meaning| meaning.pixels > 0) {
            if let Some(class) = meaning.class.filter(|_| !seen.contains(&meaning.raw) && self.nearest.is_none()) {
                doubts.push(format!("no validation image shows {} (class {class})", self.names[usize::from(class)]));
            }
        }
        doubts
    }
}
