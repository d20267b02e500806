//! Before the first step: do all ranks mean the same job?

use super::{Comm, CommError};
use crate::fault::{Failure, Kind};
use std::collections::BTreeMap;

/// Facts named in one message; the rest are counted.
const SHOWN: usize = 3;

/// Why a job cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The ranks could not talk.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// What differs, and on which ranks. The same text on every rank.
    #[error("{0}")]
    Differs(String),
}

impl Failure for HandshakeError {
    fn kind(&self) -> Kind {
        match self {
            HandshakeError::Comm(error) => error.kind(),
            HandshakeError::Differs(_) => Kind::Input,
        }
    }
}

/// Compares named facts (version, configuration, one per tensor, data set, steps) over all ranks.
///
/// # Errors
/// On every rank, when any fact differs or is absent somewhere: the ranks that are in the minority are named.
pub fn compare(comm: &dyn Comm, facts: &[(String, String)]) -> Result<(), HandshakeError> {
    let bytes = serde_json::to_vec(facts).expect("strings become JSON");
    let mut ranks = Vec::new();
    for (rank, part) in comm.all_gather(&bytes)?.iter().enumerate() {
        let facts: Vec<(String, String)> = serde_json::from_slice(part)
            .map_err(|cause| HandshakeError::Differs(format!("rank {rank} sent facts that cannot be read: {cause}")))?;
        ranks.push(facts);
    }
    let differences = differences(&ranks);
    if differences.is_empty() {
        return Ok(());
    }
    let more = match differences.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more differences"),
    };
    Err(HandshakeError::Differs(differences[..differences.len().min(SHOWN)].join("; ") + &more))
}

/// One sentence for every fact that is not the same on all ranks, in the order in which facts first appear.
fn differences(ranks: &[Vec<(String, String)>]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    let mut values: BTreeMap<&str, Vec<Option<&str>>> = BTreeMap::new();
    for (rank, facts) in ranks.iter().enumerate() {
        for (name, value) in facts {
            let of_ranks = values.entry(name).or_insert_with(|| {
                names.push(name);
                vec![None; ranks.len()]
            });
            of_ranks[rank] = Some(value);
        }
    }
    names.into_iter().filter_map(|name| difference(name, &values[name])).collect()
}

fn difference(name: &str, values: &[Option<&str>]) -> Option<String> {
    let votes = |value: &Option<&str>| values.iter().filter(|other| *other == value).count();
    // The first of the most frequent values is what the others are measured by.
    let common = values.iter().rev().max_by_key(|value| votes(value))?;
    let odd = values.iter().find(|value| *value != common)?;
    let ranks: Vec<String> =
        (0..values.len()).filter(|rank| values[*rank] == *odd).map(|rank| rank.to_string()).collect();
    let named = if let [rank] = &ranks[..] { format!("rank {rank}") } else { format!("ranks {}", ranks.join(", ")) };
    let [odd, common] =
        [(odd, common), (common, odd)].map(|(of, other)| of.map(|of| own_line(of, other.unwrap_or(""))));
    let text = |value: Option<&str>| value.map_or("nothing".to_string(), |value| format!("`{}`", value.trim()));
    Some(format!("{named} differs in {name}: {} instead of {}", text(odd), text(common)))
}

/// The first line of a value that another value lacks; "" where it lacks none.
fn own_line<'a>(value: &'a str, other: &str) -> &'a str {
    value.lines().find(|line| !other.lines().any(|theirs| theirs == *line)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    fn outcome(ranks: &[&[(&str, &str)]]) -> Vec<Option<String>> {
        threads::run(ranks.len(), |comm| {
            let facts: Vec<_> =
                ranks[comm.rank()].iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            compare(comm.as_ref(), &facts).err().map(|error| error.to_string())
        })
    }

    #[test]
    fn equal_facts_agree() {
        assert_eq!(outcome(&[&[("data", "a")], &[("data", "a")]]), [None, None]);
    }

    #[test]
    fn the_minority_is_named_on_every_rank_alike() {
        let message = "rank 1 differs in data: `b` instead of `a`";
        let all = outcome(&[&[("data", "a")], &[("data", "b")], &[("data", "a")]]);
        assert!(all.iter().all(|found| found.as_deref() == Some(message)), "{all:?}");
    }

    #[test]
    fn with_two_ranks_the_second_differs_from_the_first() {
        let all = outcome(&[&[("step", "4")], &[("step", "5")]]);
        assert_eq!(all[0].as_deref(), Some("rank 1 differs in step: `5` instead of `4`"));
    }

    #[test]
    fn a_missing_tensor_is_named() {
        let all = outcome(&[&[("tensor conv.weight", "f32")], &[], &[("tensor conv.weight", "f32")]]);
        assert_eq!(all[0].as_deref(), Some("rank 1 differs in tensor conv.weight: nothing instead of `f32`"));
    }

    #[test]
    fn of_long_values_the_lines_that_differ_are_named() {
        let all = outcome(&[&[("configuration", "a: 1\nb: 2\nc: 3")], &[("configuration", "a: 1\nb: 4\nc: 3")]]);
        assert_eq!(all[1].as_deref(), Some("rank 1 differs in configuration: `b: 4` instead of `b: 2`"));
    }

    #[test]
    fn many_differences_are_counted() {
        let one: Vec<(String, String)> = (0..9).map(|i| (format!("fact {i}"), "1".into())).collect();
        let two = one.iter().map(|(name, _)| (name.clone(), "2".into())).collect();
        assert_eq!(differences(&[one, two]).len(), 9);
    }
}
