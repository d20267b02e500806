//! Tiny image and label files for tests.

use std::fs;
use std::path::Path;

/// Writes a PNG file of one byte a channel.
pub fn png(path: &Path, (width, height): (u32, u32), color: png::ColorType, data: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
    encoder.set_color(color);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
}

/// An image under `root`/images and its label map, all of one value, under `root`/labels.
pub fn pair(root: &Path, name: &str, size: (u32, u32), value: u8) {
    let pixels = (size.0 * size.1) as usize;
    // Not all of one colour, so that the file has some length.
    let noise: Vec<u8> = (0..pixels * 3).map(|i| (i * i * 31 + i * 7 + usize::from(value)) as u8).collect();
    png(&root.join(format!("images/{name}.png")), size, png::ColorType::Rgb, &noise);
    png(&root.join(format!("labels/{name}.png")), size, png::ColorType::Grayscale, &vec![value; pixels]);
}

/// The line of an odgt list for such a pair.
#[allow(dead_code)] // not every test file lists
pub fn line(name: &str, width: u32, height: u32) -> String {
    format!(
        "{{\"fpath_img\": \"images/{name}.png\", \"fpath_segm\": \"labels/{name}.png\", \"width\": {width}, \"height\": {height}}}\n"
    )
}

/// Every file of a folder with its bytes, by name.
#[allow(dead_code)] // not every test file packs
pub fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}
