//! The functions of a file: where they stand, how long they are, how many parameters they take.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, File, FnArg, ImplItemFn, ItemFn, Signature, TraitItemFn};

pub struct Function {
    pub name: String,
    pub line: usize,
    /// From `fn` to the closing brace.
    pub lines: usize,
    /// Without `self`.
    pub parameters: usize,
}

/// Every function with a body, those within others too.
pub fn functions(file: &File) -> Vec<Function> {
    let mut search = Search(Vec::new());
    search.visit_file(file);
    search.0
}

struct Search(Vec<Function>);

impl Search {
    fn add(&mut self, signature: &Signature, body: &Block) {
        let line = signature.span().start().line;
        self.0.push(Function {
            name: signature.ident.to_string(),
            line,
            lines: body.span().end().line - line + 1,
            parameters: signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_))).count(),
        });
    }
}

impl<'ast> Visit<'ast> for Search {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(body) = &item.default {
            self.add(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn functions_are_found_wherever_they_stand() {
    let text = "
        pub(crate) async unsafe fn outer(a: u8, b: u8) -> u8 {
            const fn inner() {}
            a
        }
        trait T { fn given(&self, x: u8) { } fn asked(&self); }
        impl T for u8 { extern \"C\" fn own(self,
            y: u8, z: u8) {
            }
        }
        #[cfg(test)] mod tests { #[test] fn a_test() {} }";
    let found = functions(&syn::parse_file(text).expect("Rust"));
    let seen: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines, f.parameters)).collect();
    let expected = [("outer", 2, 4, 2), ("inner", 3, 1, 0), ("given", 6, 1, 1), ("own", 7, 3, 2), ("a_test", 11, 1, 0)];
    assert_eq!(seen, expected);
}
