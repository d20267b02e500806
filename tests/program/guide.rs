//! What the guide says is so: its commands run, its keys are the program's, and the verbs that come with an installation work.

use crate::common::{events, run, segdist, write_png};
use std::fs;
use std::path::Path;
use std::process::Command;

const OWN_DATA: &str = include_str!("../../src/guide/own_data.md");
const KEYS: &str = include_str!("../../src/guide/keys.md");

/// The command lines of a page, in order.
fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect()
}

/// Numbers without pattern, the same on every machine (splitmix64).
struct Numbers(u64);

impl Numbers {
    /// `low` to `high`.
    fn between(&mut self, low: i64, high: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + ((mixed ^ (mixed >> 31)) % (high - low + 1) as u64) as i64
    }
}

/// Sixty photographs of discs and a square, in colours under strong noise, and their masks, in other colours.
fn photographs_and_masks(folder: &Path) {
    const SEEN: [[i64; 3]; 4] = [[110, 120, 100], [190, 90, 80], [70, 110, 190], [200, 190, 90]];
    const MASK: [[u8; 3]; 4] = [[0, 0, 0], [230, 25, 75], [0, 130, 200], [255, 225, 25]];
    let (width, height) = (128, 96);
    for name in ["photos", "masks"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let mut numbers = Numbers(7);
    for image in 0..60 {
        let shapes: Vec<_> = (0..3)
            .map(|turn| {
                let radius = numbers.between(20, 29);
                let (x, y) = (numbers.between(radius, width - radius), numbers.between(radius, height - radius));
                (1 + (image + turn) % 3, radius, x, y)
            })
            .collect();
        let light = numbers.between(-20, 20);
        let (mut photograph, mut mask) = (Vec::new(), Vec::new());
        for at in 0..width * height {
            let covers = |&&(class, radius, x, y): &&(usize, i64, i64, i64)| {
                let (dx, dy) = ((at % width - x).abs(), (at / width - y).abs());
                if class == 2 { 10 * dx.max(dy) < 9 * radius } else { dx * dx + dy * dy < radius * radius }
            };
            let class = shapes.iter().rev().find(covers).map_or(0, |shape| shape.0);
            let seen = SEEN[class].map(|value| (value + light + numbers.between(-40, 40)).clamp(0, 255) as u8);
            photograph.extend(seen);
            mask.extend(MASK[class]);
        }
        for (place, pixels) in [("photos", photograph), ("masks", mask)] {
            let file = folder.join(place).join(format!("photo_{image:02}.png"));
            write_png(&file, width as u32, height as u32, png::ColorType::Rgb, &pixels);
        }
    }
}

#[test]
fn the_page_on_own_data_leads_from_photographs_and_colour_masks_to_a_mean_iou_of_four_fifths() {
    let folder = tempfile::tempdir().unwrap();
    photographs_and_masks(folder.path());
    let lines = commands(OWN_DATA);
    assert!(lines.len() >= 7 && lines.iter().all(|line| line.starts_with("segdist ")), "{lines:?}");
    for line in lines {
        let words = line.split(' ').skip(1);
        run(segdist().args(words).current_dir(folder.path()), 600).ok();
    }
    let scores = events(&folder.path().join("mine-run"), "eval");
    let mean_iou = scores.last().unwrap()["mean_iou"].as_f64().unwrap();
    assert!(mean_iou >= 0.8, "{mean_iou}");
    assert!(fs::metadata(folder.path().join("mine.html")).unwrap().len() > 10_000);
    assert!(folder.path().join("labelled/photo_01.overlay.png").exists());
}

#[test]
fn the_page_of_keys_is_what_the_program_prints() {
    let printed = run(segdist().args(["config", "--keys"]), 20).ok().stdout;
    let page = KEYS.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    for (page, printed) in lines(page).iter().zip(&lines(&printed)) {
        assert_eq!(page, printed, "src/guide/keys.md: put the output of `segdist config --keys` there");
    }
    assert_eq!(lines(page).len(), lines(&printed).len());
}

#[test]
fn demo_goes_from_nothing_to_a_report_and_uses_what_it_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let demo = |steps: &str| {
        let out = folder.path().join("a demo");
        let overrides = ["TRAIN.num_epoch=1", &format!("TRAIN.epoch_iters={steps}")].map(String::from);
        run(segdist().arg("demo").arg("--out").arg(out).args(&overrides), 300).ok()
    };
    let first = demo("2");
    for name in ["report.html", "run/curve.png", "run/checkpoints/step-00000002", "demo.yaml"] {
        assert!(folder.path().join("a demo").join(name).exists(), "{name}: {}", first.all());
    }
    assert!(first.stdout.contains("segdist pack --odgt"), "{}", first.all());
    let again = demo("2");
    assert!(!again.stdout.contains("segdist pack"), "{}", again.all());
}

#[test]
fn batch_scripts_stand_alone_and_are_shell() {
    for scheduler in ["slurm", "slurm-pyxis", "slurm-apptainer"] {
        let script = run(segdist().args(["launch", scheduler]), 20).ok().stdout;
        assert!(script.starts_with("#!/usr/bin/env bash\n") && script.contains("#SBATCH --requeue"), "{script}");
        assert!(script.contains("train_in_slurm() {") && !script.contains("common.sh\""), "{script}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.sbatch");
        fs::write(&file, &script).unwrap();
        assert!(Command::new("bash").arg("-n").arg(&file).status().unwrap().success(), "{scheduler}");
    }
}

#[test]
fn completions_and_the_manual_name_every_verb() {
    let help = run(segdist().arg("--help"), 20).ok().stdout;
    let verbs = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap().lines();
    let verbs: Vec<&str> = verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).collect();
    let verbs: Vec<&str> = verbs.iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(verbs.contains(&"train") && verbs.contains(&"demo"), "{verbs:?}");
    for words in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["man"]] {
        let text = run(segdist().args(words), 20).ok().stdout.replace("\\-", "-");
        verbs.iter().for_each(|verb| assert!(text.contains(verb), "{words:?}: no {verb}"));
    }
}
