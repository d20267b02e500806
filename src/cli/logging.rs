//! Log lines with rank and host in front; rank 0 informs, the others warn.

use crate::comm::{self, Comm};
use crate::streams::harmless;
use log::{Level, LevelFilter};
use std::io::Write;

/// Installs the logger. `RUST_LOG` has the last word.
pub fn start(comm: &dyn Comm, quiet: bool) {
    let level = if quiet || !comm.is_root() { LevelFilter::Warn } else { LevelFilter::Info };
    let who = if comm.size() > 1 { format!("[rank {} on {}] ", comm.rank(), comm::hostname()) } else { String::new() };
    let informs = comm.is_root();
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .format(move |out, record| match record.level() {
            Level::Info if informs => writeln!(out, "{}", harmless(&record.args().to_string())),
            level => {
                writeln!(out, "{who}{}: {}", level.as_str().to_lowercase(), harmless(&record.args().to_string()))
            }
        })
        .init();
}
