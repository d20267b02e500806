//! The program under mpirun: what several ranks compute, and how they end when one of them fails.

#[path = "../common/mod.rs"]
mod common;

mod amp;
mod bad_input;
mod damaged_run;
mod data_identity;
mod elastic;
mod equivalence;
mod failing_disk;
mod faults;
mod kill;
mod launch;
mod many;
mod recipes;
mod resume;
mod signals;
mod statistics;
mod trace;
mod transport;
mod upgrade;
mod watchdog;
