//! Files that appear whole or not at all, through the public surface.

use segdist::durable::{self, Unfinished};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("report.html");
    for text in ["one", "two"] {
        durable::write(&path, text.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    durable::write_unsynced(&path, b"three").unwrap();
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path())), ("three", vec!["report.html".into()]));
}

#[test]
fn one_that_is_not_published_leaves_the_old_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config.yaml");
    durable::write(&path, b"old").unwrap();
    let mut unfinished = Unfinished::create(&path).unwrap();
    unfinished.file().write_all(b"ne").unwrap();
    drop(unfinished);
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), names(dir.path())), ("old", vec!["config.yaml".into()]));
}

#[test]
fn a_link_planted_under_the_temporary_or_the_true_name_leads_to_no_other_file() {
    let dir = TempDir::new().unwrap();
    let (path, victim) = (dir.path().join("shard.seg"), dir.path().join("victim"));
    fs::write(&victim, "precious").unwrap();
    let temporary = Unfinished::create(&path).unwrap().path().to_owned();
    for link in [&temporary, &path] {
        let _ = fs::remove_file(&path);
        symlink(&victim, link).unwrap();
        durable::write(&path, b"shard").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(path.symlink_metadata().unwrap().is_file(), "{}", link.display());
    }
    symlink(&victim, dir.path().join("link")).unwrap();
    assert!(durable::create_new(&dir.path().join("link")).is_err());
}

#[test]
fn of_two_writers_at_once_one_fails_and_the_file_is_whole() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let mut first = Unfinished::create(&path).unwrap();
    first.file().write_all(b"the whole of the first").unwrap();
    let mut second = Unfinished::create(&path).unwrap();
    second.file().write_all(b"half").unwrap();
    assert!(first.publish().unwrap_err().to_string().contains("another process"));
    assert!(!path.exists());
    second.file().write_all(b" and half").unwrap();
    second.publish().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "half and half");
}
