//! What label map files say.

use super::*;
use crate::data::label_map::IGNORED;

fn label(values: Values, palette: &[[u8; 3]]) -> RawLabel {
    RawLabel { size: (1, 1), values, palette: palette.to_vec(), lossy: false, format: "a PNG file" }
}

fn translate(yaml: &str, label: RawLabel) -> Result<Vec<u8>, String> {
    let mut bytes = vec![9; 3];
    LabelFile::parse(yaml).unwrap().translate(label, &mut bytes).map(|()| bytes)
}

#[test]
fn small_values_make_a_map_of_bytes() {
    let file = LabelFile::parse("7: 0\n8: 1\n255: ignore\n").unwrap();
    let map = file.byte_map().unwrap();
    assert_eq!((map.class(7), map.class(8), map.class(255), map.class(0)), (Some(0), Some(1), Some(IGNORED), None));
    assert_eq!(map.first_unmapped(&[7, 255, 9]), Some(9));
    assert_eq!(file.check(2), Ok(()));
    assert_eq!(file.check(1), Err(LabelMapError::AboveNumClass("8".into(), 1, 1)));
    for wider in ["300: 0", "\"#010203\": 0", "1: 0\ndefault: ignore", "1: 0\nnearest: 3"] {
        assert!(LabelFile::parse(wider).unwrap().byte_map().is_none(), "{wider}");
    }
    assert_eq!(LabelFile::parse("1: 0\ndefault: ignore").unwrap().over_bytes().class(200), Some(IGNORED));
}

#[test]
fn what_is_wrong_in_a_map_is_named() {
    assert!(matches!(LabelFile::parse("- 1"), Err(LabelMapError::Yaml(_))));
    assert!(matches!(LabelFile::parse("1: 2\n1: 3"), Err(LabelMapError::Yaml(_))));
    assert_eq!(LabelFile::parse("65536: 0"), Err(LabelMapError::Key("65536".into())));
    assert_eq!(LabelFile::parse("\"#12\": 0"), Err(LabelMapError::Key("'#12'".into())));
    assert_eq!(LabelFile::parse("3: void"), Err(LabelMapError::Class("3".into(), "void".into())));
    assert_eq!(LabelFile::parse("3: -1"), Err(LabelMapError::Class("3".into(), "-1".into())));
    assert_eq!(LabelFile::parse("3: 255"), Err(LabelMapError::Class("3".into(), "255".into())));
    assert!(matches!(LabelFile::parse("names: 3"), Err(LabelMapError::Extra("names", _))));
    assert!(matches!(LabelFile::parse("colors: [red]"), Err(LabelMapError::Extra("colors", _))));
    assert!(LabelFile::parse("names: [a]\ncolors: []\n").is_ok());
}

#[test]
fn colours_wide_values_and_indices_become_classes() {
    let colors = "\"#c80000\": 1\n\"#0080FF\": 0\ndefault: ignore\n";
    let values = Values::Color(vec![[200, 0, 0], [200, 0, 0], [0, 128, 255], [1, 2, 3]]);
    assert_eq!(translate(colors, label(values, &[])), Ok(vec![2, 2, 1, 0]));
    assert_eq!(translate("0: 0\n300: 1\n", label(Values::Word(vec![300, 0]), &[])), Ok(vec![2, 1]));
    // Three equal channels are a value where the map names values, and a colour where it names colours.
    let equal = || Values::Color(vec![[4, 4, 4]]);
    assert_eq!(translate("4: 2\n300: 1\n", label(equal(), &[])), Ok(vec![3]));
    assert_eq!(translate("\"#040404\": 2\n", label(equal(), &[])), Ok(vec![3]));
    // A palette is looked up where the map names colours.
    let palette = [[0, 0, 0], [200, 0, 0]];
    assert_eq!(translate(colors, label(Values::Byte(vec![1, 0]), &palette)), Ok(vec![2, 0]));
    assert_eq!(translate("1: 5\n300: 0\n", label(Values::Byte(vec![1]), &palette)), Ok(vec![6]));
}

#[test]
fn values_without_a_class_are_listed_with_counts_and_the_nearest() {
    let values = || Values::Color(vec![[199, 0, 0], [199, 0, 0], [200, 0, 0]]);
    let error = translate("\"#c80000\": 0\n", label(values(), &[])).unwrap_err();
    assert!(error.contains("#c70000 (2 pixels, nearest #c80000 at distance 1)"), "{error}");
    assert_eq!(translate("\"#c80000\": 0\nnearest: 1\n", label(values(), &[])), Ok(vec![1, 1, 1]));
    assert!(translate("0: 0\n400: 1\n", label(Values::Word(vec![7]), &[])).unwrap_err().contains("7 (1 pixels"));
}

#[test]
fn what_jpeg_did_to_a_mask_is_explained_and_undone_on_request() {
    let blurred: Vec<[u8; 3]> = (0..20).map(|i| [200 - i, i, 0]).collect();
    let file = "\"#c80000\": 0\n";
    assert!(translate(file, label(Values::Color(blurred.clone()), &[])).unwrap_err().contains("--nearest-color"));
    let lossy = RawLabel { lossy: true, ..label(Values::Color(blurred.clone()), &[]) };
    assert!(translate(file, lossy).unwrap_err().contains("save it without loss"));
    let lossy = RawLabel { lossy: true, ..label(Values::Color(blurred), &[]) };
    assert_eq!(translate("\"#c80000\": 0\nnearest: 40\n", lossy), Ok(vec![1; 20]));
}
