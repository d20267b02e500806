//! The guide, for those who use the program: your own data, networks and weights, clusters, failures, every key.
//!
//! | you want to | page |
//! |---|---|
//! | train on your own photographs and masks | [`own_data`] |
//! | choose a network, and start from weights that you have | [`networks`] |
//! | choose a recipe and know what it costs | [`recipe`] |
//! | run on several hosts, under Slurm, in containers | [`clusters`] |
//! | stop, continue, change something half way, understand how a run ended | [`runs`] |
//! | look up a key of the configuration | [`keys`] |
//! | see what is fast and how it was measured | [`numbers`] |
//! | understand how it works, or change it | the [crate's front page](crate) |
//!
//! A test runs the commands of [`own_data`] and compares [`keys`] with what the program says.

#[doc = include_str!("own_data.md")]
pub mod own_data {}

#[doc = include_str!("networks.md")]
pub mod networks {}

#[doc = include_str!("recipe.md")]
pub mod recipe {}

#[doc = include_str!("../../launch/README.md")]
pub mod clusters {}

#[doc = include_str!("runs.md")]
pub mod runs {}

#[doc = include_str!("keys.md")]
pub mod keys {}

#[doc = include_str!("numbers.md")]
pub mod numbers {}
