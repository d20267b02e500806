//! Pairs of folders: which label file belongs to which image.
//!
//! Names are compared without their endings. Labels that are called otherwise throughout are found by what all their
//! names have in common: the first of these rules that finds most labels holds for the whole set.

use super::source::DataError;
use super::walk::{self, stem, walk};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Images and labels, brought together.
#[derive(Debug, Default)]
pub struct Matched {
    /// (image, label, name of the image), in the order of the images.
    pub files: Vec<(PathBuf, PathBuf, String)>,
    /// Relative paths of images without a label.
    pub images_alone: Vec<String>,
    /// Relative paths of labels without an image.
    pub labels_alone: Vec<String>,
    /// How the names go together, where they are not the same.
    pub rule: Option<String>,
    /// What lies below the images' folder besides images, in words.
    pub left_out: Option<String>,
}

/// Parts of names that do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Affixes {
    prefix: String,
    suffix: String,
}

/// Where a name's folder counts, and where capitals do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    images: Affixes,
    labels: Affixes,
    folders: bool,
    capitals: bool,
}

/// Brings the images anywhere below `images` together with the files below `labels`; `suffix` is what stands behind
/// the image's stem in the label's name, None to find that out.
pub fn pair(images: &Path, labels: &Path, suffix: Option<&str>) -> Result<Matched, DataError> {
    let inside = walk::real(labels) != walk::real(images);
    let found = walk(images, inside.then_some(labels))?;
    if found.images.is_empty() {
        return Err(found.nothing(images));
    }
    let mut label_names = walk(labels, None)?;
    let left_out = found.left_out(images);
    let mut image_names = found.images;
    if let (false, Some(suffix)) = (inside, suffix) {
        // One folder for both: the suffix tells labels from images.
        label_names.images.retain(|name| stem(name).ends_with(suffix));
        image_names.retain(|name| !stem(name).ends_with(suffix));
    }
    // An empty folder is told image by image.
    if label_names.images.is_empty() && !label_names.others.is_empty() {
        return Err(label_names.nothing(labels));
    }
    let rules = rules(&image_names, &label_names.images, suffix);
    let matches = |rule: &Rule| rule.pairs(&image_names, &label_names.images);
    let mut best: Option<(usize, &Rule, Vec<Option<usize>>)> = None;
    for rule in &rules {
        let found = matches(rule);
        let count = found.iter().flatten().count();
        if best.as_ref().is_none_or(|(most, ..)| count > *most) {
            best = Some((count, rule, found));
        }
        if count == image_names.len() {
            break;
        }
    }
    let Some((_, rule, found)) = best else { unreachable!("there is always the rule of equal names") };
    let matched = matched(images, labels, &image_names, &label_names.images, &found);
    Ok(Matched { rule: rule.text(&rules[0]), left_out, ..matched })
}

fn matched(
    images: &Path,
    labels: &Path,
    image_names: &[String],
    label_names: &[String],
    found: &[Option<usize>],
) -> Matched {
    let mut used = vec![false; label_names.len()];
    let mut matched = Matched::default();
    for (name, label) in image_names.iter().zip(found) {
        match label {
            Some(at) => {
                used[*at] = true;
                matched.files.push((images.join(name), labels.join(&label_names[*at]), name.clone()));
            }
            None => matched.images_alone.push(name.clone()),
        }
    }
    let alone = label_names.iter().zip(used).filter(|(_, used)| !used);
    matched.labels_alone.extend(alone.map(|(name, _)| name.clone()));
    matched
}

/// What names may have in common, the plainest first.
fn rules(images: &[String], labels: &[String], suffix: Option<&str>) -> Vec<Rule> {
    let plain = Affixes::default();
    let named = |suffix: &str| Affixes { prefix: String::new(), suffix: suffix.into() };
    let mut affixes = vec![(plain.clone(), named(suffix.unwrap_or("")))];
    if suffix.is_none() {
        affixes.extend(appended(images, labels).map(|suffix| (plain.clone(), named(&suffix))));
        affixes.push((common(images), common(labels)));
    }
    let ways = [(true, true), (true, false), (false, true), (false, false)];
    let rule = |(images, labels): &(Affixes, Affixes), (folders, capitals)| {
        let (images, labels) = (images.clone(), labels.clone());
        Rule { images, labels, folders, capitals }
    };
    affixes.iter().flat_map(|pair| ways.map(|way| rule(pair, way))).collect()
}

impl Rule {
    /// For every image the label of the same key; among labels of one key the first, PNG before others.
    fn pairs(&self, images: &[String], labels: &[String]) -> Vec<Option<usize>> {
        let mut by_key: BTreeMap<String, usize> = BTreeMap::new();
        let mut twice = Vec::new();
        for (at, label) in labels.iter().enumerate() {
            let Some(key) = self.key(label, &self.labels) else { continue };
            match by_key.get(&key) {
                Some(&other) if stem(&labels[other]) != stem(label) => twice.push(key),
                Some(_) if !label.to_lowercase().ends_with(".png") => {}
                _ => _ = by_key.insert(key, at),
            }
        }
        // Without folders or capitals a key may mean two labels; then it means none.
        twice.iter().for_each(|key| _ = by_key.remove(key));
        images.iter().map(|image| by_key.get(&self.key(image, &self.images)?).copied()).collect()
    }

    fn key(&self, name: &str, affixes: &Affixes) -> Option<String> {
        let (folder, name) = stem(name).rsplit_once('/').unwrap_or(("", stem(name)));
        let key = name.strip_prefix(affixes.prefix.as_str())?.strip_suffix(affixes.suffix.as_str())?;
        let key = if self.folders { format!("{folder}/{key}") } else { key.to_string() };
        Some(if self.capitals { key } else { key.to_lowercase() })
    }

    fn text(&self, plain: &Rule) -> Option<String> {
        if self == plain {
            return None;
        }
        let pattern = |affixes: &Affixes| format!("{}NAME{}", affixes.prefix, affixes.suffix);
        let mut text = format!("the label of {} is {}", pattern(&self.images), pattern(&self.labels));
        text += if self.folders { "" } else { ", in any folder" };
        text += if self.capitals { "" } else { ", in capitals or not" };
        Some(text)
    }
}

/// The suffix that stands behind most images' stems in the labels' names.
fn appended(images: &[String], labels: &[String]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let labels: std::collections::BTreeSet<&str> = labels.iter().map(|label| base(label)).collect();
    for image in images {
        let image = base(image);
        let longer = labels.range(image..).take_while(|label| label.starts_with(image));
        for label in longer.take(16) {
            *counts.entry(&label[image.len()..]).or_insert(0) += 1;
        }
    }
    let (suffix, _) = counts.into_iter().filter(|(suffix, _)| !suffix.is_empty()).max_by_key(|&(_, count)| count)?;
    Some(suffix.into())
}

/// What all names start and end with, less the digits next to what differs: 01 and 02 are numbers, not 1 and 2.
fn common(names: &[String]) -> Affixes {
    let names: Vec<Vec<char>> = names.iter().map(|name| base(name).chars().collect()).collect();
    let Some((first, rest)) = names.split_first() else { return Affixes::default() };
    let shortest = names.iter().map(Vec::len).min().unwrap_or(0);
    let same = |at: &usize| rest.iter().all(|name| name[*at] == first[*at]);
    let prefix = (0..shortest).take_while(same).count();
    let last = |name: &[char], at: usize| name[name.len() - 1 - at];
    let same = |at: &usize| rest.iter().all(|name| last(name, *at) == last(first, *at));
    let suffix = (0..shortest - prefix).take_while(same).count();
    let is_digit = |letter: char| letter.is_ascii_digit();
    let prefix: String = first[..prefix].iter().collect();
    let suffix: String = first[first.len() - suffix..].iter().collect();
    Affixes { prefix: prefix.trim_end_matches(is_digit).into(), suffix: suffix.trim_start_matches(is_digit).into() }
}

fn base(name: &str) -> &str {
    stem(name).rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(images: &[&str], labels: &[&str], suffix: Option<&str>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (folder, names) in [("images", images), ("labels", labels)] {
            for name in names {
                let path = dir.path().join(folder).join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, b"x").unwrap();
            }
        }
        let (images, labels) = (dir.path().join("images"), dir.path().join("labels"));
        let matched = pair(&images, &labels, suffix).unwrap();
        matched.files.iter().map(|(_, label, _)| label.strip_prefix(&labels).unwrap().display().to_string()).collect()
    }

    #[test]
    fn labels_are_found_by_stem_whatever_the_ending() {
        assert_eq!(labels(&["a.JPG", "b/c.jpeg"], &["a.PNG", "b/c.tif"], None), ["a.PNG", "b/c.tif"]);
        assert_eq!(labels(&["a.jpg"], &["a.bmp", "a.png", "a.tif"], None), ["a.png"]);
        assert_eq!(labels(&["A.jpg"], &["a.png"], None), ["a.png"]);
        assert_eq!(labels(&["x/a.jpg", "y/b.jpg"], &["a.png", "b.png"], None), ["a.png", "b.png"]);
    }

    #[test]
    fn other_names_are_found_by_what_they_have_in_common() {
        assert_eq!(labels(&["a.jpg", "b.jpg"], &["a_mask.png", "b_mask.png"], None), ["a_mask.png", "b_mask.png"]);
        assert_eq!(labels(&["a.jpg"], &["a_mask.png", "a_edge.png"], Some("_edge")), ["a_edge.png"]);
        assert_eq!(labels(&["img_01.jpg", "img_02.jpg"], &["lab_01.png", "lab_02.png"], None).len(), 2);
        let city = (["x1_leftImg8bit.png", "y2_leftImg8bit.png"], ["x1_gtFine.png", "y2_gtFine.png"]);
        assert_eq!(labels(&city.0, &city.1, None), city.1);
    }

    #[test]
    fn what_is_alone_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["i/a.jpg", "i/b.jpg", "l/a.png", "l/c.png", "i/.DS_Store", "i/Thumbs.db", "i/._a.jpg"] {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        let matched = pair(&dir.path().join("i"), &dir.path().join("l"), None).unwrap();
        assert_eq!((matched.files.len(), matched.rule), (1, None));
        assert_eq!((matched.images_alone, matched.labels_alone), (vec!["b.jpg".into()], vec!["c.png".into()]));
    }

    #[test]
    fn links_in_circles_end_and_what_is_no_image_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for link in ["one", "two"] {
            std::os::unix::fs::symlink(".", dir.path().join(link)).unwrap();
        }
        for name in ["a.heic", "b.HEIC", "c.txt"] {
            std::fs::write(dir.path().join(name), b"x").unwrap();
        }
        let error = pair(dir.path(), dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("2 .heic files, 1 .txt files") && error.contains(".webp"), "{error}");
    }
}
