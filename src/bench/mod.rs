//! To be written.

pub mod loader;
