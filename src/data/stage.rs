//! DATASET.stage: a set's shards on a local disk or in /dev/shm, copied once per node.
//!
//! The copy is a set like any other, in a folder named after its dataset_id, so sets do not mix and jobs share it.
//! Every shard is hashed whether it is copied or found there; index.json is written last.

use super::DatasetConfig;
use super::dataset::Dataset;
use super::source::DataError;
use crate::comm::{self, Comm};
use crate::durable::{self, Unfinished};
use crate::fault::Kind;
use crate::retry;
use crate::shard::{Fault, INDEX_FILE, Index, ShardError, ShardInfo};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// How much is copied and hashed at once.
const BLOCK: usize = 1 << 20;

/// Opens DATASET.list_train or list_val: its copy in DATASET.stage if that names a folder and `list` is a set of shards.
///
/// A collective: the first rank of each node copies while the others sleep in a barrier. A rank that fails still goes
/// through every barrier and then says so; whoever calls this agrees on the outcome. With DATASET.stage_keep False the
/// copy loses its names once all have opened it: open files stay readable, and their space is free when the last
/// process ends, however it ends.
pub fn open(comm: &dyn Comm, config: &DatasetConfig, list: &str) -> Result<Dataset, DataError> {
    if config.stage.is_empty() {
        return Dataset::open(config, list);
    }
    let (place, _) = comm::local_place(comm)?;
    let ready = copied(Path::new(list), Path::new(&config.stage), place == 0);
    comm.barrier()?;
    let opened = ready.and_then(|target| {
        let folder = target.as_ref().map_or(list.into(), |target| target.to_string_lossy());
        Ok((Dataset::open(config, &folder)?, target))
    });
    comm.barrier()?;
    let (source, target) = opened?;
    if let Some(target) = target.filter(|_| place == 0 && !config.stage_keep) {
        fs::remove_dir_all(&target).map_err(|error| DataError::Stage(target, error))?;
    }
    Ok(source)
}

/// The copy of a set under `folder`, made or completed if `copies`; None where `list` is no set.
fn copied(list: &Path, folder: &Path, copies: bool) -> Result<Option<PathBuf>, DataError> {
    let index = list.join(INDEX_FILE);
    match retry::read(&index, || fs::metadata(&index)) {
        Ok(about) if about.is_file() => {}
        Err(error) if Kind::of(&error) == Kind::Passing => return Err(DataError::Read(index, error)),
        _ => return Ok(None),
    }
    let index = Index::read(list)?;
    let target = folder.join(index.dataset_id());
    if copies {
        copy_set(&index, list, &target)?;
    }
    Ok(Some(target))
}

fn copy_set(index: &Index, source: &Path, target: &Path) -> Result<(), DataError> {
    let fail = |error: io::Error| DataError::Stage(target.into(), error);
    fs::create_dir_all(target).map_err(fail)?;
    // Another job on this node may want the same set: it waits here and then finds it. The lock ends with `lock`.
    let lock = File::open(target).map_err(fail)?;
    // File systems without locks are used without.
    let _ = flock(&lock, FlockOperation::LockExclusive);
    let mut copied = 0;
    for shard in &index.shards {
        if !is_right(&target.join(&shard.file), shard) {
            copy_shard(shard, source, target)?;
            copied += 1;
        }
    }
    let listed = source.join(INDEX_FILE);
    let bytes = retry::read(&listed, || fs::read(&listed)).map_err(|error| DataError::Read(listed.clone(), error))?;
    durable::write(&target.join(INDEX_FILE), &bytes).map_err(fail)?;
    log::info!("{}: {copied} of {} shards copied, the others were there", target.display(), index.shards.len());
    Ok(())
}

/// Whether a copy is there and has the listed hash.
fn is_right(file: &Path, shard: &ShardInfo) -> bool {
    let right = || -> io::Result<bool> {
        let mut file = File::open(file)?;
        Ok(file.metadata()?.len() == shard.bytes && copy(&mut file, &mut io::sink())??.1 == shard.blake3)
    };
    right().unwrap_or(false)
}

fn copy_shard(shard: &ShardInfo, source: &Path, target: &Path) -> Result<(), DataError> {
    let from = source.join(&shard.file);
    let write_error = |error| DataError::Stage(target.join(&shard.file), error);
    let copied = retry::read(&from, || {
        let mut reader = File::open(&from)?;
        Ok::<_, io::Error>(match Unfinished::create(&target.join(&shard.file)) {
            Ok(mut unfinished) => copy(&mut reader, unfinished.file())?.map(|copied| (copied, unfinished)),
            Err(error) => Err(error),
        })
    });
    let copied = copied.map_err(|error| DataError::Read(from.clone(), error))?;
    let ((length, hash), unfinished) = copied.map_err(write_error)?;
    if (length, &hash) != (shard.bytes, &shard.blake3) {
        let fault =
            if length == shard.bytes { Fault::Hash } else { Fault::Length { expected: shard.bytes, found: length } };
        return Err(ShardError::new(&from, fault).into());
    }
    unfinished.publish().map_err(write_error)
}

/// Copies to the end: length and BLAKE3. The outer error is that of reading, the inner one that of writing.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<io::Result<(u64, String)>> {
    let (mut hash, mut block, mut length) = (blake3::Hasher::new(), vec![0; BLOCK], 0);
    loop {
        let read = match from.read(&mut block) {
            Ok(0) => return Ok(Ok((length, hash.finalize().to_hex().to_string()))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&block[..read]);
        if let Err(error) = to.write_all(&block[..read]) {
            return Ok(Err(error));
        }
        length += read as u64;
    }
}
