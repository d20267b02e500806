//! Arguments → verb → exit code; the one place that prints an error.

mod args;
mod logging;
mod openmp;
mod shell;
mod usage;
mod verbs;

use crate::comm::{self, Comm, Solo, mpi};
use crate::fault::{self, Agreed};
use crate::shard;
use crate::stop::StopRequest;
use crate::torch::{self, allocator, trouble};
use args::{CommandLine, Verb};
use clap::Parser;
use clap::error::ErrorKind;
use std::backtrace::BacktraceStatus;
use std::process::ExitCode;
use std::sync::Arc;

/// The code of a job whose libtorch failed of what the user gave: too little memory for it, or sizes that do not fit.
const THE_USERS: u8 = 2;

#[global_allocator]
static ALLOCATOR: allocator::Telling = allocator::Telling;

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let line = match CommandLine::try_parse_from(args::with_default_verb(std::env::args_os())) {
        Ok(line) => line,
        Err(error) => return not_understood(&error),
    };
    if !verbs::runs_on_ranks(&line.verb) && launched_rank() > 0 {
        return ExitCode::SUCCESS;
    }
    if verbs::computes(&line.verb)
        && let Err(cause) = openmp::spin_briefly()
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
    let relief = verbs::relief(&line.verb);
    allocator::say(format!("segdist: rank {}: the host has too little memory; {relief}\n", comm.rank()));
    end_all_ranks_on_panic(comm.clone(), relief);
    if comm.size() > 1 {
        shard::set_rank(comm.rank());
    }
    let result = verbs::run(line.verb, line.quiet, stop, &comm);
    let code = match result {
        Ok(code) => code,
        Err(error) => report(&error, relief, &*comm),
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
fn report(error: &anyhow::Error, relief: &str, comm: &dyn Comm) -> u8 {
    let text = format!("{error:#}");
    if let Some(line) = trouble::explained(&text, relief) {
        eprintln!("segdist: rank {}: {line}", comm.rank());
        comm.abort(THE_USERS.into());
    }
    let (code, text) = (fault::exit_code(error), trouble::without_frames(&text));
    if comm.size() == 1 {
        eprintln!("segdist: {text}");
    } else if error.is::<Agreed>() {
        if comm.is_root() {
            eprintln!("segdist: {text}");
        }
    } else {
        eprintln!("segdist: rank {}: {text}", comm.rank());
        comm.abort(code.into());
    }
    code
}

/// A panic anywhere, on whatever thread, ends the job with its message instead of leaving the others to wait.
fn end_all_ranks_on_panic(comm: Arc<dyn Comm>, relief: &'static str) {
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        // Place and message are two lines, but the rank and the cause belong on one.
        let cause = panic.to_string().replace('\n', " ");
        if let Some(line) = trouble::explained(&cause, relief) {
            eprintln!("segdist: rank {}: {line}", comm.rank());
            comm.abort(THE_USERS.into());
        }
        eprintln!("segdist: rank {}: {}; please report this", comm.rank(), trouble::without_frames(&cause));
        if backtrace.status() == BacktraceStatus::Captured {
            eprintln!("{backtrace}");
        }
        comm.abort(1);
    }));
}

/// Help and version go out once and are no failure; wrong usage is code 2.
fn not_understood(error: &clap::Error) -> ExitCode {
    let question = !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    match launched_rank() {
        // A closed pipe is not worth a message about the message.
        0 if question => _ = error.print(),
        0 => eprintln!("segdist: {}", usage::line(error)),
        _ => {}
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

/// This process's number by the launcher's word, before MPI is started; 0 when there is none.
fn launched_rank() -> usize {
    let variables = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"];
    let read = |name: &&str| std::env::var(name).ok()?.parse().ok();
    variables.iter().find_map(read).unwrap_or(0)
}
