//! Whether a configuration may continue a run: everything that its future depends on must be as it was.

use super::{CheckpointError, STATE_FILE, State};
use serde_yaml::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a configuration may change where it continues a run. The keys say it themselves, where they are declared.
///
/// The data are compared apart, by their content (`dataset_id` and `labels_id`), wherever they are.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Keys, or sections, that change where, how fast and how observably a run goes, not what it computes.
    pub free: BTreeSet<String>,
    /// Keys that a run keeps where the new configuration leaves them open (0).
    pub kept: BTreeSet<String>,
    /// Keys that say how long a run is: they may grow where it is asked for.
    pub extended: BTreeSet<String>,
    /// The default of every key: what a key was to a version that did not know it.
    pub defaults: Value,
}

/// A key on which two configurations differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Disagreement {
    /// `SECTION.key`.
    pub key: String,
    /// Its value in the checkpoint, as YAML; `unset` where it has none.
    pub saved: String,
    /// Its value now.
    pub now: String,
}

impl std::fmt::Display for Disagreement {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} was {} and is {}", self.key, self.saved, self.now)
    }
}

/// The keys of two resolved configurations that must agree for one to continue the other's run, and do not; by key.
pub fn disagreements(saved: &Value, now: &Value, rules: &Rules) -> Vec<Disagreement> {
    let (saved, now, defaults) = (flatten(saved), flatten(now), flatten(&rules.defaults));
    let keys: BTreeSet<&String> = saved.keys().chain(now.keys()).collect();
    let of = |values: &BTreeMap<String, &Value>, key: &str| values.get(key).or(defaults.get(key)).copied().cloned();
    let all = keys.into_iter().map(|key| (key, of(&saved, key), of(&now, key)));
    let differ = all.filter(|(key, saved, now)| {
        let open = rules.kept.contains(*key) && now.as_ref().is_none_or(|now| now.as_f64() == Some(0.0));
        !rules.frees(key) && !open && !same(saved.as_ref(), now.as_ref())
    });
    differ.map(|(key, saved, now)| Disagreement { key: key.clone(), saved: shown(saved), now: shown(now) }).collect()
}

fn shown(value: Option<Value>) -> String {
    let Some(value) = value else { return "unset".into() };
    serde_yaml::to_string(&value).map_or_else(|_| "?".into(), |text| text.trim_end().replace('\n', " "))
}

impl Rules {
    fn frees(&self, key: &str) -> bool {
        let section = key.split_once('.').map_or(key, |(section, _)| section);
        self.free.contains(key) || self.free.contains(section)
    }
}

/// The configuration of a checkpoint, with the global batch that its run has.
///
/// # Errors
/// A state file that is whole, but holds no configuration or no possible batch.
pub fn configuration(path: &Path, state: &State) -> Result<Value, CheckpointError> {
    let damaged = |cause: String| CheckpointError::damaged(&path.join(STATE_FILE), cause);
    let mut saved: Value = serde_yaml::from_str(&state.config).map_err(|error| damaged(format!("config: {error}")))?;
    let batch = u32::try_from(state.global_batch).ok().filter(|batch| *batch > 0);
    let batch = batch.ok_or_else(|| damaged(format!("a global batch of {} images", state.global_batch)))?;
    let sections = saved.as_mapping_mut().ok_or_else(|| damaged("config: no sections".into()))?;
    match sections.entry("TRAIN".into()).or_insert_with(|| Value::Mapping(Default::default())) {
        Value::Mapping(train) => train.insert("global_batch".into(), batch.into()),
        _ => return Err(damaged("config: TRAIN is no section".into())),
    };
    Ok(saved)
}

/// Numbers are equal by value: 1 and 1.0 are one learning rate.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a.and_then(Value::as_f64), b.and_then(Value::as_f64)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Every value by its dotted key.
fn flatten(value: &Value) -> BTreeMap<String, &Value> {
    let mut flat = BTreeMap::new();
    let mut open = vec![(String::new(), value)];
    while let Some((key, value)) = open.pop() {
        match value {
            Value::Mapping(mapping) => open.extend(mapping.iter().map(|(name, value)| {
                let name = name.as_str().unwrap_or("?");
                (if key.is_empty() { name.to_string() } else { format!("{key}.{name}") }, value)
            })),
            value => {
                flat.insert(key, value);
            }
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    /// The keys that differ, under rules with a key of each kind.
    fn differing(saved: &str, now: &str) -> Vec<String> {
        let set = |keys: &[&str]| keys.iter().map(|key| key.to_string()).collect();
        let rules = Rules {
            free: set(&["DIR", "VAL", "TRAIN.workers"]),
            kept: set(&["TRAIN.global_batch"]),
            extended: set(&["TRAIN.num_epoch"]),
            defaults: yaml("{TRAIN: {seed: 304, workers: 16, global_batch: 0, warmup: 0.0}}"),
        };
        disagreements(&yaml(saved), &yaml(now), &rules).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_decides_the_future_must_agree() {
        let saved = "{MODEL: {arch: a}, TRAIN: {lr: 0.02, seed: 1}, DATASET: {imgSizes: [300, 375]}}";
        let now = "{MODEL: {arch: b}, TRAIN: {lr: 0.02, seed: 2}, DATASET: {imgSizes: [300]}}";
        let differences =
            ["DATASET.imgSizes was - 300 - 375 and is - 300", "MODEL.arch was a and is b", "TRAIN.seed was 1 and is 2"];
        assert_eq!(differing(saved, now), differences);
        assert_eq!(differing("{TRAIN: {lr: 1}}", "{TRAIN: {lr: 1.0}}"), [""; 0]);
    }

    #[test]
    fn what_is_free_may_differ_and_frees_no_longer_name() {
        let saved = "{DIR: a, TRAIN: {workers: 1}, VAL: {iou: present}}";
        assert_eq!(differing(saved, "{DIR: b, TRAIN: {workers: 2}, VAL: {iou: reference, x: 1}}"), [""; 0]);
        let found = differing("{TRAIN: {workers_x: 1}, DIRECTORY: 1}", "{}");
        assert_eq!(found, ["DIRECTORY was 1 and is unset", "TRAIN.workers_x was 1 and is unset"]);
    }

    #[test]
    fn a_key_that_the_checkpoint_does_not_know_had_its_default() {
        assert_eq!(differing("{TRAIN: {seed: 1}}", "{TRAIN: {seed: 1, warmup: 0}}"), [""; 0]);
        assert_eq!(differing("{TRAIN: {}}", "{TRAIN: {warmup: 9}}"), ["TRAIN.warmup was 0.0 and is 9"]);
        assert_eq!(differing("{}", "{TRAIN: {seed: 304}}"), [""; 0]);
    }

    #[test]
    fn the_global_batch_is_kept_unless_another_is_asked_for() {
        let with = |batch: &str| differing("{TRAIN: {global_batch: 8}}", &format!("{{TRAIN: {{{batch}}}}}"));
        assert_eq!([with(""), with("global_batch: 0"), with("global_batch: 8")], [[""; 0]; 3]);
        assert_eq!(with("global_batch: 4"), ["TRAIN.global_batch was 8 and is 4"]);
    }

    #[test]
    fn a_state_with_a_nonsensical_configuration_is_damaged() {
        for (config, global_batch) in
            [("5", 2), ("", 2), ("[1]", 2), ("{TRAIN: 5}", 2), (": :", 2), ("{}", 0), ("{}", usize::MAX)]
        {
            let state = State { config: config.into(), global_batch, ..State::default() };
            let error = configuration(Path::new("step-00000001"), &state).unwrap_err().to_string();
            assert!(error.contains("step-00000001/state.json is damaged"), "{config}: {error}");
        }
        let state = State { config: "{TRAIN: {seed: 1}}".into(), global_batch: 8, ..State::default() };
        let saved = configuration(Path::new("."), &state).unwrap();
        assert_eq!(saved, yaml("{TRAIN: {seed: 1, global_batch: 8}}"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![any::<i64>().prop_map(Value::from), "[a-z]{0,5}".prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop::collection::vec(("[A-Za-z]{1,6}", inner), 0..4)
                .prop_map(|pairs| Value::Mapping(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect()))
        })
    }

    proptest! {
        #[test]
        fn a_configuration_agrees_with_itself(value in values()) {
            prop_assert_eq!(disagreements(&value, &value, &Rules::default()), []);
        }

        #[test]
        fn disagreement_has_no_direction(a in values(), b in values()) {
            let keys = |found: Vec<Disagreement>| found.into_iter().map(|found| found.key).collect::<Vec<_>>();
            let rules = Rules::default();
            prop_assert_eq!(keys(disagreements(&a, &b, &rules)), keys(disagreements(&b, &a, &rules)));
        }
    }
}
