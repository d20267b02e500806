//! Lists of image and label files: odgt lists, and pairs of folders.

use super::decode::{self, DecodeError};
use super::source::DataError;
use crate::fault::Kind;
use crate::retry;
use crate::shard::MAX_PIXELS;
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use serde::Deserialize;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

/// An image file and its label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The image's path as the list gives it, or under its folder.
    pub name: String,
    /// Where the image is.
    pub image: PathBuf,
    /// Where the label map is.
    pub label: PathBuf,
    /// (width, height): the list's word in an odgt list, the header's in folders.
    pub size: (u32, u32),
}

impl Pair {
    /// Decodes the image's bytes to RGB and checks its size against the list's.
    pub fn decode_image(&self, bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(), DataError> {
        let size = decode::image(bytes, rgb);
        self.check(&self.image, size, "the list")
    }

    /// Decodes the label map's bytes and checks its size against the image's.
    pub fn decode_label(&self, bytes: &[u8], values: &mut Vec<u8>) -> Result<(), DataError> {
        let size = decode::label(bytes, values);
        self.check(&self.label, size, "its image")
    }

    fn check(&self, file: &Path, size: Result<(u32, u32), DecodeError>, told_by: &str) -> Result<(), DataError> {
        let found = size.map_err(|error| DataError::Decode(file.display().to_string(), error))?;
        if found == self.size {
            return Ok(());
        }
        Err(DataError::size(file.display(), found, told_by, self.size))
    }
}

/// Pairs in their order, and what identifies them.
#[derive(Debug)]
pub struct List {
    /// At least one.
    pub pairs: Vec<Pair>,
    /// Equal for equal contents.
    pub id: String,
}

/// One line of an odgt list, as the reference writes them.
#[derive(Deserialize)]
struct OdgtLine {
    fpath_img: String,
    fpath_segm: String,
    width: u32,
    height: u32,
}

/// Reads an odgt list (gzipped if its name ends in `.gz`): a JSON object a line, with paths under `root`.
pub fn odgt(path: &Path, root: &Path) -> Result<List, DataError> {
    let text = retry::read(path, || read_text(path)).map_err(|error| DataError::Read(path.into(), error))?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |what: String| DataError::ListLine(path.into(), number + 1, what);
        let OdgtLine { fpath_img, fpath_segm, width, height } =
            serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels > MAX_PIXELS {
            return Err(bad(format!("{fpath_img} cannot have {width} x {height} pixels")));
        }
        let (image, label) = (root.join(&fpath_img), root.join(&fpath_segm));
        pairs.push(Pair { name: fpath_img, image, label, size: (width, height) });
    }
    if pairs.is_empty() {
        return Err(DataError::Empty(path.into()));
    }
    Ok(List { pairs, id: blake3::hash(text.as_bytes()).to_hex().to_string() })
}

/// Pairs every JPEG or PNG file anywhere under `images`, in the order of their paths, with the PNG file of the same
/// relative path under `labels`.
pub fn folders(images: &Path, labels: &Path) -> Result<List, DataError> {
    let mut names = Vec::new();
    image_names(images, Path::new(""), &mut names)?;
    let pairs = names.into_iter().map(|name| {
        let label = labels.join(Path::new(&name).with_extension("png"));
        (images.join(&name), label, name)
    });
    paired(images, pairs.collect())
}

/// Makes the list of (image, label, name), looking for every file and reading the size from every image's header.
pub fn paired(origin: &Path, files: Vec<(PathBuf, PathBuf, String)>) -> Result<List, DataError> {
    if files.is_empty() {
        return Err(DataError::Empty(origin.into()));
    }
    let measured: Vec<_> = files.into_par_iter().map(|(image, label, name)| measure(image, label, name)).collect();
    let pairs = measured.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut hasher = blake3::Hasher::new();
    for pair in &pairs {
        hasher.update(format!("{}\n{} {}\n", pair.name, pair.size.0, pair.size.1).as_bytes());
    }
    Ok(List { pairs, id: hasher.finalize().to_hex().to_string() })
}

fn measure(image: PathBuf, label: PathBuf, name: String) -> Result<Pair, DataError> {
    match retry::read(&label, || fs::metadata(&label)) {
        Ok(about) if about.is_file() => {}
        Err(error) if Kind::of(&error) == Kind::Passing => return Err(DataError::Read(label, error)),
        _ => return Err(DataError::NoLabel { image, label }),
    }
    let read_error = |error| DataError::Read(image.clone(), error);
    let file = retry::read(&image, || File::open(&image)).map_err(read_error)?;
    let size = match decode::size(BufReader::new(file)) {
        Ok(size) => size,
        // A decoder does not tell a read that failed from a damaged header: the whole file does.
        Err(_) => {
            let bytes = retry::read(&image, || fs::read(&image)).map_err(read_error)?;
            decode::size(Cursor::new(bytes)).map_err(|error| DataError::Decode(image.display().to_string(), error))?
        }
    };
    Ok(Pair { name, image, label, size })
}

/// Appends the relative paths of the images below `root`/`under`, sorted; hidden files are no images.
pub fn image_names(root: &Path, under: &Path, names: &mut Vec<String>) -> Result<(), DataError> {
    let folder = root.join(under);
    let read = |error| DataError::Read(folder.clone(), error);
    let mut entries = retry::read(&folder, || fs::read_dir(&folder)?.collect::<Result<Vec<_>, _>>()).map_err(read)?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let file_name = entry.file_name();
        let name = file_name.to_str().ok_or_else(|| DataError::FileName(entry.path()))?;
        let relative = under.join(name);
        if name.starts_with('.') {
            continue;
        } else if entry.path().is_dir() {
            image_names(root, &relative, names)?;
        } else if is_image(&relative) {
            names.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png"))
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        MultiGzDecoder::new(file).read_to_string(&mut text)?;
    } else {
        BufReader::new(file).read_to_string(&mut text)?;
    }
    Ok(text)
}
