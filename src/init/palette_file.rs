//! Lists of classes as people and tools leave them beside their labels: a name a line, with or without a colour.
//!
//! `classes.txt` (LabelMe, plain), `labelmap.txt` of CVAT (`name:r,g,b:parts:actions`), `label_colors.txt` of CamVid
//! (`r g b name`), `class_dict.csv` (`name,r,g,b`).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const NAMES: [&str; 11] = [
    "labelmap.txt",
    "label_colors.txt",
    "class_dict.csv",
    "labelmap.csv",
    "classes.csv",
    "classes.txt",
    "class_names.txt",
    "labels.txt",
    "names.txt",
    "obj.names",
    "class_dict.txt",
];

/// A line of such a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    pub color: Option<[u8; 3]>,
}

/// The first list in one of the folders, and its path.
pub fn find(folders: &[PathBuf]) -> Option<(PathBuf, Vec<Line>)> {
    let files = folders.iter().flat_map(|folder| NAMES.map(|name| folder.join(name)));
    files.filter(|file| file.is_file()).find_map(|file| Some((file.clone(), parse(&read(&file)?)?)))
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(1 << 20).read_to_string(&mut text).ok()?;
    Some(text)
}

/// None where the text is no such list.
fn parse(text: &str) -> Option<Vec<Line>> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("//"));
    let mut parsed: Vec<Line> = lines.map(line).collect();
    // A head line of CSV has no colour where all others have one.
    let colored = parsed.iter().filter(|line| line.color.is_some()).count();
    if colored + 1 == parsed.len() && parsed.first().is_some_and(|line| line.color.is_none()) {
        parsed.remove(0);
    }
    let all_or_none = colored == 0 || colored == parsed.len();
    (!parsed.is_empty() && all_or_none && parsed.iter().all(|line| !line.name.is_empty())).then_some(parsed)
}

fn line(text: &str) -> Line {
    let separators = |c: char| matches!(c, ',' | ':' | ';' | '\t' | ' ');
    let parts: Vec<&str> = text.split(separators).map(|part| part.trim().trim_matches('"')).collect();
    let numbers: Vec<Option<u8>> = parts.iter().map(|part| part.parse().ok()).collect();
    let at = numbers.windows(3).position(|three| three.iter().all(Option::is_some));
    let Some(at) = at else { return Line { name: text.trim_matches('"').to_string(), color: None } };
    let color = [0, 1, 2].map(|channel| numbers[at + channel].unwrap_or_default());
    let words = |parts: &[&str]| parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ");
    let (before, after) = (words(&parts[..at]), words(&parts[at + 3..]));
    Line { name: if before.is_empty() { after } else { before }, color: Some(color) }
}

/// Whether a name says that its pixels are no class.
pub fn means_ignored(name: &str) -> bool {
    let plain = name.to_lowercase().replace(['_', '-', ' '], "");
    matches!(plain.as_str(), "void" | "ignore" | "ignored" | "unlabeled" | "unlabelled" | "ignorelabel" | "dontcare")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, Option<[u8; 3]>)> {
        parse(text).unwrap().into_iter().map(|line| (line.name, line.color)).collect()
    }

    #[test]
    fn lists_of_several_tools_are_read() {
        let expected = vec![("sky".to_string(), Some([1, 2, 3])), ("road way".to_string(), Some([4, 5, 6]))];
        assert_eq!(names("# label:color_rgb:parts:actions\nsky:1,2,3::\nroad way:4,5,6::\n"), expected);
        assert_eq!(names("1 2 3\tsky\n4 5 6\troad way\n"), expected);
        assert_eq!(names("name,r,g,b\r\nsky,1,2,3\r\n\"road way\",4,5,6\r\n"), expected);
        assert_eq!(names("sky\n\nroad way\n"), vec![("sky".into(), None), ("road way".into(), None)]);
        assert_eq!(parse(""), None);
        assert_eq!(parse("sky 1 2 3\nroad\ncar\n"), None);
    }
}
