//! `segdist verify`: checks every byte of a set of shards.

use crate::fault::BadInput;
use crate::shard::{Index, ShardError, ShardInfo, check_shard};
use rayon::prelude::*;
use std::fs;
use std::path::Path;

/// Checks the set in `dir`, prints each bad file and record, and fails if there is any.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    let index = Index::read(dir).map_err(BadInput::new)?;
    let errors = check(dir, &index);
    for error in &errors {
        println!("{error}");
    }
    if !errors.is_empty() {
        crate::bad_input!("{}: {} errors in {} shards, named above", dir.display(), errors.len(), index.shards.len());
    }
    let records: u32 = index.shards.iter().map(|shard| shard.records).sum();
    println!("{}: {} records in {} shards, every byte as it was packed", dir.display(), records, index.shards.len());
    Ok(())
}

/// All that is wrong with the shards that an index lists, in their order.
pub fn check(dir: &Path, index: &Index) -> Vec<ShardError> {
    let check = |info: &ShardInfo| {
        let path = dir.join(&info.file);
        let faults = match fs::read(&path) {
            Ok(bytes) => check_shard(&bytes, info),
            Err(error) => vec![error.into()],
        };
        faults.into_iter().map(|fault| ShardError::new(&path, fault)).collect::<Vec<_>>()
    };
    index.shards.par_iter().flat_map_iter(check).collect()
}
