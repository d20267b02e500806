//! Small files of every kind, made here.

use super::*;
use ::png::{BitDepth, ColorType};

fn png_bytes(width: u32, height: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette((0..48).collect::<Vec<u8>>());
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}

#[test]
fn every_8_bit_png_becomes_rgb_without_alpha() {
    let cases: [(ColorType, &[u8], [u8; 6]); 5] = [
        (ColorType::Rgb, &[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
        (ColorType::Rgba, &[1, 2, 3, 0, 4, 5, 6, 9], [1, 2, 3, 4, 5, 6]),
        (ColorType::Grayscale, &[7, 8], [7, 7, 7, 8, 8, 8]),
        (ColorType::GrayscaleAlpha, &[7, 0, 8, 0], [7, 7, 7, 8, 8, 8]),
        (ColorType::Indexed, &[1, 2], [3, 4, 5, 6, 7, 8]),
    ];
    for (color, data, expected) in cases {
        let mut rgb = vec![9; 100];
        assert_eq!(image(&png_bytes(2, 1, color, BitDepth::Eight, data), &mut rgb), Ok((2, 1)));
        assert_eq!(rgb, expected, "{color:?}");
    }
}

#[test]
fn labels_are_grey_values_or_palette_indices() {
    let mut values = Vec::new();
    let grey = png_bytes(3, 1, ColorType::Grayscale, BitDepth::Eight, &[0, 150, 255]);
    assert_eq!(label(&grey, &mut values), Ok((3, 1)));
    assert_eq!(values, [0, 150, 255]);
    let indices = png_bytes(3, 2, ColorType::Indexed, BitDepth::Four, &[0x12, 0x30, 0x45, 0x60]);
    assert_eq!(label(&indices, &mut values), Ok((3, 2)));
    assert_eq!(values, [1, 2, 3, 4, 5, 6]);
    let bits = png_bytes(9, 1, ColorType::Indexed, BitDepth::One, &[0b1010_0001, 0x80]);
    assert_eq!(label(&bits, &mut values), Ok((9, 1)));
    assert_eq!(values, [1, 0, 1, 0, 0, 0, 0, 1, 1]);
}

#[test]
fn deeper_samples_become_rgb_as_in_pillow() {
    let mut rgb = Vec::new();
    let deep = png_bytes(1, 1, ColorType::Rgb, BitDepth::Sixteen, &[1, 200, 2, 0, 255, 255]);
    assert_eq!(image(&deep, &mut rgb), Ok((1, 1)));
    assert_eq!(rgb, [1, 2, 255]);
    let grey = png_bytes(3, 1, ColorType::Grayscale, BitDepth::Sixteen, &[0, 7, 1, 0, 255, 255]);
    assert_eq!(image(&grey, &mut rgb), Ok((3, 1)));
    assert_eq!(rgb, [7, 7, 7, 255, 255, 255, 255, 255, 255]);
    let bits = png_bytes(3, 1, ColorType::Grayscale, BitDepth::Two, &[0b0001_1100]);
    assert_eq!(image(&bits, &mut rgb), Ok((3, 1)));
    assert_eq!(rgb, [0, 0, 0, 85, 85, 85, 255, 255, 255]);
}

#[test]
fn what_has_no_single_meaning_as_a_label_is_refused_by_name() {
    let mut out = Vec::new();
    let rgb = png_bytes(1, 1, ColorType::Rgb, BitDepth::Eight, &[200, 0, 9]);
    assert!(label(&rgb, &mut out).unwrap_err().to_string().contains("#c80009"));
    let deep = png_bytes(1, 1, ColorType::Rgb, BitDepth::Sixteen, &[0, 1, 0, 0, 0, 0]);
    assert!(label(&deep, &mut out).unwrap_err().to_string().contains("16-bit RGB"));
    let wide = png_bytes(1, 1, ColorType::Grayscale, BitDepth::Sixteen, &[1, 44]);
    assert_eq!(label(&wide, &mut out), Err(DecodeError::WideLabel(300)));
    assert_eq!(image(b"GIF89a", &mut out), Err(DecodeError::Format));
    assert_eq!(image(b"", &mut out), Err(DecodeError::Format));
}

#[test]
fn three_equal_channels_and_small_values_of_16_bits_are_label_values() {
    let mut values = Vec::new();
    let rgb = png_bytes(2, 1, ColorType::Rgb, BitDepth::Eight, &[4, 4, 4, 9, 9, 9]);
    assert_eq!(label(&rgb, &mut values), Ok((2, 1)));
    assert_eq!(values, [4, 9]);
    let wide = png_bytes(2, 1, ColorType::Grayscale, BitDepth::Sixteen, &[0, 7, 0, 255]);
    assert_eq!(label(&wide, &mut values), Ok((2, 1)));
    assert_eq!(values, [7, 255]);
}

#[test]
fn a_png_cut_anywhere_in_its_data_is_an_error() {
    let whole = png_bytes(8, 8, ColorType::Rgb, BitDepth::Eight, &[77; 192]);
    let data_end = whole.len() - 12 - 4; // the last chunk (IEND) and the CRC before it
    for length in 0..data_end {
        assert!(image(&whole[..length], &mut Vec::new()).is_err(), "{length} of {}", whole.len());
    }
}
