//! What is known of the keys besides their values: meaning, type, choices and whether they are free on resume, made from
//! the structs and their documentation.

use super::Config;
use crate::checkpoint::Rules;
use serde_json::Value;

/// One key, or a section.
struct Key {
    /// `SECTION.key`.
    name: String,
    /// What its declaration says, and what the type of its value says.
    schema: [Value; 2],
    /// None for a section.
    default: Option<Value>,
}

impl Key {
    fn says(&self, what: &str) -> &Value {
        self.schema.iter().map(|schema| &schema[what]).find(|value| !value.is_null()).unwrap_or(&Value::Null)
    }
}

/// Every section and key, in the order of the structs.
fn keys() -> Vec<Key> {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap_or_default();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut keys = Vec::new();
    walk(&schema, &schema, &defaults, "", &mut keys);
    keys
}

/// Follows `$ref`s from `node` and adds everything below it.
fn walk(root: &Value, node: &Value, default: &Value, name: &str, keys: &mut Vec<Key>) {
    let target = node["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))).unwrap_or(node);
    let properties = target["properties"].as_object();
    let schema = [node.clone(), target.clone()];
    keys.push(Key { name: name.to_owned(), schema, default: properties.is_none().then(|| default.clone()) });
    for (child, node) in properties.into_iter().flatten() {
        let below = if name.is_empty() { child.clone() } else { format!("{name}.{child}") };
        walk(root, node, &default[child], &below, keys);
    }
}

/// One line a key: `TRAIN.num_epoch = 20    Epochs to train for.`
pub fn describe() -> String {
    let line = |key: Key| {
        let meaning = key.says("description").as_str().unwrap_or_default().replace('\n', " ");
        Some((format!("{} = {}", key.name, key.default?), meaning))
    };
    let lines: Vec<(String, String)> = keys().into_iter().filter_map(line).collect();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0).min(48);
    lines.iter().map(|(name, text)| format!("{name:width$}  {text}\n")).collect()
}

/// What each key's declaration says of a resume.
pub fn resume_rules() -> Rules {
    let mut rules = Rules { defaults: serde_yaml::to_value(Config::default()).unwrap_or_default(), ..Rules::default() };
    for key in keys() {
        match key.says("resume").as_str() {
            Some("free") => _ = rules.free.insert(key.name),
            Some("kept") => _ = rules.kept.insert(key.name),
            Some("extended") => _ = rules.extended.insert(key.name),
            _ => {}
        }
    }
    rules
}

/// The value that a key takes, in words.
pub fn expected(name: &str) -> Option<String> {
    let key = keys().into_iter().find(|key| key.name == name)?;
    let choices = choices_of(&key);
    if !choices.is_empty() {
        return Some(format!("one of {}", choices.join(", ")));
    }
    let kind = key.says("type");
    let kind = kind.as_str().or_else(|| kind[0].as_str())?;
    Some(match kind {
        "integer" if key.says("minimum").as_f64() == Some(0.0) => "a whole number, 0 or more".into(),
        "integer" => "a whole number".into(),
        "number" => "a number".into(),
        "boolean" => "True or False".into(),
        "array" if is_list_of_words(&key) => "a list of words, such as ['encoder']".into(),
        "array" => "a list of numbers, such as (300, 375)".into(),
        "object" => "a mapping, such as {decoder: 10}".into(),
        _ => return None,
    })
}

/// Whether a key takes a list of words.
pub fn takes_words(name: &str) -> bool {
    keys().iter().any(|key| key.name == name && is_list_of_words(key))
}

fn is_list_of_words(key: &Key) -> bool {
    key.says("items")["type"] == "string"
}

/// The words that a key takes; none where it takes any value.
pub fn choices(name: &str) -> Vec<String> {
    keys().iter().find(|key| key.name == name).map(choices_of).unwrap_or_default()
}

fn choices_of(key: &Key) -> Vec<String> {
    let words = |value: &Value| match (value["const"].as_str(), value["enum"].as_array()) {
        (Some(word), _) => vec![word.to_owned()],
        (_, Some(words)) => words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let documented = key.says("oneOf").as_array().into_iter().flatten().flat_map(words);
    key.schema.iter().flat_map(words).chain(documented).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_has_a_meaning() {
        let text = describe();
        assert!(text.lines().count() > 60, "{text}");
        for line in text.lines() {
            assert!(line.split("  ").last().is_some_and(|meaning| meaning.len() > 8), "{line}");
        }
    }

    #[test]
    fn what_may_differ_on_resume_is_said_where_the_key_is_declared() {
        let rules = resume_rules();
        for key in ["DIR", "VAL", "DIST", "CHECKPOINT", "TRAIN.workers", "DATASET.list_train", "MODEL.weights_encoder"]
        {
            assert!(rules.free.contains(key), "{key}");
        }
        for key in ["TRAIN.lr_encoder", "TRAIN.seed", "MODEL.arch_encoder", "DATASET.imgSizes", "TRAIN", "DATASET"] {
            assert!(!rules.free.contains(key), "{key}");
        }
        assert_eq!(rules.kept.into_iter().collect::<Vec<_>>(), ["TRAIN.global_batch"]);
        assert_eq!(rules.extended.len(), 3);
        assert_eq!(rules.defaults["TRAIN"]["seed"].as_u64(), Some(304));
    }

    #[test]
    fn the_table_of_what_may_change_on_resume_names_every_key_and_its_rule() {
        let source = include_str!("../checkpoint/mod.rs");
        let cells = source.lines().filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | "));
        let listed = |rule: &str| -> BTreeSet<String> {
            let rows = cells.clone().filter(|(_, says)| says.starts_with(rule));
            rows.flat_map(|(keys, _)| keys.split(", ").map(str::to_owned)).collect()
        };
        let rules = resume_rules();
        assert_eq!(listed("free"), rules.free);
        assert_eq!(listed("kept"), rules.kept);
        assert_eq!(listed("extended"), rules.extended);
    }

    #[test]
    fn choices_are_those_of_the_type_documented_or_not() {
        assert_eq!(choices("TRAIN.optim"), ["SGD", "AdamW"]);
        assert_eq!(choices("MODEL.bn_variance"), ["offset", "clamped"]);
        assert_eq!(choices("TRAIN.seed"), [""; 0]);
    }
}
