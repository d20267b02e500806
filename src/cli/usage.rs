//! Wrong usage in one line: clap's words, less its layout.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::path::Path;

/// What is wrong with the command line, and what to do.
pub fn line(error: &Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(list)) => Some(list.join(", ")),
        _ => None,
    };
    let invalid = text(ContextKind::InvalidArg).unwrap_or_default();
    let (wrong, near) = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            if Path::new(&word).is_file() {
                return format!("{word}: is no verb; name a configuration by --cfg {word}");
            }
            (format!("there is no verb {word}"), text(ContextKind::SuggestedSubcommand))
        }
        ErrorKind::MissingRequiredArgument => (format!("{invalid} must be given as well"), None),
        ErrorKind::UnknownArgument => (format!("there is no {invalid} here"), text(ContextKind::SuggestedArg)),
        _ => (first_paragraph(error), text(ContextKind::SuggestedValue)),
    };
    let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
    format!("{wrong}{near}{}", help(error))
}

/// What clap says before its hints, in one line.
fn first_paragraph(error: &Error) -> String {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace("invalid digit found in string", "it is not a whole number, 0 or more")
}

/// Where to read on: the help of the verb that was meant.
fn help(error: &Error) -> String {
    let text = error.render().to_string();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    // After the program's name.
    let verb = usage.and_then(|usage| usage.split(' ').nth(1)).filter(|word| word.starts_with(char::is_lowercase));
    verb.map_or("; segdist --help lists all".into(), |verb| format!("; segdist {verb} --help lists all"))
}
