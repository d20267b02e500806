//! Resized pixels are PIL's, image and label alike. `golden/resize.py` wrote what they are compared with.

use proptest::prelude::*;
use segdist::data::resize::{Image, Resizer, nearest, round_up, target_size};
use serde_json::Value;

/// The noise of `golden/resize.py`.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 24) as u8
        })
        .collect()
}

/// Stored whole as hexadecimal digits, or as its CRC-32.
fn assert_stored(got: &[u8], stored: &Value, case: &Value) {
    match stored.as_str() {
        Some(digits) => {
            let got: String = got.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(got, digits, "{case}");
        }
        None => assert_eq!(u64::from(crc32fast::hash(got)), stored.as_u64().unwrap(), "{case}"),
    }
}

fn resize(resizer: &mut Resizer, width: u32, height: u32, pixels: &[u8], flip: bool, target: (u32, u32)) -> Vec<u8> {
    let mut out = vec![0; (target.0 * target.1 * 3) as usize];
    resizer.resize(Image { width, height, pixels }, flip, target, &mut out, target.0 as usize * 3);
    out
}

#[test]
fn images_and_labels_equal_pil() {
    let cases: Value = serde_json::from_str(include_str!("../golden/resize.json")).unwrap();
    let mut resizer = Resizer::default();
    for case in cases.as_array().unwrap() {
        let pair = |key: &str| {
            let edge = |i: usize| case[key][i].as_u64().unwrap() as u32;
            (edge(0), edge(1))
        };
        let ((width, height), target) = (pair("source"), pair("target"));

        let image = noise((width * height * 3) as usize);
        assert_stored(&resize(&mut resizer, width, height, &image, false, target), &case["image"], case);

        let label = &noise((width * height) as usize);
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        nearest(width, target.0, &mut columns);
        nearest(height, target.1, &mut rows);
        let pixels = rows.iter().flat_map(|y| columns.iter().map(move |x| label[(y * width + x) as usize]));
        assert_stored(&pixels.collect::<Vec<u8>>(), &case["label"], case);
    }
}

#[test]
fn sizes_are_truncated_like_the_reference() {
    assert_eq!(target_size((683, 512), 300, 1000), (400, 300));
    assert_eq!(target_size((512, 683), 600, 1000), (600, 800));
    assert_eq!(target_size((2000, 400), 300, 1000), (1000, 200));
    assert_eq!(target_size((1, 100_000), 300, 1000), (1, 1000));
    assert_eq!((round_up(400, 8), round_up(401, 8), round_up(5, 1)), (400, 408, 5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flip_is_a_mirrored_source(width in 1u32..40, height in 1u32..20, to in (1u32..40, 1u32..40)) {
        let pixels = noise((width * height * 3) as usize);
        let rows = pixels.chunks(width as usize * 3);
        let mirrored: Vec<u8> = rows.flat_map(|row| row.chunks(3).rev().flatten().copied()).collect();
        let mut resizer = Resizer::default();
        let flipped = resize(&mut resizer, width, height, &pixels, true, to);
        prop_assert_eq!(flipped, resize(&mut resizer, width, height, &mirrored, false, to));
    }

    #[test]
    fn one_colour_stays_that_colour(width in 1u32..300, height in 1u32..30, to in (1u32..300, 1u32..30), value: u8) {
        let pixels = vec![value; (width * height * 3) as usize];
        let out = resize(&mut Resizer::default(), width, height, &pixels, false, to);
        prop_assert!(out.iter().all(|&v| v == value));
    }
}
