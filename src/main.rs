//! The `segdist` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    segdist::cli::main()
}
