//! The images that paths stand for, and what their results are called.

use crate::bad_input;
use crate::data::walk::{self, walk};
use crate::fault;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// An image to be labelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The file.
    pub image: PathBuf,
    /// What its results are called, without their endings: a path below the folder for them. No two are equal.
    pub name: PathBuf,
}

/// What was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Found {
    /// In the order of their files, each once.
    pub items: Vec<Item>,
    /// What lies in the folders besides images, and what images are; a line for each folder that holds such.
    pub left_out: Vec<String>,
}

/// Files as they are, and every image below folders; what lies in `out` is not an input.
///
/// The result of `photos/a/b.jpg` is called `b` where the file itself was named and `a/b` where the folder `photos` was. If
/// that gives a name twice, all are called by their paths below the deepest folder that holds everything that was named, and
/// files that differ in their endings alone keep them.
///
/// # Errors
/// A path that does not exist, no image at all, a name that is not UTF-8.
pub fn find(paths: &[PathBuf], out: &Path) -> anyhow::Result<Found> {
    let mut found = Found { items: Vec::new(), left_out: Vec::new() };
    for path in paths {
        if path.is_dir() {
            let inside = walk(path, Some(out)).map_err(fault::classified)?;
            found.left_out.extend(inside.left_out(path));
            let item = |name: &String| Item { image: path.join(name), name: walk::stem(name).into() };
            found.items.extend(inside.images.iter().map(item));
        } else if path.is_file() {
            let Some(name) = path.to_str() else {
                bad_input!("{}: the file name is not UTF-8; rename it", path.display())
            };
            let name = walk::stem(name).rsplit('/').next().unwrap_or_default().into();
            found.items.push(Item { image: path.clone(), name });
        } else {
            bad_input!("{}: there is no such image or folder", path.display());
        }
    }
    if found.items.is_empty() {
        let listed: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        bad_input!("{}: no image is there; {}", listed.join(", "), walk::images_are());
    }
    found.items.sort_by(|a, b| a.image.cmp(&b.image));
    found.items.dedup_by(|a, b| a.image == b.image);
    if has_twins(&found.items) {
        let top = common(paths);
        for item in &mut found.items {
            let whole = item.image.to_string_lossy();
            item.name = Path::new(walk::stem(&whole)).strip_prefix(&top).unwrap_or(&item.name).into();
        }
    }
    if has_twins(&found.items) {
        let top = common(paths);
        for item in &mut found.items {
            item.name = item.image.strip_prefix(&top).unwrap_or(&item.image).into();
        }
    }
    Ok(found)
}

fn has_twins(items: &[Item]) -> bool {
    let mut names = BTreeSet::new();
    !items.iter().all(|item| names.insert(&item.name))
}

/// The deepest folder that holds every path: of a folder itself, of a file the one it is in.
fn common(paths: &[PathBuf]) -> PathBuf {
    let folder =
        |path: &PathBuf| if path.is_dir() { path.clone() } else { path.parent().unwrap_or(path).to_path_buf() };
    let mut folders = paths.iter().map(folder);
    let first = folders.next().unwrap_or_default();
    folders.fold(first, |common, folder| {
        let above = common.ancestors().find(|above| folder.starts_with(above));
        above.unwrap_or(Path::new("")).to_path_buf()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str], arguments: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let paths: Vec<PathBuf> = arguments.iter().map(|path| dir.path().join(path)).collect();
        let found = find(&paths, &dir.path().join("out")).unwrap();
        found.items.iter().map(|item| item.name.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_file_is_called_by_its_stem_and_one_of_a_folder_by_its_path_there() {
        assert_eq!(names(&["p/a.jpg", "p/q/b.c.png"], &["p"]), ["a", "q/b.c"]);
        assert_eq!(names(&["p/a.jpg", "r/b.png"], &["p/a.jpg", "r/b.png"]), ["a", "b"]);
        assert_eq!(names(&["p/a.jpg"], &["p", "p/a.jpg"]), ["a"]);
        assert_eq!(names(&["p/a.jpg", "p/out/b.jpg", "out/c.jpg"], &["."]), ["p/a", "p/out/b"]);
    }

    #[test]
    fn equal_names_are_told_apart_by_folders_and_then_by_endings() {
        assert_eq!(names(&["p/a.jpg", "r/a.jpg"], &["p/a.jpg", "r/a.jpg"]), ["p/a", "r/a"]);
        assert_eq!(names(&["p/a.jpg", "r/s/a.jpg"], &["p", "r"]), ["a", "s/a"]);
        assert_eq!(names(&["p/a.jpg", "r/a.jpg"], &["p", "r"]), ["p/a", "r/a"]);
        assert_eq!(names(&["p/a.jpg", "p/a.png", "p/b.png"], &["p"]), ["a.jpg", "a.png", "b.png"]);
    }
}
