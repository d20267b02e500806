//! `segdist verify`: checks every byte of a set of shards.

use crate::fault::{self, Failure, Kind};
use crate::retry;
use crate::shard::{Index, ShardError, ShardInfo, check_shard};
use rayon::prelude::*;
use std::fs;
use std::path::Path;

/// Checks the set in `dir`, prints each bad file and record, and fails if there is any.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    match &check(dir)[..] {
        [] => {
            println!("{}: every byte is as it was packed", dir.display());
            Ok(())
        }
        [only] => Err(fault::error(only.kind(), only.to_string())),
        errors => {
            errors.iter().for_each(|error| println!("{error}"));
            // Only damage is for the user to mend: what could not be read may be sound.
            let damaged = errors.iter().any(|error| error.kind() == Kind::Input);
            let kind = if damaged { Kind::Input } else { Kind::Passing };
            Err(fault::error(kind, format!("{}: {} errors, named above", dir.display(), errors.len())))
        }
    }
}

/// All that is wrong with the set in `dir`, in the order of its shards.
pub fn check(dir: &Path) -> Vec<ShardError> {
    let index = match Index::read(dir) {
        Ok(index) => index,
        Err(error) => return vec![error],
    };
    let check = |info: &ShardInfo| {
        let path = dir.join(&info.file);
        let faults = match retry::read(&path, || fs::read(&path)) {
            Ok(bytes) => check_shard(&bytes, info),
            Err(error) => vec![error.into()],
        };
        faults.into_iter().map(|fault| ShardError::new(&path, fault)).collect::<Vec<_>>()
    };
    index.shards.par_iter().flat_map_iter(check).collect()
}
