//! Laying a file and overrides over the defaults, key by key, so that a wrong one can be named.

use super::{Config, ConfigError, keys, literal, nearest::nearest, nesting};
use serde_yaml::{Mapping, Value};
use std::path::Path;

/// The configuration as a tree of YAML values whose shape is that of the defaults.
pub struct Tree(Mapping);

impl Tree {
    pub fn defaults() -> Tree {
        match serde_yaml::to_value(Config::default()) {
            Ok(Value::Mapping(tree)) => Tree(tree),
            _ => unreachable!("a struct becomes a mapping"),
        }
    }

    /// Lays the file's text over the tree.
    pub fn merge_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let malformed = |cause: String| ConfigError::Malformed(path.into(), cause);
        nesting::check(text).map_err(malformed)?;
        let file: Value = serde_yaml::from_str(text).map_err(|cause| malformed(explained(&cause, text)))?;
        let Value::Mapping(file) = file else {
            return Err(malformed("it must be a mapping with sections such as DATASET, MODEL and TRAIN".into()));
        };
        let place = format!(" in {}", path.display());
        for (name, value) in file {
            let name = key_text(&name);
            match (value, self.0.get(&name)) {
                (Value::Mapping(section), Some(Value::Mapping(_))) => {
                    for (key, value) in section {
                        self.set(&format!("{name}.{}", key_text(&key)), value, &place)?;
                    }
                }
                // An empty section (`VAL:`) changes nothing.
                (Value::Null, Some(Value::Mapping(_))) => {}
                (value, _) => self.set(&name, value, &place)?,
            }
        }
        Ok(())
    }

    /// Lays `KEY VALUE` pairs and `KEY=VALUE` words over the tree.
    pub fn merge_overrides(&mut self, words: &[String]) -> Result<(), ConfigError> {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (key, value) = match word.split_once('=') {
                Some(pair) => pair,
                None => {
                    let value = words.next().ok_or_else(|| ConfigError::BadOverride(word.clone()))?;
                    (word.as_str(), value.as_str())
                }
            };
            self.set(key, Value::String(value.to_owned()), "")?;
        }
        Ok(())
    }

    /// Replaces one value; `key` is dotted, and `place` ends the messages.
    fn set(&mut self, key: &str, value: Value, place: &str) -> Result<(), ConfigError> {
        let slot = match key.split_once('.') {
            Some((section, name)) => {
                self.0.get_mut(section).and_then(Value::as_mapping_mut).and_then(|s| s.get_mut(name))
            }
            None => self.0.get_mut(key).filter(|slot| !slot.is_mapping()),
        };
        let Some(slot) = slot else {
            let (key, place) = (key.to_owned(), place.to_owned());
            let nearest = nearest(&key, &self.keys());
            return Err(ConfigError::UnknownKey { key, place, nearest });
        };
        let value = in_the_keys_case(key, shaped_like(key, slot, value));
        if value.is_null() && !slot.is_null() {
            let cause = "it has no value".to_owned();
            return Err(ConfigError::BadValue { key: key.to_owned(), place: place.to_owned(), cause });
        }
        let shown = keys::expected(key).map(|expected| format!("{} is not {expected}", text(&value)));
        *slot = value;
        // Each value is tried at once, so that the message can name where it came from.
        Tree(self.0.clone()).into_config().map(|_| ()).map_err(|error| match error {
            ConfigError::BadValue { cause, .. } => {
                let cause = shown.unwrap_or(cause);
                ConfigError::BadValue { key: key.to_owned(), place: place.to_owned(), cause }
            }
            other => other,
        })
    }

    /// Every dotted key.
    pub fn keys(&self) -> Vec<String> {
        let section_keys = |name: &Value, value: &Value| match value {
            Value::Mapping(section) => {
                section.keys().map(|key| format!("{}.{}", key_text(name), key_text(key))).collect()
            }
            _ => vec![key_text(name)],
        };
        self.0.iter().flat_map(|(name, value)| section_keys(name, value)).collect()
    }

    pub fn into_config(self) -> Result<Config, ConfigError> {
        serde_path_to_error::deserialize(Value::Mapping(self.0)).map_err(|error| ConfigError::BadValue {
            key: error.path().to_string(),
            place: String::new(),
            cause: error.into_inner().to_string(),
        })
    }
}

/// What the parser says, and what it means where a line is indented by a tab.
fn explained(cause: &serde_yaml::Error, text: &str) -> String {
    let tab = |line: &str| line.trim_start_matches(' ').starts_with('\t') && !line.trim().is_empty();
    match text.lines().position(tab) {
        Some(line) => format!("line {} begins with a tab: YAML is indented by spaces", line + 1),
        None => cause.to_string(),
    }
}

/// Choices are understood in any case: `adamw` is AdamW.
fn in_the_keys_case(key: &str, value: Value) -> Value {
    match value {
        Value::String(word) => {
            let choice = keys::choices(key).into_iter().find(|choice| choice.eq_ignore_ascii_case(&word));
            Value::String(choice.unwrap_or(word))
        }
        other => other,
    }
}

/// A value as it stands in a message.
fn text(value: &Value) -> String {
    const MOST: usize = 60;
    let text = match value {
        Value::Sequence(items) => format!("({})", items.iter().map(text).collect::<Vec<_>>().join(", ")),
        _ => serde_yaml::to_string(value).unwrap_or_default().trim_end().replace('\n', " "),
    };
    let short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() { short + "…" } else { text }
}

/// A string where the default is something else is a literal; one number, or one word, where the default is a list of
/// such is a list of one.
fn shaped_like(key: &str, slot: &Value, value: Value) -> Value {
    let value = match (slot, value) {
        (Value::Mapping(_), Value::String(text)) => match nesting::check(&text).map(|()| serde_yaml::from_str(&text)) {
            Ok(Ok(value)) => return value,
            _ => return Value::String(text),
        },
        (Value::String(_), Value::Number(number)) => return Value::String(number.to_string()),
        (Value::String(_), value) => return value,
        (_, Value::String(text)) => literal::parse(&text).unwrap_or(Value::String(text)),
        (_, value) => value,
    };
    match (slot, value) {
        (Value::Sequence(_), value @ Value::Number(_)) => Value::Sequence(vec![value]),
        (Value::Sequence(_), value @ Value::String(_)) if keys::takes_words(key) => Value::Sequence(vec![value]),
        (_, value) => value,
    }
}

fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).unwrap_or_default().trim().to_owned(),
    }
}
