//! Whether a configuration may continue a run: everything that its future depends on must be as it was.

use serde_yaml::Value;
use std::collections::BTreeMap;

/// The keys, or sections, that may differ: they change where, how fast and how observably a run goes, not what it computes.
/// The data are compared apart, by their content (`dataset_id` and `labels_id`), wherever they are, and where the first weights came from no longer matters.
const FREE: [&str; 22] = [
    "DIR",
    "DIST",
    "VAL",
    "TEST",
    "CHECKPOINT",
    "DATASET.root_dataset",
    "DATASET.list_train",
    "DATASET.list_val",
    "DATASET.label_map",
    "DATASET.io",
    "DATASET.stage",
    "DATASET.stage_keep",
    "MODEL.weights_encoder",
    "MODEL.weights_decoder",
    "MODEL.pretrained_dir",
    "MODEL.init",
    "TRAIN.workers",
    "TRAIN.disp_iter",
    "TRAIN.max_minutes",
    "TRAIN.on_nonfinite",
    "TRAIN.max_skips",
    "TRAIN.loss_scale",
];

/// The key that a run keeps where the new configuration leaves it open (0).
const KEPT: &str = "TRAIN.global_batch";

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
pub fn disagreements(saved: &Value, now: &Value) -> Vec<Disagreement> {
    let (saved, now) = (flatten(saved), flatten(now));
    let keys: std::collections::BTreeSet<&String> = saved.keys().chain(now.keys()).collect();
    let differs = |key: &&String| {
        let (saved, now) = (saved.get(*key).copied(), now.get(*key).copied());
        let open = *key == KEPT && now.is_none_or(|now| now.is_null() || now.as_f64() == Some(0.0));
        !is_free(key) && !open && !same(saved, now)
    };
    let shown = |value: Option<&Value>| match value {
        Some(value) => {
            serde_yaml::to_string(value).map_or_else(|_| "?".into(), |text| text.trim_end().replace('\n', " "))
        }
        None => "unset".into(),
    };
    keys.into_iter()
        .filter(differs)
        .map(|key| Disagreement {
            key: key.clone(),
            saved: shown(saved.get(key).copied()),
            now: shown(now.get(key).copied()),
        })
        .collect()
}

fn is_free(key: &str) -> bool {
    FREE.iter().any(|free| key.strip_prefix(free).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
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

    #[test]
    fn what_decides_the_future_must_agree() {
        let saved = yaml(
            "{MODEL: {arch_encoder: resnet18dilated}, TRAIN: {lr_encoder: 0.02, seed: 1}, DATASET: {imgSizes: [300, 375]}}",
        );
        let now = yaml(
            "{MODEL: {arch_encoder: resnet50dilated}, TRAIN: {lr_encoder: 0.02, seed: 2}, DATASET: {imgSizes: [300]}}",
        );
        let keys: Vec<_> = disagreements(&saved, &now).into_iter().map(|found| found.key).collect();
        assert_eq!(keys, ["DATASET.imgSizes", "MODEL.arch_encoder", "TRAIN.seed"]);
        assert_eq!(disagreements(&saved, &now)[2].to_string(), "TRAIN.seed was 1 and is 2");
    }

    #[test]
    fn workers_display_and_limits_are_free() {
        let saved = yaml(
            "{DIR: a, TRAIN: {workers: 1, disp_iter: 1, max_minutes: 0}, VAL: {iou: present}, DIST: {x: 1}, CHECKPOINT: {keep_last: 1}}",
        );
        let now =
            yaml("{DIR: b, TRAIN: {workers: 2, disp_iter: 2, max_minutes: 9}, VAL: {iou: reference}, DIST: {x: 2}}");
        assert_eq!(disagreements(&saved, &now), []);
    }

    #[test]
    fn a_free_name_frees_no_longer_name() {
        let found = disagreements(&yaml("{TRAIN: {workers_x: 1}, DIRECTORY: 1}"), &yaml("{}"));
        assert_eq!(found.iter().map(|found| found.now.as_str()).collect::<Vec<_>>(), ["unset", "unset"]);
    }

    #[test]
    fn the_global_batch_is_kept_unless_another_is_asked_for() {
        let saved = yaml("{TRAIN: {global_batch: 8}}");
        assert_eq!(disagreements(&saved, &yaml("{TRAIN: {global_batch: 0}}")), []);
        assert_eq!(disagreements(&saved, &yaml("{TRAIN: {}}")), []);
        assert_eq!(disagreements(&saved, &yaml("{TRAIN: {global_batch: 8}}")), []);
        assert_eq!(disagreements(&saved, &yaml("{TRAIN: {global_batch: 4}}")).len(), 1);
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
            prop_assert_eq!(disagreements(&value, &value), []);
        }

        #[test]
        fn disagreement_has_no_direction(a in values(), b in values()) {
            let keys = |found: Vec<Disagreement>| found.into_iter().map(|found| found.key).collect::<Vec<_>>();
            prop_assert_eq!(keys(disagreements(&a, &b)), keys(disagreements(&b, &a)));
        }
    }
}
