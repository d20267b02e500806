//! Files of every container, mode, depth and compression decode to what Pillow makes of them (golden/containers.py).

use crate::golden;
use segdist::data::decode;
use serde::Deserialize;
use std::io::Cursor;

#[derive(Deserialize)]
struct Golden {
    width: u32,
    height: u32,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    name: String,
    file: String,
    crc32: String,
    /// Of files with loss, which decoders may read a little differently.
    rgb: Option<String>,
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// What is refused: Lab has no single meaning as RGB, the others are compressions that the decoder does not have.
fn is_refused(name: &str) -> bool {
    ["TIFF LAB", "lzma", "group3", "tiff_ccitt", "LA compression=jpeg"].iter().any(|kind| name.contains(kind))
}

#[test]
fn every_file_decodes_to_the_pixels_of_pillow() {
    let golden: Golden = golden::read("containers.json");
    let mut wrong = Vec::new();
    for File { name, file, crc32, rgb } in &golden.files {
        let file = bytes(file);
        let mut pixels = Vec::new();
        let decoded = decode::image(&file, &mut pixels);
        if is_refused(name) {
            match decoded {
                Err(error) if error.to_string().contains("is a TIFF file of") => {}
                other => wrong.push(format!("{name}: not refused by name: {other:?}")),
            }
            continue;
        }
        match decoded {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(size) if size != (golden.width, golden.height) => wrong.push(format!("{name}: {size:?}")),
            Ok(_) => match rgb {
                None if format!("{:08x}", crc32fast::hash(&pixels)) != *crc32 => wrong.push(format!("{name}: differs")),
                Some(rgb) => {
                    let far = pixels.iter().zip(bytes(rgb)).map(|(a, b)| a.abs_diff(b)).max().unwrap();
                    if far > 12 {
                        wrong.push(format!("{name}: differs by up to {far}"));
                    }
                }
                None => {}
            },
        }
        assert_eq!(decode::size(Cursor::new(&file)).unwrap(), (golden.width, golden.height), "{name}");
    }
    assert!(golden.files.len() > 90, "{}", golden.files.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), golden.files.len(), wrong.join("\n"));
}

#[test]
fn damaged_and_cut_files_are_errors_or_pixels_but_never_a_panic() {
    let golden: Golden = golden::read("containers.json");
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for File { file, .. } in &golden.files {
        let whole = bytes(file);
        for _ in 0..40 {
            let mut broken = whole.clone();
            for _ in 0..1 + next(3) {
                // Most of what is fragile stands in the first bytes.
                let at = if next(2) == 0 { next(whole.len()) } else { next(whole.len().min(80)) };
                broken[at] = [0, 255, next(256) as u8][next(3)];
            }
            if next(3) == 0 {
                broken.truncate(next(whole.len()));
            }
            let _ = decode::image(&broken, &mut Vec::new());
            let _ = decode::raw_label(&broken);
            let _ = decode::size(Cursor::new(&broken));
        }
    }
}

#[test]
fn headers_that_claim_too_much_are_refused_before_memory_is_taken() {
    let mut bmp = vec![0; 54];
    bmp[..2].copy_from_slice(b"BM");
    (bmp[10], bmp[14], bmp[26], bmp[28]) = (54, 40, 1, 24);
    for (at, value) in [(18, 100_000u32), (22, 100_000)] {
        bmp[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut tiff = b"II*\0\x08\0\0\0\x07\0".to_vec();
    for (tag, value) in [(256u16, 100_000u32), (257, 100_000), (258, 8), (262, 1), (273, 8), (278, 100_000), (279, 8)] {
        tiff.extend(tag.to_le_bytes());
        tiff.extend([4, 0, 1, 0, 0, 0]);
        tiff.extend(value.to_le_bytes());
    }
    tiff.extend([0; 4]);
    for file in [bmp, tiff] {
        let error = decode::image(&file, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("100000 x 100000") || error.contains("BMP"), "{error}");
    }
}
