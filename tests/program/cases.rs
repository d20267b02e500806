//! Small data sets as people have them, made in a folder: other sizes and pixels for every seed.

use image::codecs::bmp::BmpEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::fs;
use std::path::{Path, PathBuf};
use tiff::encoder::{Compression, TiffEncoder, colortype};

/// A data set and what packing it must count.
pub struct Case {
    pub name: &'static str,
    pub folder: PathBuf,
    /// Where images and labels are, as `init` and `pack` take it.
    pub input: Vec<String>,
    /// What only `pack` takes.
    pub pack: Vec<String>,
    /// Pixels of each class.
    pub classes: Vec<u64>,
    pub images: usize,
}

/// A picture of two rectangles on a ground, and its label of 0, 1 and 2.
struct Scene {
    size: (u32, u32),
    rgb: Vec<u8>,
    label: Vec<u8>,
}

const CLASSES: [[u8; 3]; 3] = [[64, 64, 64], [200, 0, 0], [0, 128, 255]];

impl Scene {
    fn new(seed: u32, number: u32) -> Scene {
        let (width, height) = (40 + 4 * (seed % 5), 32 + 3 * (seed % 7));
        let inside =
            |x: u32, y: u32, left: u32, top: u32| (left..left + 14).contains(&x) && (top..top + 11).contains(&y);
        let class = |x: u32, y: u32| match () {
            () if inside(x, y, 3 + number, 2) => 1,
            () if inside(x, y, 22, 17 + number % 3) => 2,
            () => 0,
        };
        let pixels = || (0..height).flat_map(move |y| (0..width).map(move |x| (x, y)));
        let label: Vec<u8> = pixels().map(|(x, y)| class(x, y)).collect();
        let noise = |x: u32, y: u32| ((x * 7 + y * 13 + seed * 101 + number).wrapping_mul(2_654_435_761) >> 27) as u8;
        let rgb =
            pixels().flat_map(|(x, y)| CLASSES[class(x, y) as usize].map(|v| v.saturating_add(noise(x, y)))).collect();
        Scene { size: (width, height), rgb, label }
    }
}

fn counts<'a>(labels: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u64> {
    let mut counts = vec![0; 3];
    labels.into_iter().flatten().for_each(|&class| counts[usize::from(class)] += 1);
    counts
}

fn place(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

pub fn png(path: &Path, size: (u32, u32), color: png::ColorType, depth: png::BitDepth, pixels: &[u8]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), size.0, size.1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
}

fn png8(path: &Path, size: (u32, u32), color: png::ColorType, pixels: &[u8]) {
    png(path, size, color, png::BitDepth::Eight, pixels);
}

/// A set of three images, each written by `write(folder, number, scene)`.
fn set(name: &'static str, root: &Path, seed: u32, map: &str, write: impl Fn(&Path, u32, &Scene)) -> Case {
    let folder = root.join(format!("{name}-{seed}"));
    let scenes: Vec<Scene> = (0..3).map(|number| Scene::new(seed, number)).collect();
    for (number, scene) in (0..).zip(&scenes) {
        write(&folder, number, scene);
    }
    let text = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let input = vec!["--images".into(), text("images"), "--labels".into(), text("labels")];
    fs::write(folder.join("map.yaml"), map).unwrap();
    let pack = vec!["--label-map".into(), text("map.yaml")];
    let classes = counts(scenes.iter().map(|scene| &scene.label));
    Case { name, input, pack, classes, images: 3, folder }
}

fn image(folder: &Path, number: u32, scene: &Scene) {
    png8(&place(folder, &format!("images/{number}.png")), scene.size, png::ColorType::Rgb, &scene.rgb);
}

fn label(folder: &Path, number: u32) -> PathBuf {
    place(folder, &format!("labels/{number}.png"))
}

/// Every kind, from this seed.
pub fn all(root: &Path, seed: u32) -> Vec<Case> {
    const PLAIN: &str = "0: 0\n1: 1\n2: 2\n";
    vec![
        set("colours", root, seed, "\"#404040\": 0\n\"#c80000\": 1\n\"#0080ff\": 2\n", |folder, number, scene| {
            image(folder, number, scene);
            let colors: Vec<u8> = scene.label.iter().flat_map(|&class| CLASSES[usize::from(class)]).collect();
            png8(&label(folder, number), scene.size, png::ColorType::Rgb, &colors);
        }),
        set("16-bit", root, seed, "0: 0\n300: 1\n600: 2\n", |folder, number, scene| {
            image(folder, number, scene);
            let wide: Vec<u8> = scene.label.iter().flat_map(|&class| (u16::from(class) * 300).to_be_bytes()).collect();
            png(&label(folder, number), scene.size, png::ColorType::Grayscale, png::BitDepth::Sixteen, &wide);
        }),
        set("binary", root, seed, "0: 0\n85: 1\n255: 2\n", |folder, number, scene| {
            image(folder, number, scene);
            let values: Vec<u8> = scene.label.iter().map(|&class| [0, 85, 255][usize::from(class)]).collect();
            png8(&label(folder, number), scene.size, png::ColorType::Grayscale, &values);
        }),
        set("equal-channels", root, seed, PLAIN, |folder, number, scene| {
            image(folder, number, scene);
            let rgba: Vec<u8> = scene.label.iter().flat_map(|&class| [class, class, class, 255]).collect();
            png8(&label(folder, number), scene.size, png::ColorType::Rgba, &rgba);
        }),
        set("bmp", root, seed, PLAIN, |folder, number, scene| {
            let write = |name: &str, pixels: &[u8], color| {
                let mut file = fs::File::create(place(folder, &format!("{name}/{number}.bmp"))).unwrap();
                BmpEncoder::new(&mut file).write_image(pixels, scene.size.0, scene.size.1, color).unwrap();
            };
            write("images", &scene.rgb, ExtendedColorType::Rgb8);
            write("labels", &scene.label, ExtendedColorType::L8);
        }),
        set("tiff", root, seed, PLAIN, |folder, number, scene| {
            let encoder = |name: &str, compression| {
                let file = fs::File::create(place(folder, &format!("{name}/{number}.tif"))).unwrap();
                TiffEncoder::new(file).unwrap().with_compression(compression)
            };
            let (width, height) = scene.size;
            let mut images = encoder("images", Compression::Lzw);
            images.write_image::<colortype::RGB8>(width, height, &scene.rgb).unwrap();
            let words: Vec<u16> = scene.label.iter().map(|&class| class.into()).collect();
            let mut labels = encoder("labels", Compression::Deflate(Default::default()));
            labels.write_image::<colortype::Gray16>(width, height, &words).unwrap();
        }),
        set("names", root, seed, PLAIN, |folder, number, scene| {
            let name = place(folder, &format!("images/Bild {number} äö.PNG"));
            png8(&name, scene.size, png::ColorType::Rgb, &scene.rgb);
            let name = place(folder, &format!("labels/Bild {number} äö_mask.PNG"));
            png8(&name, scene.size, png::ColorType::Grayscale, &scene.label);
            fs::write(folder.join("images/.DS_Store"), b"litter").unwrap();
            fs::write(folder.join("labels/Thumbs.db"), b"litter").unwrap();
        }),
        coco(root, seed),
        odgt("bom", root, seed),
        odgt("nosize", root, seed),
    ]
}

fn coco(root: &Path, seed: u32) -> Case {
    let mut case = set("coco", root, seed, "", image);
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for number in 0..3 {
        let (width, height) = Scene::new(seed, number).size;
        images.push(
            serde_json::json!({ "id": number, "file_name": format!("{number}.png"), "width": width, "height": height }),
        );
        let (left, top) = (3 + number, 2);
        let corners = [left, top, left + 14, top, left + 14, top + 11, left, top + 11];
        annotations.push(serde_json::json!({ "image_id": number, "category_id": 7, "segmentation": [corners] }));
        // Columns 22 to 35, rows 17 + number % 3 on, as runs down the columns.
        let from = 17 + number % 3;
        let mut counts = vec![22 * height + from];
        (0..14).for_each(|_| counts.extend([11, height - 11]));
        *counts.last_mut().unwrap() = height * width - counts[..counts.len() - 1].iter().sum::<u32>();
        let mask = serde_json::json!({ "size": [height, width], "counts": counts });
        annotations
            .push(serde_json::json!({ "image_id": number, "category_id": 9, "iscrowd": 1, "segmentation": mask }));
    }
    let categories = serde_json::json!([{ "id": 9, "name": "crowd" }, { "id": 7, "name": "plate" }]);
    let file = serde_json::json!({ "images": images, "annotations": annotations, "categories": categories });
    let path = case.folder.join("instances.json");
    fs::write(&path, file.to_string()).unwrap();
    case.input = vec!["--images".into(), case.folder.join("images").to_str().unwrap().into()];
    case.input.extend(["--coco".into(), path.to_str().unwrap().into()]);
    case.pack.clear();
    case
}

/// Labels 1 to 3 under the reference's rule, in a list as some editors write it.
fn odgt(name: &'static str, root: &Path, seed: u32) -> Case {
    let mut case = set(name, root, seed, "", |folder, number, scene| {
        image(folder, number, scene);
        let values: Vec<u8> = scene.label.iter().map(|class| class + 1).collect();
        png8(&label(folder, number), scene.size, png::ColorType::Grayscale, &values);
    });
    let (width, height) = Scene::new(seed, 0).size;
    let line = |number| match name {
        "bom" => format!(
            "{{\"fpath_img\": \"images/{number}.png\", \"fpath_segm\": \"labels/{number}.png\", \"width\": {width}, \"height\": {height}}}\r\n"
        ),
        _ => format!("{{\"fpath_img\": \"images/{number}.png\", \"fpath_segm\": \"labels/{number}.png\"}}\n"),
    };
    let lines: String = (0..3).map(line).collect();
    let text = if name == "bom" { format!("\u{feff}{lines}") } else { lines };
    let list = case.folder.join("list.odgt");
    fs::write(&list, text).unwrap();
    case.input = vec!["--odgt".into(), list.to_str().unwrap().into()];
    case.input.extend(["--root".into(), case.folder.to_str().unwrap().into()]);
    case.pack.clear();
    case
}
