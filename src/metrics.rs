//! A confusion matrix of integers, and every measure as a function of it.

/// Counts of (truth, prediction) pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// Number of classes.
    pub classes: usize,
    /// Row = truth, column = prediction; classes · classes.
    pub counts: Vec<i64>,
}

impl Confusion {
    /// All zero.
    pub fn new(classes: usize) -> Self {
        Confusion { classes, counts: vec![0; classes * classes] }
    }
}
