//! The image files below a folder, and what else lies there.

use super::decode::Format;
use super::source::DataError;
use crate::retry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Endings of image files, in lower case; a file with another one is an image if it starts like one.
pub const ENDINGS: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "tif", "tiff", "bmp", "dib", "webp"];

/// What desktops leave behind, beside all that starts with a dot.
const LITTER: [&str; 4] = ["thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx"];

/// What lies below a folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Relative paths of the images, folder by folder, sorted by name.
    pub images: Vec<String>,
    /// Other files: how many of each ending.
    pub others: BTreeMap<String, usize>,
}

impl Found {
    /// What was found in place of images, and what would be one.
    pub fn nothing(&self, folder: &Path) -> DataError {
        let there = self.other_files().map_or("it is empty".into(), |others| format!("there are {others}"));
        DataError::NoImages(folder.into(), format!("{there}; {}", images_are()))
    }

    /// A line on the files of `folder` that are no images, if there are any.
    pub fn left_out(&self, folder: &Path) -> Option<String> {
        Some(format!("{}: {} are left out; {}", folder.display(), self.other_files()?, images_are()))
    }

    /// `3 .heic files, 1 .txt files`, at most a few kinds.
    fn other_files(&self) -> Option<String> {
        const MOST: usize = 5;
        let kinds = self.others.iter().take(MOST).map(|(ending, count)| format!("{count} {ending} files"));
        let more = self.others.len().checked_sub(MOST + 1).map(|more| format!("{} other kinds", more + 1));
        let kinds: Vec<String> = kinds.chain(more).collect();
        (!kinds.is_empty()).then(|| kinds.join(", "))
    }
}

/// What files are images, for messages about those that are none.
pub fn images_are() -> String {
    format!("images are .{}", ENDINGS.join(", ."))
}

/// Whether a file's name ends as an image's does.
pub fn has_image_ending(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Looks through a folder and all below it but `except`. Links are followed, and each folder is entered once, so that
/// links in circles end.
pub fn walk(root: &Path, except: Option<&Path>) -> Result<Found, DataError> {
    let except = except.and_then(|folder| folder.canonicalize().ok());
    let mut walk = Walk { root, except, entered: BTreeSet::new(), found: Found::default() };
    walk.folder(Path::new(""))?;
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    /// Free of links.
    except: Option<PathBuf>,
    /// Device and inode.
    entered: BTreeSet<(u64, u64)>,
    found: Found,
}

impl Walk<'_> {
    fn folder(&mut self, under: &Path) -> Result<(), DataError> {
        let folder = self.root.join(under);
        let read = |error| DataError::Read(folder.clone(), error);
        let about = retry::read(&folder, || fs::metadata(&folder)).map_err(read)?;
        let excepted = self.except.is_some() && self.except == folder.canonicalize().ok();
        if excepted || !self.entered.insert((about.dev(), about.ino())) {
            return Ok(());
        }
        let list = || fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>();
        let mut entries = retry::read(&folder, list).map_err(read)?;
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            self.entry(under, &entry.path())?;
        }
        Ok(())
    }

    fn entry(&mut self, under: &Path, path: &Path) -> Result<(), DataError> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(DataError::FileName(path.into()));
        };
        if name.starts_with('.') || LITTER.contains(&name.to_lowercase().as_str()) {
            return Ok(());
        }
        // A link that leads nowhere is nothing.
        let Ok(about) = fs::metadata(path) else { return Ok(()) };
        let relative = under.join(name);
        if about.is_dir() {
            return self.folder(&relative);
        }
        if !about.is_file() {
            *self.found.others.entry("special".into()).or_insert(0) += 1;
        } else if has_image_ending(&relative) || starts_like_an_image(path) {
            self.found.images.push(relative.to_string_lossy().into_owned());
        } else {
            let ending = relative.extension().map(|ending| format!(".{}", ending.to_string_lossy().to_lowercase()));
            *self.found.others.entry(ending.unwrap_or("nameless".into())).or_insert(0) += 1;
        }
        Ok(())
    }
}

fn starts_like_an_image(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
    read.is_ok() && Format::of(&start).is_some()
}

/// The whole of a regular file, into `bytes`.
pub fn read_file(path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
    retry::read(path, || {
        bytes.clear();
        regular_file(path)?.read_to_end(bytes).map(|_| ())
    })
}

/// Opens a regular file, trying again where that may help.
pub fn open_file(path: &Path) -> io::Result<File> {
    retry::read(path, || regular_file(path))
}

/// Opens a regular file: a pipe would be waited for, and a device has no end.
pub fn regular_file(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    File::open(path)
}

/// A path without its last ending.
pub fn stem(path: &str) -> &str {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[name..].rfind('.') {
        Some(dot) if dot > 0 => &path[..name + dot],
        _ => path,
    }
}

/// `folder` and what is below it, absolute and free of links where that can be told.
pub fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.into())
}
