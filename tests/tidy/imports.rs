//! Which modules of the crate a file names: in imports, grouped or not, in paths within code, and in macros.

use std::path::Path;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{File, ItemMod, ItemUse, Macro, UseTree};

/// A top-level module of the crate that a file names, and the line.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    pub module: String,
    pub line: usize,
}

/// Everything that the file at `path`, under src/, names by `crate`, `super` or `self`.
pub fn imports(path: &Path, file: &File) -> Vec<Import> {
    let mut search = Search { place: place(path), found: Vec::new() };
    search.visit_file(file);
    search.found
}

/// The modules that a file's items lie in: src/comm/watchdog/beat.rs is comm, watchdog, beat.
fn place(path: &Path) -> Vec<String> {
    let inside = path.strip_prefix("src").expect("only files of src/ are asked for").with_extension("");
    let mut names: Vec<String> = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| ["mod", "lib", "main"].contains(&name.as_str())) {
        names.pop();
    }
    names
}

struct Search {
    /// The modules around what is visited.
    place: Vec<String>,
    found: Vec<Import>,
}

impl Search {
    /// A path as it is written, the whole of it.
    fn path(&mut self, names: &[String], line: usize) {
        let mut place = match names.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("super" | "self") => self.place.clone(),
            _ => return,
        };
        for name in names {
            match name.as_str() {
                "crate" | "self" => {}
                "super" => drop(place.pop()),
                name => place.push(name.to_owned()),
            }
        }
        self.found.extend(place.into_iter().next().map(|module| Import { module, line }));
    }

    /// The leaves of an import, each with the names before it.
    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let line = tree.span().start().line;
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
            UseTree::Name(name) => self.path(&with(&name.ident), line),
            UseTree::Rename(rename) => self.path(&with(&rename.ident), line),
            UseTree::Glob(_) => self.path(before, line),
        }
    }
}

impl<'ast> Visit<'ast> for Search {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.place.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.place.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&names, path.span().start().line);
        visit::visit_path(self, path);
    }

    /// What a macro is given need not be Rust: any run of names joined by `::` in it is taken for a path.
    fn visit_macro(&mut self, item: &'ast Macro) {
        visit::visit_macro(self, item);
        let text = item.tokens.to_string().replace(" :: ", "::");
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        for word in words.filter(|word| word.contains("::")) {
            let names: Vec<String> = word.split("::").map(str::to_owned).collect();
            self.path(&names, item.span().start().line);
        }
    }
}

#[test]
fn every_form_of_an_import_is_seen() {
    let modules = |path: &str, text: &str| -> Vec<String> {
        let file = syn::parse_file(text).expect("Rust");
        imports(Path::new(path), &file).into_iter().map(|import| import.module).collect()
    };
    for (text, expected) in [
        (
            "use crate::{comm::Comm, model::{Network, layers::Role}, train as other};",
            vec!["comm", "model", "model", "train"],
        ),
        ("use super::super::train::Trainer;", vec!["train"]),
        ("use super::{super::eval, table::Table};", vec!["eval", "comm"]),
        ("use self::inner::A; use std::fmt; use anyhow::Result;", vec!["comm"]),
        ("use crate::cli::*;", vec!["cli"]),
        (
            "fn f(x: &crate::data::Batch) -> u8 { crate::optim::step::<super::super::loss::Loss>(x) }",
            vec!["data", "optim", "loss"],
        ),
        ("fn f() { println!(\"{}\", crate::report::line(super::super::pack::NAME)) }", vec!["report", "pack"]),
        ("mod tests { use super::super::super::bench::Step; use super::*; }", vec!["bench", "comm"]),
        ("#[cfg(test)] mod tests { fn f() { assert!(crate::verify::all()) } }", vec!["verify"]),
    ] {
        assert_eq!(modules("src/comm/watchdog/mod.rs", text), expected, "{text}");
    }
    assert_eq!(modules("src/stop.rs", "use super::fault::Fault;"), ["fault"]);
    assert_eq!(modules("src/eval/input.rs", "use super::scorer::Scorer;"), ["eval"]);
}
