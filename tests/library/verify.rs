//! Damage: every flipped bit and every cut in any file of a set is found by `verify`, and no reader crashes on it or
//! gives out other pixels.

use crate::data_files::{contents, pair};
use segdist::data::DatasetConfig;
use segdist::data::dataset::Dataset;
use segdist::data::source::Sample;
use segdist::fault::BadInput;
use segdist::pack::{Input, PackOptions};
use segdist::{pack, verify};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A set of two shards with four tiny records.
fn packed(root: &Path) -> PathBuf {
    for (i, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        pair(root, name, (5, 4), i as u8 + 1);
    }
    let input = Input::Folders { images: root.join("images"), labels: root.join("labels"), suffix: None };
    let out = root.join("set");
    pack::run(&PackOptions { shard_bytes: 200, ..PackOptions::new(input, &out) }).unwrap();
    out
}

/// All samples of a set; what cannot be read is None.
fn samples(dir: &Path) -> Vec<Option<(Vec<u8>, Vec<u8>)>> {
    let Ok(source) = Dataset::open(&DatasetConfig::default(), dir.to_str().unwrap()) else {
        return vec![None; 4];
    };
    let read = |i| {
        let mut sample = Sample::default();
        source.read(i, &mut sample).ok().map(|()| (sample.image, sample.label))
    };
    (0..source.len()).map(read).collect()
}

/// Whether `verify` refuses the set, as bad input.
fn refused(dir: &Path) -> bool {
    verify::run(dir).is_err_and(|error| error.is::<BadInput>() && !error.to_string().contains('\n'))
}

#[test]
fn ten_thousand_flipped_bits_are_all_found_and_no_reader_gives_other_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let set = packed(dir.path());
    assert!(verify::run(&set).is_ok());
    let good = samples(&set);
    let files = contents(&set);
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut random = 1u64;
    for round in 0..10_000 {
        // Knuth's linear congruential generator; the high bits choose a bit of the whole set.
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (mut at, bit) = ((random >> 33) as usize % (total * 8) / 8, (random >> 33) as usize % 8);
        let (name, bytes) = files
            .iter()
            .find(|(_, bytes)| {
                bytes.len() > at || {
                    at -= bytes.len();
                    false
                }
            })
            .unwrap();
        // In place: rewriting the file would wait for the disk.
        let file = fs::OpenOptions::new().write(true).open(set.join(name)).unwrap();
        file.write_all_at(&[bytes[at] ^ (1 << bit)], at as u64).unwrap();
        assert!(!verify::check(&set).is_empty(), "{name} byte {at} bit {bit}");
        if round % 10 == 0 {
            for (sample, good) in samples(&set).iter().zip(&good) {
                assert!(sample.is_none() || sample == good, "{name} byte {at} bit {bit}");
            }
        }
        file.write_all_at(&[bytes[at]], at as u64).unwrap();
    }
    assert!(verify::run(&set).is_ok());
}

#[test]
fn files_cut_at_any_length_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let set = packed(dir.path());
    for (name, bytes) in contents(&set) {
        for length in (0..bytes.len()).step_by(13) {
            fs::write(set.join(&name), &bytes[..length]).unwrap();
            assert!(!verify::check(&set).is_empty(), "{name} cut to {length}");
            assert!(Dataset::open(&DatasetConfig::default(), set.to_str().unwrap()).is_err(), "{name} cut to {length}");
        }
        fs::write(set.join(&name), &bytes).unwrap();
    }
}

#[test]
fn each_bad_record_and_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let set = packed(dir.path());
    let shard = set.join("shard-00000.seg");
    let mut bytes = fs::read(&shard).unwrap();
    let last = bytes.len() - 65; // in the last record's block
    bytes[last] ^= 1;
    fs::write(&shard, bytes).unwrap();
    fs::remove_file(set.join("shard-00001.seg")).unwrap();
    let errors: Vec<String> = verify::check(&set).iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("shard-00000.seg: record ") && errors[0].contains(".png: the "), "{errors:?}");
    assert!(errors[1].contains("shard-00001.seg: "), "{errors:?}");
    assert!(refused(&set));
    fs::remove_file(set.join("index.json")).unwrap();
    assert!(verify::run(&set).unwrap_err().to_string().contains("index.json"));
}
