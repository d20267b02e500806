//! What a run must find again when it goes on: the same samples with the same classes, wherever they are.

use crate::common::{self, Ended, ranks, run, samples, segdist, tiny};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// A data set with a label map, as a list and as shards.
struct Lab(TempDir);

/// Raw values 0 to 4, the first ignored.
const CLASSES: &str = "0: ignore\n1: 0\n2: 1\n3: 2\n4: 3\n";
/// The same with two classes swapped.
const SWAPPED: &str = "0: ignore\n1: 1\n2: 0\n3: 2\n4: 3\n";

impl Lab {
    fn new() -> Lab {
        let folder = TempDir::new().unwrap();
        samples(&folder.path().join("data"), &[(48, 32), (32, 48), (40, 40), (48, 32)], 4, 1);
        fs::write(folder.path().join("map.yaml"), CLASSES).unwrap();
        Lab(folder)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn set(&self, key: &str, name: &str) -> String {
        format!("DATASET.{key}={}", self.dir(name).display())
    }

    fn pack(&self, out: &str) {
        let (list, root, out) = (self.dir("data/list.odgt"), self.dir("data"), self.dir(out));
        let mut command = segdist();
        command.args(["pack", "--label-map"]).arg(self.dir("map.yaml")).arg("--odgt").arg(list);
        run(command.arg("--root").arg(root).arg("--out").arg(out), 60).ok();
    }

    /// Two steps in all, or the first of them and a stop.
    fn train(&self, count: usize, name: &str, steps: u64, more: &[String]) -> Ended {
        let mut arguments = tiny(&self.dir("data"), &self.dir(name), 2);
        arguments.extend(["CHECKPOINT.every_steps=1".to_owned(), "CHECKPOINT.keep_last=9".to_owned()]);
        let ended = run(ranks(count).args(&arguments).args(more), 120);
        if steps == 1 {
            // As if it had been stopped there.
            fs::remove_dir_all(self.dir(name).join("checkpoints/step-00000002")).unwrap();
        }
        ended
    }

    /// The run must refuse to go on, in one line that has `words`.
    fn is_refused(&self, count: usize, name: &str, more: &[String], words: &[&str]) {
        let ended = self.train(count, name, 2, more);
        assert_eq!(ended.code, 2, "{}", ended.all());
        assert_eq!(ended.errors().len(), 1, "{}", ended.all());
        assert!(words.iter().all(|word| ended.errors()[0].contains(word)), "{words:?}: {}", ended.all());
    }
}

#[test]
fn a_label_map_whose_classes_changed_is_refused_and_one_that_says_the_same_is_not() {
    let lab = Lab::new();
    for count in [1, 2] {
        let name = format!("run{count}");
        let map = [lab.set("label_map", "map.yaml")];
        lab.train(count, &name, 1, &map).ok();
        fs::write(lab.dir("map.yaml"), SWAPPED).unwrap();
        lab.is_refused(count, &name, &map, &["map.yaml", "DATASET.label_map"]);
        // Another file with the same meaning.
        fs::write(lab.dir("same.yaml"), "4: 3\n3: 2\n2: 1\n1: 0\n# void\n0: ignore\n").unwrap();
        lab.train(count, &name, 2, &[lab.set("label_map", "same.yaml")]).ok();
        fs::write(lab.dir("map.yaml"), CLASSES).unwrap();
    }
}

#[test]
fn shards_go_on_from_another_folder_and_not_with_other_contents() {
    let lab = Lab::new();
    lab.pack("shards");
    for count in [1, 2] {
        let name = format!("run{count}");
        lab.train(count, &name, 1, &[lab.set("list_train", "shards")]).ok();
        fs::rename(lab.dir("shards"), lab.dir("moved")).unwrap();
        // A map that undoes the stored one is another meaning of the same samples.
        fs::write(lab.dir("other.yaml"), SWAPPED).unwrap();
        let moved = lab.set("list_train", "moved");
        lab.is_refused(count, &name, &[moved.clone(), lab.set("label_map", "other.yaml")], &["other.yaml"]);
        lab.train(count, &name, 2, &[moved]).ok();
        fs::rename(lab.dir("moved"), lab.dir("shards")).unwrap();
    }
    fs::write(lab.dir("map.yaml"), SWAPPED).unwrap();
    lab.pack("repacked");
    lab.is_refused(1, "run1", &[lab.set("list_train", "repacked")], &["repacked", "not the samples"]);
}

#[test]
fn a_list_goes_on_from_another_root() {
    let lab = Lab::new();
    lab.train(1, "run", 1, &[]).ok();
    fs::rename(lab.dir("data"), lab.dir("moved")).unwrap();
    let list = |key| lab.set(key, "moved/list.odgt");
    let more = [lab.set("root_dataset", "moved"), list("list_train"), list("list_val")];
    lab.train(1, "run", 2, &more).ok();
    let text = fs::read_to_string(lab.dir("moved/list.odgt")).unwrap();
    let fewer: Vec<&str> = text.lines().skip(1).collect();
    fs::write(lab.dir("moved/list.odgt"), fewer.join("\n")).unwrap();
    lab.is_refused(1, "run", &more, &["list.odgt", "not the samples"]);
}

#[test]
fn ranks_whose_label_maps_differ_are_told_before_the_first_step() {
    let lab = Lab::new();
    fs::create_dir(lab.dir("other")).unwrap();
    fs::write(lab.dir("other/map.yaml"), SWAPPED).unwrap();
    let mut arguments = tiny(&lab.dir("data"), &lab.dir("run"), 2);
    arguments.push("DATASET.label_map=map.yaml".into());
    let mut command = common::launcher();
    for (place, colon) in [(lab.0.path(), ""), (&lab.dir("other"), ":")] {
        command.args((!colon.is_empty()).then_some(colon)).args(["-np", "1", "--wdir"]).arg(place);
        command.arg(env!("CARGO_BIN_EXE_segdist")).args(&arguments);
    }
    let ended = run(&mut command, 60);
    assert_eq!(ended.code, 2, "{}", ended.all());
    let errors = ended.errors();
    assert!(
        errors.len() == 1 && errors[0].contains("rank 1 differs in classes of the training labels"),
        "{}",
        ended.all()
    );
}
