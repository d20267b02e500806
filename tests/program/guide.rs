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

/// Sixty scenes of demo-data as `photos/` and, in colours, `masks/`.
fn photographs_and_masks(folder: &Path) {
    let made = folder.join("made");
    run(segdist().args(["demo-data", "--out"]).arg(&made), 120).ok();
    for name in ["photos", "masks"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    for number in 1..=60 {
        let name = format!("demo_{number:04}.png");
        fs::rename(made.join("images/training").join(&name), folder.join("photos").join(&name)).unwrap();
        let file = std::io::BufReader::new(fs::File::open(made.join("annotations/training").join(&name)).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut labels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut labels).unwrap();
        let colour = |label: &u8| {
            [[0, 0, 0], [120; 3], [230, 25, 75], [60, 180, 75], [0, 130, 200], [255, 225, 25]][*label as usize]
        };
        let pixels: Vec<u8> = labels.iter().flat_map(colour).collect();
        write_png(&folder.join("masks").join(&name), info.width, info.height, png::ColorType::Rgb, &pixels);
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
    assert!(folder.path().join("labelled/demo_0001.overlay.png").exists());
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
