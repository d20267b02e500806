//! The two kinds of failure a user meets: something to mend in what was given (exit code 2), and everything else (1).

use std::fmt::Display;

/// A failure that lies in what the user gave: usage, configuration or input data. The process ends with code 2.
///
/// The message is one line that names the file or key, the cause, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(pub String);

impl BadInput {
    /// Marks any error as the user's to mend; the cause chain is kept in its text.
    pub fn new(error: impl Display) -> Self {
        BadInput(error.to_string())
    }
}

/// Shorthand for returning a [`BadInput`] from a function with an `anyhow` result.
#[macro_export]
macro_rules! bad_input {
    ($($message:tt)*) => {
        return Err(::anyhow::Error::new($crate::fault::BadInput(format!($($message)*))))
    };
}
