//! The program in a process of its own: what it reads, writes and says.

#[path = "../common/mod.rs"]
mod common;
#[path = "../golden/mod.rs"]
mod golden;

mod cases;
mod config;
mod disk_full;
<<<<<<< HEAD
mod going_on;
=======
mod guide;
>>>>>>> 27ea452 (A guide in the documentation; demo, launch, completions and man as verbs; a wheel)
mod hostile_weights;
mod messages;
mod nonsense_state;
mod own_data;
mod predict;
mod reference_files;
mod short_run;
mod streams;
mod tensorboard;
mod watch;
