//! The images that paths stand for.

use crate::bad_input;
use crate::data::walk::{ENDINGS, has_image_ending};
use anyhow::Context;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Files as they are, and every image below folders, sorted; what lies in `out` is not an input.
///
/// # Errors
/// A path that does not exist, no image at all, two images whose results would have the same name.
pub fn find(paths: &[PathBuf], out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for path in paths {
        if path.is_dir() {
            search(path, out, &mut images)?;
        } else if path.is_file() {
            images.push(path.clone());
        } else {
            bad_input!("{}: there is no such image or folder", path.display());
        }
    }
    images.sort();
    images.dedup();
    let mut stems: BTreeMap<&OsStr, &Path> = BTreeMap::new();
    for image in &images {
        if let Some(other) = stems.insert(image.file_stem().unwrap_or_default(), image) {
            let (other, image) = (other.display(), image.display());
            bad_input!(
                "{other} and {image} have the same stem, so one's results would replace the other's; rename one"
            );
        }
        if image.to_str().is_none() {
            bad_input!("{}: the file name is not UTF-8; rename it", image.display());
        }
    }
    if images.is_empty() {
        bad_input!(
            "no image (.{}) in {}",
            ENDINGS.join(", ."),
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(images)
}

/// Adds the images below `folder`; links to folders are not followed, for they can lead in circles.
fn search(folder: &Path, out: &Path, images: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("{}: cannot be read", folder.display()))?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if hidden || is_same(&path, out) {
            continue;
        } else if kind.is_dir() {
            search(&path, out, images)?;
        } else if has_image_ending(&path) && path.is_file() {
            images.push(path);
        }
    }
    Ok(())
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
