//! The HTML report: whole in one file, safe with any name, and drawn by a real browser where there is one.

use segdist::report::{html, picture};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A run's folder with a falling loss, two evaluations and an overlay.
fn run_folder(root: &Path, name: &str) -> PathBuf {
    let dir = root.join(name);
    fs::create_dir_all(dir.join("overlays")).unwrap();
    let mut history = String::new();
    for step in 1..=40 {
        let loss = 3.0 / f64::from(step);
        history += &format!(
            "{{\"event\":\"train\",\"step\":{step},\"loss\":{loss},\"acc\":{},\"lr_decoder\":{},\"images_per_s\":{}}}\n",
            1.0 - loss / 4.0,
            0.02 / f64::from(step),
            10 + step % 7
        );
        if step % 20 == 0 {
            history += &format!(
                "{{\"event\":\"eval\",\"step\":{step},\"mean_iou\":{},\"pixel_accuracy\":0.{step}}}\n",
                f64::from(step) / 50.0
            );
        }
    }
    // What a killed run leaves: half a line.
    fs::write(dir.join("metrics.jsonl"), history + "{\"event\":\"tr").unwrap();
    let evaluation = r#"{"mean_iou":0.8,"per_class":[{"name":"low","iou":0.1},{"name":"<high>","iou":0.9},{"name":"gone","iou":null}]}"#;
    fs::write(dir.join("evaluation.json"), evaluation).unwrap();
    let png = picture::rgb(40, 30, &[90; 3 * 40 * 30]).unwrap();
    fs::write(dir.join("evaluation.confusion.png"), &png).unwrap();
    fs::write(dir.join("overlays/00000-street.png"), &png).unwrap();
    fs::write(dir.join("config.yaml"), "TRAIN:\n  seed: 304\n").unwrap();
    dir
}

fn report(dirs: &[PathBuf], root: &Path) -> (PathBuf, String) {
    let out = root.join("report.html");
    html::write(dirs, &out).unwrap();
    let text = fs::read_to_string(&out).unwrap();
    (out, text)
}

#[test]
fn a_report_is_one_file_with_all_charts_classes_pictures_and_the_configuration() {
    let root = tempfile::tempdir().unwrap();
    let (_, text) = report(&[run_folder(root.path(), "first"), run_folder(root.path(), "sec<ond")], root.path());
    assert_eq!(text.matches("<svg").count(), 6);
    assert_eq!(text.matches("<polyline").count(), 12, "two runs in each chart");
    assert_eq!(text.matches("src=\"data:image/png;base64,iVBOR").count(), 4);
    assert_eq!(text.matches("src=").count(), 4, "nothing is loaded from elsewhere");
    assert!(!text.contains("<script") && !text.contains("http"));
    assert!(text.contains("<title>first, step 40: 0.07500</title>"), "values on hovering");
    assert!(text.contains("sec&lt;ond") && !text.contains("sec<ond"));
    let place = |name: &str| text.find(&format!("<td>{name}</td>")).unwrap();
    assert!(place("&lt;high&gt;") < place("low") && place("low") < place("gone"), "best class first");
    assert!(text.contains("seed: 304"));
}

#[test]
fn photographs_become_small_enough_for_a_phone() {
    let root = tempfile::tempdir().unwrap();
    let dir = run_folder(root.path(), "run");
    // Six pictures of three panels, with the noise of a camera.
    let (width, height) = (1920u32, 480u32);
    let noise = |at: u32| {
        let mixed = at.wrapping_mul(2_654_435_761);
        let mixed = (mixed ^ mixed >> 15).wrapping_mul(2_246_822_519);
        ((at / 3 % width / 8 + at / 3 / width / 8) % 200) as u8 + ((mixed ^ mixed >> 13) & 7) as u8
    };
    let pixels: Vec<u8> = (0..3 * width * height).map(noise).collect();
    let png = picture::rgb(width, height, &pixels).unwrap();
    (0..6).for_each(|at| fs::write(dir.join(format!("overlays/0000{at}-street.png")), &png).unwrap());
    let (page, text) = report(&[dir], root.path());
    assert_eq!(text.matches("src=\"data:image/jpeg;base64,/9j/").count(), 6);
    let bytes = fs::metadata(page).unwrap().len();
    assert!(bytes < 3_000_000 && 6 * png.len() > 3_000_000, "{bytes} bytes of {} each", png.len());
}

#[test]
fn runs_are_compared_by_the_keys_on_which_they_differ_and_absent_classes_are_absent() {
    let root = tempfile::tempdir().unwrap();
    let dirs = ["first", "second"].map(|name| run_folder(root.path(), name));
    let yaml = |seed: u32| format!("TRAIN:\n  seed: {seed}\n  lr_encoder: 0.02\nDIR: <x>\n");
    fs::write(dirs[0].join("config.yaml"), yaml(304)).unwrap();
    fs::write(dirs[1].join("config.yaml"), yaml(7)).unwrap();
    let evaluation =
        r#"{"mean_iou":0.4,"per_class":[{"name":"here","iou":0.8,"pixels":9},{"name":"gone","iou":0.0,"pixels":0}]}"#;
    dirs.iter().for_each(|dir| fs::write(dir.join("evaluation.json"), evaluation).unwrap());
    let (_, text) = report(&dirs, root.path());
    assert!(text.contains("<tr><td>TRAIN.seed</td><td>304</td><td>7</td></tr>"));
    assert!(!text.contains("<td>TRAIN.lr_encoder</td>") && !text.contains("<td>DIR</td>"));
    assert!(text.contains("<tr><td>gone</td><td>absent</td><td>absent</td></tr>"));
    let (_, alone) = report(&dirs[..1], root.path());
    assert!(!alone.contains("configurations differ"));
}

#[test]
fn a_run_with_nothing_but_an_empty_history_still_makes_a_page() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("metrics.jsonl"), "").unwrap();
    let (_, text) = report(&[root.path().to_owned()], root.path());
    assert!(text.ends_with("</html>\n") && !text.contains("<svg"));
}

#[test]
fn a_folder_that_is_no_run_is_named() {
    let root = tempfile::tempdir().unwrap();
    let error = html::write(&[root.path().join("nothing")], &root.path().join("report.html")).unwrap_err();
    assert!(format!("{error:#}").contains("nothing/metrics.jsonl"), "{error:#}");
    assert_eq!(segdist::fault::exit_code(&error), 2);
}

/// A screenshot of `page`, `width` pixels wide, and what the browser said; None where there is no browser.
fn screenshot(page: &Path, width: u32) -> Option<(png::Info<'static>, Vec<u8>, String)> {
    let out = page.with_extension(format!("{width}.png"));
    let run = Command::new("timeout")
        .args(["120", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--enable-logging=stderr", &format!("--window-size={width},3600")])
        .arg(format!("--user-data-dir={}", page.with_extension("profile").display()))
        .arg(format!("--screenshot={}", out.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .ok()?;
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(out).ok()?));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    Some((reader.info().clone(), pixels, String::from_utf8_lossy(&run.stderr).into_owned()))
}

#[test]
fn a_browser_draws_every_chart_and_has_nothing_to_complain_of() {
    let root = tempfile::tempdir().unwrap();
    let (page, text) = report(&[run_folder(root.path(), "run")], root.path());
    let Some((info, pixels, said)) = screenshot(&page, 600) else {
        eprintln!("skipped: no chromium on PATH, or no screenshot within two minutes");
        return;
    };
    assert!(!said.contains("CONSOLE"), "{said}");
    // In one column, the first run's colour stands in one band of rows for its entry in the key and for each chart.
    let depth = info.color_type.samples();
    let coloured = |row: &[u8]| row.chunks(depth).filter(|pixel| pixel[..3] == [0, 0x72, 0xb2]).count() >= 2;
    let rows = pixels.chunks(depth * info.width as usize).enumerate().filter(|(_, row)| coloured(row));
    let rows: Vec<usize> = rows.map(|(row, _)| row).collect();
    let bands = rows.windows(2).filter(|pair| pair[1] - pair[0] > 40).count() + 1;
    // A chart whose few points lie far apart makes several bands; one that drew nothing makes none.
    let charts = text.matches("<svg").count();
    assert!(charts >= 5 && bands > charts, "{bands} bands of the line's colour in {charts} charts and a key");
}
