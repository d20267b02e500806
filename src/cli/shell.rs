//! What an installed program gives to shells, readers and schedulers.

use super::args::{CommandLine, Scheduler};
use clap::CommandFactory;

/// Completions of every verb and flag.
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "segdist", &mut text);
    Ok(String::from_utf8(text)?)
}

/// One page in troff.
pub fn manual() -> anyhow::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(CommandLine::command()).render(&mut text)?;
    Ok(String::from_utf8(text)?)
}

/// A batch script of launch/ that needs no other file: what the scripts share stands in it.
pub fn script(scheduler: Scheduler) -> String {
    let script = match scheduler {
        Scheduler::Slurm => include_str!("../../launch/slurm.sbatch"),
        Scheduler::SlurmPyxis => include_str!("../../launch/slurm-pyxis.sbatch"),
        Scheduler::SlurmApptainer => include_str!("../../launch/slurm-apptainer.sbatch"),
    };
    let shared = include_str!("../../launch/common.sh");
    let inlined = script.replace(". \"$launch/common.sh\"", shared).replace(". launch/common.sh", shared);
    inlined.replace("\"$launch/mpirun.sh\"", "segdist-mpirun")
}
