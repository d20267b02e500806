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

/// A failure that every rank knows of: rank 0 tells the user, and all leave in good order.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Agreed {
    /// One line; names the rank when not all ranks failed alike.
    pub message: String,
    /// The job's exit code.
    pub code: u8,
}

/// Shorthand for returning a [`BadInput`] from a function with an `anyhow` result.
#[macro_export]
macro_rules! bad_input {
    ($($message:tt)*) => {
        return Err(::anyhow::Error::new($crate::fault::BadInput(format!($($message)*))))
    };
}

/// The exit code that an error ends the process with.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(agreed) = error.downcast_ref::<Agreed>() {
        return agreed.code;
    }
    if error.chain().any(|cause| cause.is::<BadInput>()) { 2 } else { 1 }
}
