//! Lists of image and label files: odgt lists, and pairs of folders.

use super::decode;
use super::folders::{self, Matched};
use super::instances::{self, Instances};
use super::label_rule::LabelRule;
use super::source::DataError;
use super::walk::{open_file, read_file, regular_file};
use crate::fault::Kind;
use crate::retry;
use crate::shard::MAX_PIXELS;
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use serde::Deserialize;
use std::fs;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

/// A line of a list names two files; what is longer is none.
const MAX_LINE: u64 = 1 << 20;

/// An image file and its label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The image's path as the list gives it, or under its folder.
    pub name: String,
    /// Where the image is.
    pub image: PathBuf,
    /// Where the label map is.
    pub label: PathBuf,
    /// (width, height): the list's word in an odgt list, the header's in folders; the upright size of an image whose
    /// label has that.
    pub size: (u32, u32),
}

impl Pair {
    /// Decodes the image's bytes to RGB, turned upright where that is its size, and checks its size against the
    /// list's. Returns whether EXIF asked for a turn.
    pub fn decode_image(&self, bytes: &[u8], rgb: &mut Vec<u8>) -> Result<bool, DataError> {
        let (size, turned) = decode::image_of_size(bytes, rgb, self.size)
            .map_err(|error| DataError::Decode(self.image.display().to_string(), error))?;
        self.check(&self.image, size, "the list")?;
        Ok(turned)
    }

    /// Decodes the label file's bytes to those that `rule` makes of them, and checks their size against the image's.
    pub fn decode_label(&self, rule: &LabelRule, bytes: &[u8], values: &mut Vec<u8>) -> Result<(), DataError> {
        let size = rule.read(&self.label, bytes, values)?;
        self.check(&self.label, size, "its image")
    }

    fn check(&self, file: &Path, found: (u32, u32), told_by: &str) -> Result<(), DataError> {
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

/// One line of an odgt list, as the reference writes them; without a size, the image's header has it.
#[derive(Deserialize)]
struct OdgtLine {
    fpath_img: String,
    fpath_segm: String,
    width: Option<u32>,
    height: Option<u32>,
}

/// Reads an odgt list (gzipped if its name ends in `.gz`): a JSON object a line, with paths under `root`.
pub fn odgt(path: &Path, root: &Path) -> Result<List, DataError> {
    let (listed, id) = retry::read(path, || read_odgt(path, root))?;
    if listed.is_empty() {
        return Err(DataError::Empty(path.into()));
    }
    let pairs: Vec<_> = listed.into_par_iter().map(Listed::measured).collect();
    Ok(List { pairs: pairs.into_iter().collect::<Result<Vec<_>, _>>()?, id })
}

fn read_odgt(path: &Path, root: &Path) -> Result<(Vec<Listed>, String), DataError> {
    let read_error = |error| DataError::Read(path.into(), error);
    let file = regular_file(path).map_err(read_error)?;
    let gzipped = path.extension().is_some_and(|extension| extension == "gz");
    let plain: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut reader = BufReader::new(plain);
    let mut hasher = blake3::Hasher::new();
    let (mut pairs, mut line, mut number) = (Vec::new(), Vec::new(), 0);
    while read_line(&mut reader, &mut line).map_err(read_error)? {
        hasher.update(&line);
        number += 1;
        let text = line.strip_prefix("\u{feff}".as_bytes()).filter(|_| number == 1).unwrap_or(&line).trim_ascii();
        if !text.is_empty() {
            pairs.push(odgt_line(text, root).map_err(|what| DataError::ListLine(path.into(), number, what))?);
        }
    }
    Ok((pairs, hasher.finalize().to_hex().to_string()))
}

/// Reads a line with its end; false after the last.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let length = reader.take(MAX_LINE).read_until(b'\n', line)?;
    if length as u64 == MAX_LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has a line of more than a megabyte: it is no list"));
    }
    Ok(length > 0)
}

/// Files that are listed together, and their size where the list says it.
struct Listed {
    image: PathBuf,
    label: PathBuf,
    name: String,
    size: Option<(u32, u32)>,
}

fn odgt_line(text: &[u8], root: &Path) -> Result<Listed, String> {
    let OdgtLine { fpath_img, fpath_segm, width, height } =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let size = match (width, height) {
        (Some(width), Some(height)) => Some((width, height)),
        (None, None) => None,
        _ => return Err(format!("{fpath_img} has a width or a height alone")),
    };
    let pixels = size.map_or(1, |(width, height)| u64::from(width) * u64::from(height));
    if pixels == 0 || pixels > MAX_PIXELS {
        let (width, height) = size.unwrap_or_default();
        return Err(format!("{fpath_img} cannot have {width} x {height} pixels"));
    }
    Ok(Listed { image: root.join(&fpath_img), label: root.join(&fpath_segm), name: fpath_img, size })
}

/// Pairs every image anywhere under `images`, in the order of their paths, with its label under `labels` (see
/// [`folders::pair`]).
pub fn folders(images: &Path, labels: &Path, suffix: Option<&str>) -> Result<List, DataError> {
    let Matched { files, images_alone, rule, left_out, .. } = folders::pair(images, labels, suffix)?;
    if let Some(alone) = images_alone.first() {
        let (image, label) = (images.join(alone), labels.join(Path::new(alone).with_extension("png")));
        return Err(DataError::NoLabel { image, label });
    }
    if let Some(rule) = rule {
        log::info!("{}: {rule}", labels.display());
    }
    left_out.iter().for_each(|line| log::info!("{line}"));
    paired(images, files)
}

/// The images of a file of outlines, which is the label of each, under `images`.
pub fn instances(file: &Path, instances: &Instances, images: &Path) -> Result<Vec<Pair>, DataError> {
    let pair = |image: &instances::Image| Pair {
        name: image.name.clone(),
        image: images.join(&image.name),
        label: file.into(),
        size: image.size,
    };
    let pairs: Vec<Pair> = instances.images.iter().map(pair).collect();
    if pairs.is_empty() {
        return Err(DataError::Empty(file.into()));
    }
    Ok(pairs)
}

/// Makes the list of (image, label, name), looking for every file and reading the size from every image's header.
pub fn paired(origin: &Path, files: Vec<(PathBuf, PathBuf, String)>) -> Result<List, DataError> {
    if files.is_empty() {
        return Err(DataError::Empty(origin.into()));
    }
    let listed = files.into_par_iter().map(|(image, label, name)| Listed { image, label, name, size: None });
    let measured: Vec<_> = listed.map(Listed::measured).collect();
    let pairs = measured.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut hasher = blake3::Hasher::new();
    for pair in &pairs {
        hasher.update(format!("{}\n{} {}\n", pair.name, pair.size.0, pair.size.1).as_bytes());
    }
    Ok(List { pairs, id: hasher.finalize().to_hex().to_string() })
}

impl Listed {
    fn measured(self) -> Result<Pair, DataError> {
        let Listed { image, label, name, size } = self;
        if let Some(size) = size {
            return Ok(Pair { name, image, label, size });
        }
        match retry::read(&label, || fs::metadata(&label)) {
            Ok(about) if about.is_file() => {}
            Err(error) if Kind::of(&error) == Kind::Passing => return Err(DataError::Read(label, error)),
            _ => return Err(DataError::NoLabel { image, label }),
        }
        let mut size = header(&image)?;
        let file = open_file(&image).map_err(|error| DataError::Read(image.clone(), error))?;
        if let Some(upright) = decode::upright_size(BufReader::new(file)).filter(|upright| *upright != size)
            && header(&label).is_ok_and(|label| label == upright)
        {
            size = upright;
        }
        Ok(Pair { name, image, label, size })
    }
}

/// (width, height) by a file's header.
fn header(path: &Path) -> Result<(u32, u32), DataError> {
    let read_error = |error| DataError::Read(path.into(), error);
    let file = open_file(path).map_err(read_error)?;
    match decode::size(BufReader::new(file)) {
        Ok(size) => Ok(size),
        // A decoder does not tell a read that failed from a damaged header: the whole file does.
        Err(_) => {
            let mut bytes = Vec::new();
            read_file(path, &mut bytes).map_err(read_error)?;
            decode::size(Cursor::new(bytes)).map_err(|error| DataError::Decode(path.display().to_string(), error))
        }
    }
}
