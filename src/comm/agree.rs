//! A failure that some rank met on its own becomes a failure of all, so that nobody is left waiting in a collective.

use super::{Comm, broadcast_bytes};
use crate::fault::{self, Agreed};

/// Ends a phase that every rank went through on its own: `result` where all succeeded, else the first failure.
///
/// A collective: every rank calls it, whatever its own result.
pub fn agree<T>(comm: &dyn Comm, result: anyhow::Result<T>) -> anyhow::Result<T> {
    let report = match &result {
        Ok(_) => Vec::new(),
        Err(error) => [&[fault::exit_code(error)], format!("{error:#}").as_bytes()].concat(),
    };
    let reports = comm.all_gather(&report)?;
    let Some((rank, first)) = reports.iter().enumerate().find(|(_, report)| !report.is_empty()) else {
        return result;
    };
    let text = String::from_utf8_lossy(&first[1..]);
    let alike = reports.iter().all(|report| report == first);
    let message = if alike { text.into_owned() } else { format!("rank {rank}: {text}") };
    Err(Agreed { message, code: first[0] }.into())
}

/// What rank 0 alone makes, on every rank; its failure is everyone's.
pub fn from_root(comm: &dyn Comm, make: impl FnOnce() -> anyhow::Result<Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    let sent = comm.is_root().then(|| match make() {
        Ok(bytes) => [&[0], &bytes[..]].concat(),
        Err(error) => [&[1, fault::exit_code(&error)], format!("{error:#}").as_bytes()].concat(),
    });
    let bytes = broadcast_bytes(comm, sent)?;
    match bytes.split_first() {
        Some((0, rest)) => Ok(rest.to_vec()),
        Some((_, [code, text @ ..])) => {
            Err(Agreed { message: String::from_utf8_lossy(text).into_owned(), code: *code }.into())
        }
        _ => Err(anyhow::anyhow!("rank 0 sent an empty message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn one_rank_failing_fails_all_with_its_number() {
        let results = threads::run(3, |comm| {
            let mine = if comm.rank() == 1 { Err(anyhow::anyhow!("a.sgs: truncated")) } else { Ok(7) };
            agree(&*comm, mine).map_err(|error| error.to_string())
        });
        assert!(results.iter().all(|result| result == &Err("rank 1: a.sgs: truncated".into())), "{results:?}");
    }

    #[test]
    fn all_ranks_failing_alike_is_one_failure_and_keeps_its_code() {
        let results = threads::run(2, |comm| {
            let mine: anyhow::Result<()> = Err(fault::BadInput("no such file".into()).into());
            agree(&*comm, mine).map_err(|error| (error.to_string(), fault::exit_code(&error)))
        });
        assert!(results.iter().all(|result| result == &Err(("no such file".into(), 2))), "{results:?}");
    }
}
