//! Arguments → verb → exit code; the one place that prints an error.

mod args;
mod logging;
mod openmp;
mod shell;
mod verbs;

use crate::comm::{self, Comm, Solo, mpi};
use crate::fault::{self, Agreed};
use crate::shard;
use crate::stop::StopRequest;
use crate::torch;
use args::{CommandLine, Verb};
use clap::Parser;
use std::process::ExitCode;
use std::sync::Arc;

/// The code of a job that has too little memory for what the user gave.
const SHORTAGE: u8 = 2;

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let line = match CommandLine::try_parse_from(args::with_default_verb(std::env::args_os())) {
        Ok(line) => line,
        Err(error) => return usage(&error),
    };
    if !verbs::runs_on_ranks(&line.verb) && launched_rank() > 0 {
        return ExitCode::SUCCESS;
    }
    if verbs::computes(&line.verb)
        && let Err(cause) = openmp::wait_without_spinning()
    {
        eprintln!("segdist: threads will spin while they wait, which is slow on a busy machine: {cause}");
    }
    comm::raise_descriptor_limit();
    match start(&line.verb) {
        Ok((stop, session)) => run(line, stop, session),
        Err(error) => {
            eprintln!("segdist: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Signals first, so that none that comes while MPI starts is lost; then the ranks.
fn start(verb: &Verb) -> anyhow::Result<(Option<StopRequest>, Option<mpi::Session>)> {
    let stop = matches!(verb, Verb::Train(_)).then(StopRequest::install).transpose()?;
    let ranks = verbs::runs_on_ranks(verb) && mpi::launched();
    Ok((stop, ranks.then(mpi::Session::start).transpose()?))
}

fn run(line: CommandLine, stop: Option<StopRequest>, session: Option<mpi::Session>) -> ExitCode {
    let comm: Arc<dyn Comm> = session.as_ref().map_or_else(|| Arc::new(Solo) as _, mpi::Session::world);
    logging::start(&*comm, line.quiet);
    end_all_ranks_on_panic(comm.clone());
    if comm.size() > 1 {
        shard::set_rank(comm.rank());
    }
    let result = verbs::run(line.verb, line.quiet, stop, &comm);
    let code = match result {
        Ok(code) => code,
        Err(error) => report(&error, &*comm),
    };
    drop(comm);
    if let Some(session) = session {
        session.finish(code);
    }
    if torch::may_use_gpus() {
        mpi::end_process(code.into());
    }
    ExitCode::from(code)
}

/// Tells the user, and ends the other ranks where they do not know.
fn report(error: &anyhow::Error, comm: &dyn Comm) -> u8 {
    if let Some(shortage) = torch::shortage(&format!("{error:#}")) {
        eprintln!("segdist: rank {}: {shortage}", comm.rank());
        comm.abort(SHORTAGE.into());
    }
    let code = fault::exit_code(error);
    if comm.size() == 1 {
        eprintln!("segdist: {error:#}");
    } else if error.is::<Agreed>() {
        if comm.is_root() {
            eprintln!("segdist: {error:#}");
        }
    } else {
        eprintln!("segdist: rank {}: {error:#}", comm.rank());
        comm.abort(code.into());
    }
    code
}

/// A panic anywhere, on whatever thread, ends the job with its message instead of leaving the others to wait.
fn end_all_ranks_on_panic(comm: Arc<dyn Comm>) {
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        // Place and message are two lines, but the rank and the cause belong on one.
        let cause = panic.to_string().replace('\n', " ");
        if let Some(shortage) = torch::shortage(&cause) {
            eprintln!("segdist: rank {}: {shortage}", comm.rank());
            comm.abort(SHORTAGE.into());
        }
        eprintln!("segdist: rank {}: {cause}; please report this\n{backtrace}", comm.rank());
        comm.abort(1);
    }));
}

/// Help and version go out once and are no failure; wrong usage is code 2.
fn usage(error: &clap::Error) -> ExitCode {
    if launched_rank() == 0 {
        // A closed pipe is not worth a message about the message.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// This process's number by the launcher's word, before MPI is started; 0 when there is none.
fn launched_rank() -> usize {
    let variables = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"];
    let read = |name: &&str| std::env::var(name).ok()?.parse().ok();
    variables.iter().find_map(read).unwrap_or(0)
}
