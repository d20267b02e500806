//! A folder of shards, as `segdist pack` writes it.

use super::super::decode;
use super::super::label_map::LabelMap;
use super::super::{DatasetConfig, Io};
use super::{BYTES, DataError, Form, Opened, Source};
use crate::fault::Kind;
use crate::retry;
use crate::shard::{Access, Codec, INDEX_FILE, Set, Shard};
use crate::stages::{self, Stage};
use std::fs;
use std::path::{Path, PathBuf};

/// Any folder: one without index.json is told so.
pub const FORM: Form = Form { name: "a folder of shards (with index.json)", open };

fn open(config: &DatasetConfig, list: &str) -> Opened {
    let dir = Path::new(list);
    if !is_folder(dir)? {
        return Ok(None);
    }
    let access = match config.io {
        Io::Auto => Access::Auto,
        Io::Mmap => Access::Mmap,
        Io::Pread => Access::Pread,
    };
    let set = Set::open(dir, access)?;
    let sizes = set.entries().map(|entry| (entry.width, entry.height)).collect();
    Ok(Some(Box::new(Shards { set, sizes, index: dir.join(INDEX_FILE) })))
}

/// Whether there is a folder of this name; an error where the system cannot tell.
fn is_folder(path: &Path) -> Result<bool, DataError> {
    match retry::read(path, || fs::metadata(path)) {
        Ok(about) => Ok(about.is_dir()),
        Err(error) if Kind::of(&error) == Kind::Input => Ok(false),
        Err(error) => Err(DataError::Read(path.into(), error)),
    }
}

struct Shards {
    set: Set,
    sizes: Vec<(u32, u32)>,
    index: PathBuf,
}

impl Source for Shards {
    fn sizes(&self) -> &[(u32, u32)] {
        &self.sizes
    }

    fn name(&self, index: usize) -> &str {
        let (shard, record) = self.set.locate(index);
        &shard.entries()[record].name
    }

    fn id(&self) -> &str {
        self.set.index.dataset_id()
    }

    fn image(&self, index: usize, rgb: &mut Vec<u8>) -> Result<(), DataError> {
        let (shard, record) = self.set.locate(index);
        BYTES.with_borrow_mut(|scratch| {
            let decode = match shard.entries()[record].codec {
                Codec::UprightJpeg => decode::image_upright,
                Codec::Jpeg | Codec::Png => decode::image,
            };
            let bytes = shard.image(record, scratch)?;
            let size = stages::time(Stage::Decode, || decode(bytes, rgb))
                .map_err(|error| DataError::Decode(place(shard, record), error))?;
            if size != self.sizes[index] {
                return Err(DataError::size(place(shard, record), size, "its entry", self.sizes[index]));
            }
            Ok(())
        })
    }

    fn label(&self, index: usize, values: &mut Vec<u8>) -> Result<(), DataError> {
        let (shard, record) = self.set.locate(index);
        Ok(BYTES.with_borrow_mut(|scratch| shard.label(record, scratch, values))?)
    }

    fn label_place(&self, index: usize) -> String {
        let (shard, record) = self.set.locate(index);
        place(shard, record)
    }

    fn label_map(&self) -> Option<(PathBuf, LabelMap)> {
        self.set.index.label_map().map(|entries| (self.index.clone(), LabelMap::from_entries(&entries)))
    }

    fn translates(&self) -> bool {
        self.set.index.translated()
    }

    fn seen(&self) -> Option<Vec<Vec<u8>>> {
        self.set.index.seen()
    }

    fn class_names(&self) -> Option<&[String]> {
        self.set.index.classes.as_deref()
    }

    fn class_pixels(&self) -> Option<&[u64]> {
        self.set.index.pixels.as_deref()
    }

    fn palette(&self) -> Option<&[[u8; 3]]> {
        self.set.index.palette.as_deref()
    }
}

fn place(shard: &Shard, record: usize) -> String {
    format!("{}: record {}", shard.path().display(), shard.entries()[record].name)
}
