//! Python literals as yacs accepts them in strings: `(300, 375)`, `True`, `None`, `1e-4`, `'text'`.

use serde_yaml::Value;

/// Reads one literal that fills the whole text; None when it is something else.
pub fn parse(text: &str) -> Option<Value> {
    let mut rest = text.trim();
    let value = value(&mut rest, 0)?;
    rest.trim().is_empty().then_some(value)
}

/// Deeper than any value; the stack ends somewhere, too.
const DEEPEST: usize = 32;

fn value(rest: &mut &str, depth: usize) -> Option<Value> {
    *rest = rest.trim_start();
    match rest.chars().next()? {
        '(' if depth < DEEPEST => sequence(rest, ')', depth),
        '[' if depth < DEEPEST => sequence(rest, ']', depth),
        '(' | '[' => None,
        quote @ ('\'' | '"') => {
            let inner = &rest[1..];
            let end = inner.find(quote)?;
            *rest = &inner[end + 1..];
            Some(Value::String(inner[..end].to_owned()))
        }
        _ => scalar(rest),
    }
}

fn sequence(rest: &mut &str, close: char, depth: usize) -> Option<Value> {
    *rest = &rest[1..];
    let mut items = Vec::new();
    loop {
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(close) {
            *rest = after;
            return Some(Value::Sequence(items));
        }
        items.push(value(rest, depth + 1)?);
        *rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => *rest = after,
            None if rest.starts_with(close) => {}
            None => return None,
        }
    }
}

fn scalar(rest: &mut &str) -> Option<Value> {
    let end = rest.find([',', ')', ']']).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    let word = word.trim();
    match word {
        "True" | "true" => Some(Value::Bool(true)),
        "False" | "false" => Some(Value::Bool(false)),
        "None" | "null" => Some(Value::Null),
        _ => number(&word.replace('_', "")),
    }
}

fn number(word: &str) -> Option<Value> {
    if let Ok(integer) = word.parse::<i64>() {
        return Some(integer.into());
    }
    if let Ok(integer) = word.parse::<u64>() {
        return Some(integer.into());
    }
    // `inf` and `nan` are words to Python's literals, too.
    word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        .then(|| word.parse::<f64>().ok())
        .flatten()
        .map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn yaml(text: &str) -> Option<Value> {
        Some(serde_yaml::from_str(text).expect("test values are YAML"))
    }

    #[test]
    fn tuples_lists_booleans_and_numbers_are_read() {
        assert_eq!(parse("(300, 375, 450)"), yaml("[300, 375, 450]"));
        assert_eq!(parse("(300,)"), yaml("[300]"));
        assert_eq!(parse("[1, (2.5, 'a b')]"), yaml("[1, [2.5, a b]]"));
        assert_eq!(parse(" True "), yaml("true"));
        assert_eq!(parse("1e-4"), yaml("0.0001"));
        assert_eq!(parse("-1"), yaml("-1"));
    }

    #[test]
    fn deep_nesting_is_no_literal() {
        assert!(parse(&format!("{}1{}", "[".repeat(20), "]".repeat(20))).is_some());
        assert_eq!(parse(&"[".repeat(1_000_000)), None);
        assert_eq!(parse(&format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000))), None);
    }

    #[test]
    fn other_text_is_no_literal() {
        for text in ["", "SGD", "(1, 2", "1 2", "(1 2)", "a.yaml", "./data", "1x"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn integers_come_back(values in prop::collection::vec(any::<i64>(), 0..6)) {
            let text = format!("{values:?}").replace('[', "(").replace(']', ")");
            prop_assert_eq!(parse(&text), Some(Value::Sequence(values.into_iter().map(Value::from).collect())));
        }
    }
}
