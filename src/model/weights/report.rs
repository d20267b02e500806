//! What became of every tensor of a file and of the network, in lines for the log or as a refusal.

use super::load::Part;
use super::source::Source;
use super::{WeightsError, is_optional};

/// What became of every tensor.
#[derive(Debug, Default)]
pub struct Report {
    /// Where the file comes from, by its names.
    pub source: &'static str,
    /// The network's tensors that the file gave.
    pub loaded: Vec<String>,
    /// The network's that the file lacks.
    pub missing: Vec<String>,
    /// The file's that the network has no use for, as the file calls them without what a wrapper put in front.
    pub unused: Vec<String>,
    /// Those of both with different shapes, the shapes included.
    pub mismatched: Vec<String>,
    /// The network's that keep their initial values because files of this source never hold them.
    pub lacking: Vec<String>,
    /// Position embeddings that were resized, the grids included.
    pub resized: Vec<String>,
    /// Batch norms whose debiased statistics were derived from the running values.
    pub rebuilt_statistics: usize,
}

impl Report {
    /// Lines for the log, about `part` loaded from `file`.
    pub fn lines(&self, part: Part, file: &str) -> Vec<String> {
        let part = part.name();
        let mut lines = vec![format!("{part}: {} tensors from {file} (names of {})", self.loaded.len(), self.source)];
        let lists = [
            ("in the file, unused", &self.unused),
            ("of another shape, left at their initial values", &self.mismatched),
            ("without a counterpart in files of this source, left at their initial values", &self.lacking),
            ("of another grid, resized (bicubic with antialiasing, as timm does)", &self.resized),
        ];
        for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            lines.push(format!("{part}: {} {what}: {}", list.len(), list.join(", ")));
        }
        if self.rebuilt_statistics > 0 {
            lines.push(format!(
                "{part}: {} batch norms came without debiased statistics that agree with their running values: _tmp_running_* = running_* x _running_iter",
                self.rebuilt_statistics
            ));
        }
        lines
    }

    /// Notes a tensor of the network, by its name in `part`, that the file does not give.
    pub(super) fn without_source(&mut self, part: Part, name: &str, source: &Source) {
        let full = format!("{}{name}", part.prefix());
        if source.lacks.iter().any(|start| full.starts_with(start)) {
            self.lacking.push(name.to_string());
        } else if !is_optional(name) {
            self.missing.push(name.to_string());
        }
    }

    /// Nothing when all the network needs is there; missing tensors are an error, and mis-shaped ones unless
    /// `skip_mismatched`.
    pub(super) fn check(&self, skip_mismatched: bool) -> Result<(), WeightsError> {
        let mut problems = Vec::new();
        if !self.missing.is_empty() {
            problems.push(format!("{} tensors are missing: {}", self.missing.len(), some(&self.missing)));
        }
        if !self.mismatched.is_empty() && !skip_mismatched {
            let (count, list) = (self.mismatched.len(), some(&self.mismatched));
            problems.push(format!("{count} tensors have another shape: {list}; MODEL.skip_mismatched True leaves these at their initial values"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        if !self.unused.is_empty() {
            problems.push(format!("{} of the file are unused: {}", self.unused.len(), some(&self.unused)));
        }
        Err(WeightsError::Mismatch(format!("read as {}, {}", self.source, problems.join("; "))))
    }
}

/// The first few of many names.
fn some(names: &[String]) -> String {
    const MOST: usize = 3;
    let more = if names.len() > MOST { ", …" } else { "" };
    names[..names.len().min(MOST)].join(", ") + more
}
