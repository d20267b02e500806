//! The program in a process of its own: what it reads, writes and says.

#[path = "../common/mod.rs"]
mod common;
#[path = "../golden/mod.rs"]
mod golden;

mod busy;
mod cases;
mod config;
mod disk_full;
mod going_on;
mod guide;
mod hostile_weights;
mod losses;
mod messages;
mod mistakes;
mod nonsense_state;
mod own_data;
mod predict;
mod reference_files;
mod short_run;
mod shortage;
mod streams;
mod tensorboard;
mod watch;
