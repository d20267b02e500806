//! What a person looks at: the progress line, tables, curves, overlays, TensorBoard's files.
//!
//! Nothing here decides anything; every function takes finished numbers or pixels.

pub mod axis;
pub mod board;
pub mod canvas;
pub mod curve;
pub mod event;
pub mod history;
pub mod html;
pub mod matrix;
pub mod overlay;
pub mod palette;
pub mod picture;
pub mod progress;
pub mod run_curve;
pub mod table;
pub mod tensorboard;
