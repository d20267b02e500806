//! The record format: what is written is read back, and every way a file can be wrong is told apart.

use segdist::shard::{
    Access, Classes, Codec, Fault, Index, Part, Record, Set, Shard, ShardInfo, check_shard, compress_label, set_rank,
    write_shard,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LABEL: [u8; 6] = [0, 1, 2, 3, 150, 255];

fn record(name: &str, image: &[u8]) -> Record {
    let label = compress_label(&LABEL).unwrap();
    Record { name: name.into(), width: 3, height: 2, codec: Codec::Png, image: image.into(), label }
}

/// A set of two shards: three records and one.
fn set(dir: &Path) -> Index {
    let first = [record("a", &[1; 70]), record("bb", b"image b"), record("c", &[3; 5])];
    let shards = vec![write_shard(dir, 0, &first).unwrap(), write_shard(dir, 1, &[record("d", &[4; 100])]).unwrap()];
    let (names, palette) = (Some(vec!["sky".into()]), Some(vec![[1, 2, 3]]));
    let label_map = Some([(0, None), (1, Some(0))].into());
    let index = Index::new(shards, Classes { names, palette, label_map, ..Classes::default() });
    index.write(dir).unwrap();
    index
}

fn shard_with(edit: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf, ShardInfo) {
    let dir = tempfile::tempdir().unwrap();
    let info = set(dir.path()).shards[0].clone();
    let path = dir.path().join(&info.file);
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(&path, bytes).unwrap();
    (dir, path, info)
}

fn open_fault(edit: impl FnOnce(&mut Vec<u8>)) -> Fault {
    let (_dir, path, info) = shard_with(edit);
    assert!(!check_shard(&fs::read(&path).unwrap(), &info).is_empty(), "check_shard sees what open does");
    let error = Shard::open(&path, Access::Auto).err().unwrap();
    assert!(error.to_string().contains("shard-00000.seg") && !error.to_string().contains('\n'));
    error.fault
}

/// Sets bytes of the header and makes its CRC right again.
fn header(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
}

/// Sets bytes of entries or names and makes both CRCs right again.
fn entry(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = crc32fast::hash(&bytes[64..256]);
    header(bytes, 32, &crc.to_le_bytes());
}

#[test]
fn records_are_read_back_mapped_and_by_position() {
    let dir = tempfile::tempdir().unwrap();
    let written = set(dir.path());
    for access in [Access::Auto, Access::Mmap, Access::Pread] {
        let set = Set::open(dir.path(), access).unwrap();
        assert_eq!(set.index, written);
        assert_eq!(set.entries().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["a", "bb", "c", "d"]);
        let expected: [&[u8]; 4] = [&[1; 70], b"image b", &[3; 5], &[4; 100]];
        for (i, image) in expected.into_iter().enumerate() {
            let (shard, record) = set.locate(i);
            let (mut scratch, mut label) = (Vec::new(), Vec::new());
            assert_eq!(shard.image(record, &mut scratch).unwrap(), image);
            shard.label(record, &mut scratch, &mut label).unwrap();
            assert_eq!(label, LABEL);
        }
    }
}

#[test]
fn nothing_unfinished_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["index.json", "shard-00000.seg", "shard-00001.seg"]);
}

#[test]
fn each_wrong_header_is_told_apart() {
    assert!(matches!(open_fault(|b| b.clear()), Fault::NoHeader(0)));
    assert!(matches!(open_fault(|b| b.truncate(63)), Fault::NoHeader(63)));
    assert!(matches!(open_fault(|b| b[0] = b'X'), Fault::Magic));
    assert!(matches!(open_fault(|b| b[13] ^= 1), Fault::HeaderCrc));
    assert!(matches!(open_fault(|b| header(b, 8, &[2])), Fault::Version(2)));
    assert!(matches!(open_fault(|b| b.truncate(300)), Fault::Length { found: 300, .. }));
    assert!(matches!(open_fault(|b| b.push(0)), Fault::Length { .. }));
    for (at, value) in [(12, &[0; 4][..]), (12, &[255; 4]), (16, &[255; 8]), (24, &[255; 8]), (40, &[1])] {
        assert!(matches!(open_fault(|b| header(b, at, value)), Fault::Entry { record: 0, .. } | Fault::Length { .. }));
    }
}

#[test]
fn each_wrong_entry_is_told_apart() {
    let what = |at: usize, value: &[u8]| match open_fault(|b| entry(b, 64 + 48 + at, value)) {
        Fault::Entry { record, what } => (record, what),
        other => panic!("{other}"),
    };
    assert!(matches!(open_fault(|b| b[64] ^= 1), Fault::EntriesCrc));
    assert_eq!(what(0, &[0]), (1, "does not follow the record before it"));
    assert_eq!(what(8, &[255; 4]), (1, "ends past the end of the file"));
    assert_eq!(what(8, &[0; 4]), (1, "has an impossible size"));
    assert_eq!(what(16, &[255; 8]), (1, "has an impossible size"));
    assert_eq!(what(32, &[0]), (1, "has no name"));
    assert_eq!(what(32, &[100]), (1, "has a name past the end of the names"));
    assert_eq!(what(32, &[1]), (2, "is not the end of the names"));
    assert_eq!(what(36, &[9]), (1, "has an unknown codec"));
    assert_eq!(what(37, &[1]), (1, "has bytes that are not zero where they must be"));
    assert_eq!(what(48 * 2 + 1, &[0xff]), (1, "has a name that is not UTF-8"));
    assert_eq!(what(48 * 2 + 4, &[1]), (2, "is not the end of the names"));
}

#[test]
fn a_damaged_record_is_named_when_read_and_the_others_are_not() {
    for access in [Access::Mmap, Access::Pread] {
        // Record bb starts where a's 70 bytes, its label and the padding end.
        let (_dir, path, info) = shard_with(|b| {
            let at = b.windows(7).position(|window| window == b"image b").unwrap();
            b[at] ^= 4;
        });
        let shard = Shard::open(&path, access).unwrap();
        let mut scratch = Vec::new();
        assert!(shard.image(0, &mut scratch).is_ok() && shard.image(2, &mut scratch).is_ok());
        let error = shard.image(1, &mut scratch).unwrap_err();
        assert!(matches!(&error.fault, Fault::RecordCrc { name, part: Part::Image } if name == "bb"));
        assert!(error.to_string().contains("shard-00000.seg: record bb: the image"));
        let faults = check_shard(&fs::read(&path).unwrap(), &info);
        assert!(matches!(&faults[..], [Fault::RecordCrc { .. }]));
    }
}

#[test]
fn a_shard_that_shrinks_under_its_reader_is_an_error() {
    for access in [Access::Mmap, Access::Pread] {
        let (_dir, path, _) = shard_with(|bytes| bytes.truncate(bytes.len()));
        let shard = Shard::open(&path, access).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        let error = shard.image(0, &mut Vec::new()).unwrap_err();
        assert!(matches!(&error.fault, Fault::Truncated { name, part: Part::Image } if name == "a"), "{error}");
    }
}

/// Not a test of its own: the process of the next test, which touches bytes that their file has lost.
#[test]
fn child_that_touches_lost_bytes() {
    let Ok(path) = std::env::var("SEGDIST_TEST_LOST_SHARD") else { return };
    set_rank(3);
    let shard = Shard::open(Path::new(&path), Access::Mmap).unwrap();
    let mut scratch = Vec::new();
    let image = shard.image(0, &mut scratch).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    println!("{}", image.iter().map(|&byte| u32::from(byte)).sum::<u32>());
}

#[test]
fn bytes_lost_between_check_and_use_end_the_process_naming_shard_and_rank() {
    let (_dir, path, _) = shard_with(|_| ());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "shards::child_that_touches_lost_bytes", "--nocapture"])
        .env("SEGDIST_TEST_LOST_SHARD", &path);
    let ended = child.output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{stderr}");
    let expected = format!("segdist: rank 3: {}: was truncated or replaced", path.display());
    assert!(stderr.contains(&expected), "{stderr}");
}

#[test]
fn a_label_that_unpacks_to_another_size_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for values in [&LABEL[..5], &[7; 7]] {
        let label = compress_label(values).unwrap();
        let info = write_shard(dir.path(), 0, &[Record { label, ..record("a", b"x") }]).unwrap();
        let path = dir.path().join(&info.file);
        let shard = Shard::open(&path, Access::Auto).unwrap();
        let error = shard.label(0, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error.fault, Fault::LabelFrame { .. }));
        assert!(matches!(check_shard(&fs::read(&path).unwrap(), &info)[..], [Fault::LabelFrame { .. }]));
    }
}

#[test]
fn padding_and_hash_are_checked_by_verify() {
    let (_dir, path, info) = shard_with(|bytes| *bytes.last_mut().unwrap() = 1);
    assert!(Shard::open(&path, Access::Auto).is_ok());
    assert!(matches!(check_shard(&fs::read(&path).unwrap(), &info)[..], [Fault::Padding(at)] if at == info.bytes - 1));
    let (_dir, path, info) = shard_with(|_| {});
    let other = ShardInfo { blake3: "0".repeat(64), ..info };
    assert!(matches!(check_shard(&fs::read(&path).unwrap(), &other)[..], [Fault::Hash]));
}

#[test]
fn a_sound_shard_in_anothers_place_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let index = set(dir.path());
    fs::copy(dir.path().join("shard-00001.seg"), dir.path().join("shard-00000.seg")).unwrap();
    let error = Set::open(dir.path(), Access::Auto).err().unwrap();
    assert!(matches!(error.fault, Fault::Other) && error.to_string().contains("shard-00000.seg"));
    let bytes = fs::read(dir.path().join("shard-00000.seg")).unwrap();
    assert!(matches!(check_shard(&bytes, &index.shards[0])[..], [Fault::Other]));
}

#[test]
fn each_wrong_index_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    set(dir.path());
    let file = dir.path().join("index.json");
    let text = fs::read_to_string(&file).unwrap();
    // Edits the text and makes its CRC right again.
    let with = |from: &str, to: &str| {
        let body = text.replacen(from, to, 1);
        let body = &body[..body.len() - 12];
        fs::write(&file, format!("{body}{:08x}\"\n}}\n", crc32fast::hash(body.as_bytes()))).unwrap();
        Index::read(dir.path()).unwrap_err().fault
    };
    assert!(matches!(with("\"version\": 1", "\"version\": 2"), Fault::Version(2)));
    assert!(matches!(with("segdist", "another"), Fault::IndexForm(_)));
    assert!(matches!(with("\"records\": 4", "\"records\": 5"), Fault::IndexForm(_)));
    assert!(matches!(with("shard-00001.seg", "../x/00001.seg"), Fault::IndexForm(_)));
    assert!(matches!(with("\"sky\"", "\"sea\""), Fault::IndexForm(_)));
    assert!(matches!(with("\"shards\"", "\"shard_\""), Fault::IndexForm(_)));
    fs::write(&file, text.replace("sky", "sea")).unwrap();
    assert!(matches!(Index::read(dir.path()).unwrap_err().fault, Fault::IndexCrc));
    fs::write(&file, text.trim_end()).unwrap();
    assert!(matches!(Index::read(dir.path()).unwrap_err().fault, Fault::IndexCrc));
    fs::remove_file(&file).unwrap();
    assert!(matches!(Index::read(dir.path()).unwrap_err().fault, Fault::NoIndex));
}
