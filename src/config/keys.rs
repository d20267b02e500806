//! The list of keys for people: name, default and meaning, made from the structs and their documentation.

use super::Config;
use serde_json::Value;

/// One line a key: `TRAIN.num_epoch = 20    Epochs to train for.`
pub fn describe() -> String {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap_or_default();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut lines = Vec::new();
    walk(&schema, &schema, &defaults, "", &mut lines);
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0).min(48);
    lines.iter().map(|(name, text)| format!("{name:width$}  {text}\n")).collect()
}

/// Follows `$ref`s from `node` and adds every leaf below it.
fn walk(root: &Value, node: &Value, default: &Value, key: &str, lines: &mut Vec<(String, String)>) {
    let target = node["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))).unwrap_or(node);
    match target["properties"].as_object() {
        Some(properties) => {
            for (name, child) in properties {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                walk(root, child, &default[name], &key, lines);
            }
        }
        None => {
            let meaning = node["description"].as_str().or(target["description"].as_str()).unwrap_or_default();
            lines.push((format!("{key} = {default}"), meaning.replace('\n', " ")));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_key_has_a_meaning() {
        let text = super::describe();
        assert!(text.lines().count() > 60, "{text}");
        for line in text.lines() {
            assert!(line.split("  ").last().is_some_and(|meaning| meaning.len() > 8), "{line}");
        }
    }
}
