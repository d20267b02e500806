//! The source keeps its shape: import order, sizes, headers, and where `unsafe` may stand.

mod functions;
mod imports;

use functions::{Function, functions};
use imports::{Import, imports};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules from top to bottom. One imports only from lines above its own, or from its own.
const ORDER: &[&[&str]] = &[
    &["streams", "fault", "stop", "durable"],
    &["guide", "retry", "stages"],
    &["comm"],
    &["torch"],
    &["shard"],
    &["metrics", "loss", "schedule"],
    &["model"],
    &["optim"],
    &["data"],
    &["sync"],
    &["run_dir"],
    &["checkpoint"],
    &["report"],
    &["eval"],
    &["train"],
    &["predict", "init", "pack", "verify", "plan", "convert", "demo", "demo_data", "doctor", "bench", "watch"],
    &["config"],
    &["cli"],
    &["main", "lib"],
];

/// Files that may hold `unsafe`, each with a reason on every use.
const UNSAFE: &[&str] = &[
    "src/comm/device.rs",
    "src/comm/mpi/",
    "src/comm/ulfm.rs",
    "src/shard/reader.rs",
    "src/shard/sigbus.rs",
    "src/torch/",
];

const MAX_FILE: usize = 400;
const MAX_FUNCTION: usize = 70;
const MAX_PARAMETERS: usize = 6;

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the repository can be read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("the repository can be read")
}

fn parsed(path: &Path) -> syn::File {
    syn::parse_file(&text(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The module that a file of src/ belongs to: `src/comm/mpi/mod.rs` and `src/comm.rs` to `comm`.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix("src").expect("only files of src/ are asked for");
    let first = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn level(module: &str) -> Option<usize> {
    ORDER.iter().position(|line| line.contains(&module))
}

#[test]
fn modules_import_only_from_above() {
    let mut problems = Vec::new();
    for path in rust_files("src") {
        let own = module(&path);
        let Some(own_level) = level(&own) else {
            problems.push(format!("{}: module {own} has no line in tests/tidy", path.display()));
            continue;
        };
        if own == "lib" || own == "main" {
            continue;
        }
        for Import { module, line } in imports(&path, &parsed(&path)) {
            // What is no module is an item of lib.rs, a macro for example.
            let below = level(&module).is_some_and(|level| level >= own_level);
            if module != own && below {
                problems.push(format!("{}:{line}: {own} imports {module}", path.display()));
            }
        }
    }
    report(problems);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut problems = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        let text = text(&path);
        if !text.starts_with("//!") {
            problems.push(format!("{}: no `//!` header", path.display()));
        }
        if text.lines().count() > MAX_FILE {
            problems.push(format!("{}: {} lines, at most {MAX_FILE}", path.display(), text.lines().count()));
        }
    }
    report(problems);
}

#[test]
fn functions_fit_on_a_page_and_take_few_parameters() {
    let mut problems = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        for Function { name, line, lines, parameters } in functions(&parsed(&path)) {
            let place = format!("{}:{line}: {name}", path.display());
            if lines > MAX_FUNCTION {
                problems.push(format!("{place} has {lines} lines, at most {MAX_FUNCTION}"));
            }
            if parameters > MAX_PARAMETERS {
                problems.push(format!("{place} has {parameters} parameters, at most {MAX_PARAMETERS}"));
            }
        }
    }
    report(problems);
}

#[test]
fn unsafe_stands_where_it_may_and_gives_its_reason() {
    let mut problems = Vec::new();
    for path in rust_files("src") {
        let allowed = UNSAFE.iter().any(|prefix| path.to_string_lossy().starts_with(prefix));
        let text = text(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let code = code.replace("unsafe extern \"C\" fn", "");
            let is_use = code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
            if !is_use || code.trim_start().starts_with("unsafe extern") || code.trim_start().starts_with('#') {
                continue;
            }
            let reason = lines[number.saturating_sub(8)..=number]
                .iter()
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            if !allowed || !reason {
                problems.push(format!("{}:{}: unsafe without a place or a reason", path.display(), number + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn nothing_is_left_unfinished() {
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let mut problems = Vec::new();
    for path in rust_files("src").into_iter().chain(rust_files("tests")) {
        for (number, line) in text(&path).lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) || line.trim_start().starts_with("#[ignore") {
                problems.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    report(problems);
}

#[test]
fn every_configuration_loads_and_holds_together() {
    for entry in fs::read_dir("configs").expect("configs/ is there").flatten() {
        let path = entry.path();
        if path.to_string_lossy().ends_with("-labels.yaml") {
            continue;
        }
        let config = segdist::config::Config::load(Some(&path), &[]).unwrap_or_else(|error| panic!("{error}"));
        config.validate().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let back = segdist::config::Config::parse(&config.dump()).expect("a dump is a configuration");
        assert_eq!(back.dump(), config.dump());
    }
}
