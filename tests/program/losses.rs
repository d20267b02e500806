//! TRAIN.loss through the program: weights that follow the pack's counts, labels as large as the image, and a message
//! where there are no counts.

use crate::common::{losses, run, samples, segdist, tiny};

#[test]
fn balanced_weights_at_full_resolution_train_on_a_pack_and_are_refused_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let (data, shards) = (folder.path().join("data"), folder.path().join("shards"));
    let list = samples(&data, &[(48, 32); 4], 4, 1);
    let train = |name: &str, more: &[String]| {
        let dir = folder.path().join(name);
        let mut words = tiny(&data, &dir, 2);
        words.push("TRAIN.loss={ce: {class_weights: balanced, smoothing: 0.1}, dice: {weight: 3, over: batch}}".into());
        words.push("DATASET.segm_downsampling_rate=1".into());
        words.extend(more.iter().cloned());
        (run(segdist().args(&words), 120), dir)
    };
    let (refused, _) = train("listed", &[]);
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(refused.all().contains("list.odgt: there are no pixel counts"), "{}", refused.all());

    let pack = [("--odgt", &list), ("--root", &data), ("--out", &shards)];
    let pack = pack.iter().flat_map(|(flag, path)| [flag.to_string(), path.to_str().unwrap().into()]);
    run(segdist().arg("pack").args(pack).args(["--num-class", "4"]), 60).ok();
    let shards = format!("DATASET.list_train={}", shards.to_str().unwrap());
    let (ended, dir) = train("packed", std::slice::from_ref(&shards));
    ended.ok();
    let found = losses(&dir);
    assert!(found.len() == 2 && found.iter().all(|loss| loss.is_finite() && *loss > 0.5), "{found:?}");

    // Another label map has other classes than were counted.
    let map = folder.path().join("labels.yaml");
    std::fs::write(&map, "0: ignore\n1: 1\n2: 0\n3: 2\n4: 3\n").unwrap();
    let (refused, _) = train("mapped", &[shards, format!("DATASET.label_map={}", map.to_str().unwrap())]);
    assert!(refused.code == 2 && refused.all().contains("the same label map"), "{}", refused.all());
}
