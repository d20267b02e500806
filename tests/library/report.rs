//! Reports: label maps read back with their classes, overlays that show them, tables in order, readable event files.

use segdist::metrics::Confusion;
use segdist::report::overlay::{self, Image};
use segdist::report::palette::Classes;
use segdist::report::tensorboard::EventWriter;
use segdist::report::{matrix, picture, table};
use std::io::Cursor;

/// Decodes a PNG without expanding its palette.
fn decode(png: &[u8]) -> (png::Info<'static>, Vec<u8>) {
    let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    (reader.info().clone(), pixels)
}

#[test]
fn a_label_map_holds_class_indices_and_their_colours() {
    let classes = Classes::new(3, None, Some(&[[9, 8, 7], [1, 2, 3], [4, 5, 6]]));
    let labels = [0u8, 1, 2, 2, 255, 0];
    let (info, indices) = decode(&picture::label_map(3, 2, &labels, &classes.colours).unwrap());
    assert_eq!(info.color_type, png::ColorType::Indexed);
    assert_eq!(indices, labels);
    assert_eq!(&info.palette.unwrap()[..9], [9, 8, 7, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn an_overlay_keeps_the_image_at_its_corner_and_names_the_classes_beside_it() {
    let classes = Classes::new(2, Some(&["road".into(), "tree".into()]), Some(&[[200, 0, 0], [0, 0, 200]]));
    let pixels = [100u8; 3 * 64 * 48];
    let labels: Vec<u8> = (0..64 * 48).map(|at| u8::from(at % 64 >= 16)).collect();
    let image = Image { width: 64, height: 48, pixels: &pixels };
    let canvas = overlay::overlay(image, &labels, &classes);
    assert!(canvas.width > 64 && canvas.height >= 48);
    assert_eq!(&canvas.pixels[..3], [150, 50, 50]);
    let count = |colour: [u8; 3]| canvas.pixels.as_chunks::<3>().0.iter().filter(|pixel| **pixel == colour).count();
    assert!(count([200, 0, 0]) >= 64, "a swatch of the road's colour");
    assert!(count([0, 0, 200]) >= 64, "a swatch of the tree's colour");
    assert_eq!(overlay::shares(&labels, 2), [(1, 0.75), (0, 0.25)]);
}

#[test]
fn ignored_pixels_are_not_coloured_and_count_in_no_class() {
    let classes = Classes::new(1, None, None);
    let image = Image { width: 2, height: 1, pixels: &[10, 20, 30, 40, 50, 60] };
    assert_eq!(overlay::blend(image, &[255, 255], &classes), image.pixels);
    assert_eq!(overlay::shares(&[255, 0], 1), [(0, 0.5)]);
    overlay::comparison(image, &[255, 255], &[0, 0], &classes).png().unwrap();
}

#[test]
fn the_class_table_runs_from_best_to_worst_and_ends_with_absent_classes() {
    let mut confusion = Confusion::new(3);
    confusion.add(&[0i64, 0, 0, 0, 2, 2], &[0i64, 0, 2, 2, 2, 2]);
    let names = ["worst".to_string(), "absent".into(), "best".into()];
    let text = table::per_class(&confusion, &Classes::new(3, Some(&names), None));
    let order: Vec<usize> = names.iter().map(|name| text.find(name.as_str()).unwrap()).collect();
    assert!(order[0] < order[1] && order[2] < order[1], "{text}");
    assert!(text.contains("0.5000") && text.contains("66.67%"), "{text}");
}

#[test]
fn a_name_of_megabytes_makes_no_larger_picture() {
    let long = "x".repeat(2 << 20);
    let classes = Classes::new(2, Some(&[long, "short".into()]), None);
    let mut confusion = Confusion::new(2);
    confusion.add(&[0i64, 1, 1], &[1i64, 1, 0]);
    assert!(matrix::picture(&confusion, &classes, 5).width < 4000);
    let (pixels, labels) = (vec![0u8; 3 * 40 * 60_000], vec![0u8; 40 * 60_000]);
    let image = Image { width: 40, height: 60_000, pixels: &pixels };
    assert!(overlay::overlay(image, &labels, &classes).width < 1000);
}

/// Splits an event file into its records' data, checking lengths.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        records.push(bytes[12..12 + length].to_vec());
        bytes = &bytes[12 + length + 4..];
    }
    records
}

#[test]
fn an_event_file_is_a_row_of_whole_records_that_name_their_tags() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(folder.path(), 0).unwrap();
    writer.scalars(1, &[("train/loss", 1.5), ("train/lr", 0.02)]).unwrap();
    let picture = picture::rgb(1, 1, &[1, 2, 3]).unwrap();
    writer.image(1, "sample", (1, 1), &picture).unwrap();
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
    assert!(file.file_name().to_str().unwrap().starts_with("events.out.tfevents."));
    let records = records(&std::fs::read(file.path()).unwrap());
    let holds = |record: &[u8], text: &[u8]| record.windows(text.len()).any(|window| window == text);
    assert_eq!(records.len(), 4);
    assert!(holds(&records[0], b"brain.Event:2"));
    assert!(holds(&records[2], b"train/loss") && holds(&records[2], &1.5f32.to_le_bytes()));
    assert!(holds(&records[3], b"sample") && holds(&records[3], &picture));
}
