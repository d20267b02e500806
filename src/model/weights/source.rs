//! Where a file of weights comes from, found out by its tensors' names, and what its tensors are called here.
//!
//! A [`Source`] is rows of two names, the file's and ours, with holes ([`super::pattern`]). A side that names several
//! tensors joined by ` + ` stands for one tensor made of them, one below the other: `query.{rest} + key.{rest}` on one side
//! and `qkv.{rest}` on the other. `0` among them stands for zeros that the other side has no tensor for. The same rows,
//! read from right to left, say how to write such a file.

use std::collections::BTreeMap;

use super::pattern::{Filling, Holes, Pattern};

/// What files of one kind call their tensors.
pub struct Source {
    /// Said when a file is loaded.
    pub name: &'static str,
    /// (what stands before the file's names, rows). The first row that matches a name counts.
    pub rows: &'static [(&'static str, &'static [Row])],
    /// How tensors begin that such files never hold, `encoder.` or `decoder.` included; they keep their initial values.
    pub lacks: &'static [&'static str],
}

/// A file's names and ours, with `encoder.` or `decoder.` in front; `{part}` stands for whichever is asked for.
pub type Row = (&'static str, &'static str);

/// Tensors on one side and the tensors on the other that hold the same numbers.
#[derive(Debug, PartialEq)]
pub struct Group {
    /// Indices of the names that were given; None: zeros.
    pub from: Vec<Option<usize>>,
    /// What they are called on the other side; None: zeros, to be left out.
    pub to: Vec<Option<String>>,
}

/// Which way names are translated.
#[derive(Clone, Copy, PartialEq)]
pub enum Direction {
    /// From a file's names to ours.
    In,
    /// From ours to a file's.
    Out,
}

/// The names on one side of a row; None: zeros.
type Side = Vec<Option<Pattern>>;

/// A source's rows, ready to be used in one direction.
pub struct Translator {
    rows: Vec<[Side; 2]>,
    part: &'static str,
}

impl Translator {
    /// `part`: what `{part}` stands for, `encoder` or `decoder`.
    pub fn new(source: &Source, direction: Direction, part: &'static str) -> Translator {
        let side = |text: &'static str| -> Vec<Option<Pattern>> {
            text.split(" + ").map(|name| (name != "0").then(|| Pattern::new(name))).collect()
        };
        let rows = source.rows.iter().flat_map(|(prefix, rows)| rows.iter().map(move |row| (*prefix, row)));
        let rows = rows.map(|(prefix, (file, ours))| {
            let file = side(file).into_iter().map(|pattern| pattern.map(|pattern| pattern.after(prefix))).collect();
            if direction == Direction::In { [file, side(ours)] } else { [side(ours), file] }
        });
        Translator { rows: rows.collect(), part }
    }

    /// The part that names belong to which do not say.
    pub fn part(&self) -> &str {
        self.part
    }

    /// Groups of `names` in the order of their first member, and the indices of those that no row knows or whose
    /// companions are absent.
    pub fn translate(&self, names: &[&str]) -> (Vec<Group>, Vec<usize>) {
        let mut unknown = Vec::new();
        let mut order = Vec::new();
        let mut found: BTreeMap<(usize, Holes), Vec<Option<usize>>> = BTreeMap::new();
        for (index, name) in names.iter().enumerate() {
            let Some((row, member, holes)) = self.row_of(name) else {
                unknown.push(index);
                continue;
            };
            let key = (row, holes);
            if !found.contains_key(&key) {
                order.push(key.clone());
            }
            found.entry(key).or_insert_with(|| vec![None; self.rows[row][0].len()])[member] = Some(index);
        }
        let mut groups = Vec::new();
        for key in order {
            let Some(from) = found.remove(&key) else { continue };
            let (row, mut holes) = key;
            let [given, wanted] = &self.rows[row];
            let complete = given.iter().zip(&from).all(|(pattern, index)| pattern.is_none() || index.is_some());
            holes.push(("part", Filling::Text(self.part.to_string())));
            let fill = |pattern: &Option<Pattern>| match pattern {
                Some(pattern) => pattern.fill(&holes).map(Some),
                None => Some(None),
            };
            let to: Option<Vec<_>> = wanted.iter().map(fill).collect();
            match to {
                Some(to) if complete => groups.push(Group { from, to }),
                _ => unknown.extend(from.into_iter().flatten()),
            }
        }
        unknown.sort_unstable();
        (groups, unknown)
    }

    /// The first row that knows `name`, the name's place in it, and what its holes stand for.
    fn row_of(&self, name: &str) -> Option<(usize, usize, Holes)> {
        self.rows.iter().enumerate().find_map(|(row, [from, _])| {
            let mut members = from.iter().enumerate();
            members.find_map(|(member, pattern)| Some((row, member, pattern.as_ref()?.matches(name)?)))
        })
    }
}
