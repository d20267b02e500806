//! `segdist pack`: from lists, folders and known layouts to a set of shards.
//!
//! Everything is written in `OUT/.packing` and moved to OUT when all of it is there, index.json last. What an
//! interrupted run has finished is kept there and used again, shard by shard, as long as the files that went into it
//! are the same by name, length and time. The bytes of the set depend on the input alone: a shard ends with the record
//! that fills it.

mod rules;
mod sample;
mod table;

use crate::bad_input;
use crate::data::instances::{Background, Instances};
use crate::data::layout::Layout;
use crate::data::list::{self, List, Pair};
use crate::data::source::DataError;
use crate::durable;
use crate::fault;
use crate::shard::{Classes, INDEX_FILE, Index, Record, ShardInfo, shard_name, write_shard};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use rules::Rules;
use sample::{Packed, Turn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// More threads than any machine has cores.
const MOST_THREADS: usize = 4096;

/// Where the samples come from.
pub enum Input {
    /// An odgt list and the folder that its paths start from.
    List {
        /// `.odgt` or `.odgt.gz`.
        odgt: PathBuf,
        /// Usually DATASET.root_dataset.
        root: PathBuf,
    },
    /// Two folders with files of the same names.
    Folders {
        /// Images.
        images: PathBuf,
        /// Labels.
        labels: PathBuf,
        /// What stands behind an image's stem in its label's name; None to find that out.
        suffix: Option<String>,
    },
    /// Images, and a COCO file of the objects on them.
    Coco {
        /// JSON.
        file: PathBuf,
        /// The folder that its file names start from.
        images: PathBuf,
        /// What pixels are that no object covers.
        background: Background,
    },
    /// A data set known by name.
    Layout {
        /// From [`Layout::find`].
        layout: &'static Layout,
        /// Its folder.
        root: PathBuf,
        /// `train`, `val`, or what the data set calls its parts.
        split: String,
    },
}

impl Input {
    /// An error with the flag that moved the missing file.
    fn explained(&self, error: DataError) -> DataError {
        match self {
            Input::List { odgt, root } => error.below("--root", root, odgt),
            Input::Layout { root, .. } => error.below("--root", root, Path::new("")),
            _ => error,
        }
    }
}

/// What `segdist pack` is told.
pub struct PackOptions {
    /// Where the samples come from.
    pub input: Input,
    /// The set's folder; made if it does not exist.
    pub out: PathBuf,
    /// Label map (YAML) to check the labels against and to store; overrides a layout's.
    pub label_map: Option<PathBuf>,
    /// Number of classes to check the labels against; None: a layout's, else unchecked unless there is a label map.
    pub num_class: Option<usize>,
    /// Label values that the label map does not name count as the nearest one, up to this distance.
    pub nearest_color: Option<u32>,
    /// Print one JSON object instead of a table.
    pub json: bool,
    /// Replace a set that is already in `out`.
    pub force: bool,
    /// Threads that read and check samples; 0: one for each core.
    pub threads: usize,
    /// A shard ends with the record that brings it to this many bytes.
    pub shard_bytes: usize,
}

impl PackOptions {
    /// From `input` to `out`, everything else as by default.
    pub fn new(input: Input, out: impl Into<PathBuf>) -> PackOptions {
        let (label_map, num_class, nearest_color) = (None, None, None);
        let (json, force, threads, shard_bytes) = (false, false, 0, 64 << 20);
        let out = out.into();
        PackOptions { input, out, label_map, num_class, nearest_color, json, force, threads, shard_bytes }
    }
}

/// Kept beside a finished shard while the set is not: how it was made, and what the report needs of it.
#[derive(Serialize, Deserialize)]
struct Finished {
    /// Hash of the input files' names, lengths and times.
    inputs: String,
    shard: ShardInfo,
    /// Pixels of each stored label value.
    pixels: Vec<u64>,
    /// The stored label values of each record; a run that does not know them begins anew.
    seen: Vec<Vec<u8>>,
}

/// Packs, and prints what was packed.
pub fn run(options: &PackOptions) -> anyhow::Result<()> {
    let out = &options.out;
    if out.join(INDEX_FILE).exists() && !options.force {
        bad_input!("{}: holds a packed set already; name another folder, or give --force to replace it", out.display());
    }
    let (pairs, rules) = plan(options)?;
    let staging = out.join(".packing");
    fs::create_dir_all(&staging).map_err(|cause| fault::unwritable(&staging, cause))?;
    let _lock = lock(&staging)?;
    if options.threads > MOST_THREADS {
        bad_input!(
            "--threads is {}: give at most {MOST_THREADS}, or 0 for as many as there are cores",
            options.threads
        );
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build()?;
    let finished = pool.install(|| pack(&pairs, &rules, options, &staging)).inspect_err(|_| {
        // Leaves nothing of a run that finished no shard: folders with something in them stay.
        let _ = fs::remove_dir(&staging).and_then(|()| fs::remove_dir(out));
    })?;

    let shards: Vec<ShardInfo> = finished.iter().map(|finished| finished.shard.clone()).collect();
    let values = table::values(&finished);
    let (pixels, ignored) = table::by_class(&values, &rules);
    let (names, palette, label_map) = (rules.names.clone(), rules.palette.clone(), rules.stored.clone());
    let seen = table::seen(&finished, &rules);
    let classes = Classes { names, palette, label_map, translated: rules.translates(), pixels, ignored, seen };
    let index = Index::new(shards, classes);
    publish(&index, &staging, out).with_context(|| format!("{}: cannot move the shards there", out.display()))?;
    if options.json {
        println!("{}", table::json(&index));
        return Ok(());
    }
    println!("{}", table::table(&values, &index, &rules));
    let bytes: u64 = index.shards.iter().map(|shard| shard.bytes).sum();
    let (records, shards) = (pairs.len(), index.shards.len());
    println!("{}: {records} records in {shards} shards, {:.1} MiB", out.display(), bytes as f64 / f64::from(1 << 20));
    Ok(())
}

/// What to pack and what to check it against; all that can be refused without reading an image is refused here.
fn plan(options: &PackOptions) -> anyhow::Result<(Vec<Pair>, Rules)> {
    if options.nearest_color.is_some() && options.label_map.is_none() {
        bad_input!("--nearest-color needs the values that there are: give --label-map as well");
    }
    let labelled = |list: Result<List, DataError>, layout| -> anyhow::Result<_> {
        let pairs = once_each(list.map_err(fault::classified)?.pairs)?;
        Ok((pairs, Rules::new(options, layout).map_err(fault::classified)?))
    };
    match &options.input {
        Input::List { odgt, root } => {
            labelled(list::odgt(odgt, root).map_err(|error| options.input.explained(error)), None)
        }
        Input::Folders { images, labels, suffix } => labelled(list::folders(images, labels, suffix.as_deref()), None),
        Input::Layout { layout, root, split } => {
            labelled(layout.list(root, split).map_err(|error| options.input.explained(error)), Some(*layout))
        }
        Input::Coco { file, images, background } => {
            if options.label_map.is_some() {
                bad_input!("{}: has its own classes; leave --label-map out", file.display());
            }
            let instances = Instances::coco(file, *background).map_err(fault::classified)?;
            let pairs = list::instances(file, &instances, images).map_err(fault::classified)?;
            Ok((once_each(pairs)?, Rules::drawn(instances, background)))
        }
    }
}

/// An error where an image is listed twice.
fn once_each(pairs: Vec<Pair>) -> anyhow::Result<Vec<Pair>> {
    let mut names = BTreeSet::new();
    if let Some(twice) = pairs.iter().find(|pair| !names.insert(pair.name.as_str())) {
        bad_input!("{}: is listed twice; name each image once", twice.name);
    }
    Ok(pairs)
}

/// Makes every shard in `staging`, or takes the ones that an earlier run has finished.
fn pack(pairs: &[Pair], rules: &Rules, options: &PackOptions, staging: &Path) -> anyhow::Result<Vec<Finished>> {
    let mut finished = Vec::new();
    let mut done = 0;
    while let Some(shard) = resume(finished.len(), &pairs[done..], rules, staging, &options.out) {
        done += shard.shard.records as usize;
        finished.push(shard);
    }
    if done > 0 {
        log::info!("going on after {} finished shards, {done} of {} records", finished.len(), pairs.len());
    }
    let bar = progress_bar(pairs.len(), done);
    let mut open = OpenShard::new(rules);
    let mut turns = Turns::default();
    let chunk = 16 * rayon::current_num_threads();
    for pairs in pairs[done..].chunks(chunk) {
        let packed: Vec<_> = pairs.par_iter().map(|pair| Packed::read(pair, rules).inspect(|_| bar.inc(1))).collect();
        for packed in packed {
            let packed = packed.map_err(|error| fault::classified(options.input.explained(error)))?;
            turns.count(&packed);
            open.push(packed);
            if open.bytes >= options.shard_bytes {
                finished.push(std::mem::replace(&mut open, OpenShard::new(rules)).close(finished.len(), staging)?);
            }
        }
    }
    if !open.records.is_empty() {
        finished.push(open.close(finished.len(), staging)?);
    }
    bar.finish_and_clear();
    turns.tell();
    Ok(finished)
}

/// Images whose EXIF block asks for a turn: how many, and the first.
#[derive(Default)]
struct Turns {
    done: Vec<String>,
    not_done: Vec<String>,
}

impl Turns {
    fn count(&mut self, packed: &Packed) {
        match packed.turn {
            Turn::None => {}
            Turn::Done => self.done.push(packed.record.name.clone()),
            Turn::NotDone => self.not_done.push(packed.record.name.clone()),
        }
    }

    fn tell(&self) {
        if let Some(first) = self.done.first() {
            log::info!(
                "{} images are turned upright as EXIF asks, like their labels (first: {first})",
                self.done.len()
            );
        }
        if let Some(first) = self.not_done.first() {
            log::warn!(
                "{} images ask in EXIF to be turned, but their labels are not upright: left as stored (first: {first})",
                self.not_done.len()
            );
        }
    }
}

/// The records that the next shard has so far.
struct OpenShard {
    records: Vec<Record>,
    bytes: usize,
    inputs: blake3::Hasher,
    pixels: Vec<u64>,
    seen: Vec<Vec<u8>>,
}

impl OpenShard {
    fn new(rules: &Rules) -> OpenShard {
        OpenShard { records: Vec::new(), bytes: 0, inputs: inputs(rules), pixels: vec![0; 256], seen: Vec::new() }
    }

    fn push(&mut self, packed: Packed) {
        self.bytes += packed.record.byte_len();
        self.inputs.update(packed.stamp.as_bytes());
        self.pixels.iter_mut().zip(packed.pixels).for_each(|(sum, count)| *sum += count);
        self.seen.push((0..=255).filter(|value| packed.pixels[usize::from(*value)] > 0).collect());
        self.records.push(packed.record);
    }

    fn close(self, number: usize, staging: &Path) -> anyhow::Result<Finished> {
        let shard = write_shard(staging, number, &self.records).map_err(fault::classified)?;
        let inputs = self.inputs.finalize().to_hex().to_string();
        let finished = Finished { inputs, shard, pixels: self.pixels, seen: self.seen };
        let note = note_file(staging, number);
        durable::write(&note, &serde_json::to_vec(&finished)?).with_context(|| note.display().to_string())?;
        Ok(finished)
    }
}

/// Shard `number` of an earlier run, if it is whole and made of the first of `pairs`. It is in `out` where that run
/// was interrupted while it moved the shards.
fn resume(number: usize, pairs: &[Pair], rules: &Rules, staging: &Path, out: &Path) -> Option<Finished> {
    let finished: Finished = serde_json::from_slice(&fs::read(note_file(staging, number)).ok()?).ok()?;
    let mut inputs = inputs(rules);
    for pair in pairs.get(..finished.shard.records as usize)? {
        inputs.update(sample::stamp(pair).ok()?.as_bytes());
    }
    let whole = |dir: &Path| {
        let bytes = fs::read(dir.join(shard_name(number)));
        bytes.is_ok_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == finished.shard.blake3)
    };
    let same = finished.inputs == inputs.finalize().to_hex().as_str() && finished.pixels.len() == 256;
    (same && (whole(staging) || whole(out))).then_some(finished)
}

/// The hash of what a shard is made of, before its first sample.
fn inputs(rules: &Rules) -> blake3::Hasher {
    let mut inputs = blake3::Hasher::new();
    inputs.update(rules.stamp.as_bytes());
    inputs
}

fn note_file(staging: &Path, number: usize) -> PathBuf {
    staging.join(format!("{}.made-from", shard_name(number)))
}

/// Moves the shards to `out`, index.json last; interrupted anywhere, it can be done again.
fn publish(index: &Index, staging: &Path, out: &Path) -> anyhow::Result<()> {
    // From here until the end there is no set in `out`, rather than a mixture of two.
    let old = out.join(INDEX_FILE);
    if old.exists() {
        fs::rename(&old, staging.join(INDEX_FILE))?;
    }
    for shard in &index.shards {
        let made = staging.join(&shard.file);
        if made.exists() {
            fs::rename(made, out.join(&shard.file))?;
        }
    }
    let mut number = index.shards.len();
    while out.join(shard_name(number)).exists() {
        fs::remove_file(out.join(shard_name(number)))?;
        number += 1;
    }
    index.write(out)?;
    fs::remove_dir_all(staging)?;
    File::open(out)?.sync_all()?;
    Ok(())
}

/// Keeps a second `segdist pack` out of the folder; the lock ends with the process.
fn lock(staging: &Path) -> anyhow::Result<File> {
    let folder = File::open(staging)?;
    match rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => bad_input!("{}: another process packs there", staging.display()),
        // File systems without locks are used without.
        Ok(()) | Err(_) => Ok(folder),
    }
}

fn progress_bar(length: usize, done: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("packing {bar:40} {pos}/{len} images, {per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length as u64).with_style(style).with_position(done as u64)
}
