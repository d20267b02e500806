//! TRAIN.loss: which losses, how much of each, and with what parameters.

use super::{
    CrossEntropy, CrossEntropyConfig, Dice, DiceConfig, Focal, FocalConfig, Loss, LossNorm, Lovasz, MeanOfMicroBatches,
    Ohem, OhemConfig, WeightedSum,
};
use crate::fault::require;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

/// A weighted sum of losses, none twice. In a configuration one of
///
/// ```yaml
/// loss: ohem
/// loss: [ce 1.0, dice 3.0]
/// loss: {ce: {class_weights: balanced}, dice: {weight: 3.0, over: batch}}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct LossConfig(Vec<(f64, Term)>);

/// One loss and its parameters. The names are those of the variants in small letters.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Term {
    Ce(CrossEntropyConfig),
    Ohem(OhemConfig),
    Focal(FocalConfig),
    Dice(DiceConfig),
    Lovasz(NoParameters),
}

/// Of a loss that has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParameters {}

const NAMES: &str = "ce, ohem, focal, dice, lovasz";

impl Term {
    /// The term of this name with these parameters, the others at their defaults.
    fn new(name: &str, parameters: Mapping) -> Result<Term, String> {
        fn read<T: DeserializeOwned>(name: &str, parameters: Mapping) -> Result<T, String> {
            serde_yaml::from_value(Value::Mapping(parameters)).map_err(|error| format!("{name}: {error}"))
        }
        Ok(match name {
            "ce" => Term::Ce(read(name, parameters)?),
            "ohem" => Term::Ohem(read(name, parameters)?),
            "focal" => Term::Focal(read(name, parameters)?),
            "dice" => Term::Dice(read(name, parameters)?),
            "lovasz" => Term::Lovasz(read(name, parameters)?),
            _ => return Err(format!("{name} is no loss; there are {NAMES}")),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Term::Ce(_) => "ce",
            Term::Ohem(_) => "ohem",
            Term::Focal(_) => "focal",
            Term::Dice(_) => "dice",
            Term::Lovasz(_) => "lovasz",
        }
    }

    fn validate(&self) -> Result<(), String> {
        match self {
            Term::Ce(config) => config.validate(),
            Term::Ohem(config) => config.validate(),
            Term::Focal(config) => config.validate(),
            Term::Dice(config) => config.validate(),
            Term::Lovasz(_) => Ok(()),
        }
    }

    fn class_weights(&self) -> Option<&super::ClassWeights> {
        match self {
            Term::Ce(config) => Some(&config.class_weights),
            Term::Ohem(config) => Some(&config.class_weights),
            _ => None,
        }
    }

    fn loss(&self, classes: usize, pixels: Option<&[u64]>) -> Box<dyn Loss> {
        let cross_entropy = |smoothing| CrossEntropy {
            smoothing,
            weights: self.class_weights().and_then(|weights| weights.of(pixels)),
        };
        match self {
            Term::Ce(config) => Box::new(cross_entropy(config.smoothing)),
            Term::Ohem(config) => {
                let OhemConfig { threshold, least, over, smoothing, .. } = *config;
                Box::new(Ohem { threshold, least, over, loss: cross_entropy(smoothing) })
            }
            Term::Focal(config) => Box::new(Focal(*config)),
            Term::Dice(config) => Box::new(Dice { config: *config, classes: classes as i64 }),
            Term::Lovasz(_) => Box::new(Lovasz),
        }
    }
}

impl LossConfig {
    /// The loss. `pixels`: of each class in the training set, for balanced weights; where they are not known, these are
    /// all alike.
    pub fn build(&self, norm: LossNorm, classes: usize, pixels: Option<&[u64]>) -> Box<dyn Loss> {
        let mut terms: Vec<_> = self.0.iter().map(|(weight, term)| (*weight, term.loss(classes, pixels))).collect();
        let loss = match (terms.len(), terms[0].0) {
            (1, 1.0) => terms.remove(0).1,
            _ => Box::new(WeightedSum(terms)),
        };
        match norm {
            LossNorm::Global => loss,
            LossNorm::PerRank => Box::new(MeanOfMicroBatches(loss)),
        }
    }

    /// Whether a term has weights that follow from the training set.
    pub fn is_balanced(&self) -> bool {
        self.0.iter().any(|(_, term)| term.class_weights() == Some(&super::ClassWeights::Balanced))
    }

    /// The first thing that is wrong, after `TRAIN.loss: `.
    pub fn validate(&self) -> Result<(), String> {
        for (weight, term) in &self.0 {
            let name = term.name();
            require(*weight > 0.0 && weight.is_finite(), || format!("{name}: the weight is {weight}: set it above 0"))?;
            term.validate().map_err(|problem| format!("{name}: {problem}"))?;
        }
        Ok(())
    }

    /// Whether it can be trained with so many classes.
    pub fn check_classes(&self, classes: usize) -> Result<(), String> {
        let listed = |(_, term): &(f64, Term)| Some((term.name(), term.class_weights()?.listed()?));
        match self.0.iter().filter_map(listed).find(|(_, count)| *count != classes) {
            Some((name, count)) => Err(format!(
                "TRAIN.loss: {name}: there are {count} class_weights for DATASET.num_class {classes}: give one a class"
            )),
            None => Ok(()),
        }
    }

    fn add(&mut self, name: &str, weight: f64, parameters: Mapping) -> Result<(), String> {
        let term = Term::new(&name.to_ascii_lowercase(), parameters)?;
        require(self.0.iter().all(|(_, other)| other.name() != term.name()), || format!("{name} stands there twice"))?;
        self.0.push((weight, term));
        Ok(())
    }

    /// `ce`, `ce 1.0`, `ce 1.0, dice 3.0`.
    fn add_words(&mut self, text: &str) -> Result<(), String> {
        for words in text.split(',') {
            let words: Vec<&str> = words.split_whitespace().collect();
            match words[..] {
                [name] => self.add(name, 1.0, Mapping::new())?,
                [name, weight] => {
                    let weight = weight.parse().map_err(|_| format!("{weight} is no weight of {name}"))?;
                    self.add(name, weight, Mapping::new())?;
                }
                _ => return Err(format!("`{}` is no loss; write ce, or [ce 1.0, dice 3.0]", words.join(" "))),
            }
        }
        Ok(())
    }

    /// `{ce: 1.0, dice: {weight: 3.0, over: batch}}`.
    fn add_mapping(&mut self, terms: Mapping) -> Result<(), String> {
        for (name, value) in terms {
            let name = name.as_str().ok_or_else(|| format!("a loss has a name; there are {NAMES}"))?;
            let (weight, parameters) = match value {
                Value::Null => (Value::Null, Mapping::new()),
                Value::Mapping(mut parameters) => (parameters.remove("weight").unwrap_or_default(), parameters),
                weight => (weight, Mapping::new()),
            };
            let weight = if weight.is_null() { Some(1.0) } else { weight.as_f64() };
            let weight =
                weight.ok_or_else(|| format!("{name}: give its weight, or its parameters as {{name: value}}"))?;
            self.add(name, weight, parameters)?;
        }
        Ok(())
    }
}

impl Default for LossConfig {
    fn default() -> Self {
        LossConfig(vec![(1.0, Term::Ce(CrossEntropyConfig::default()))])
    }
}

/// Longer than any sum of losses on a command line.
const LONGEST: usize = 10_000;

impl TryFrom<Value> for LossConfig {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let mut config = LossConfig(Vec::new());
        match value {
            Value::String(text) if text.trim_start().starts_with('{') => {
                require(text.len() <= LONGEST && text.matches('{').count() < 32, || "it is too long".into())?;
                let terms = serde_yaml::from_str(&text).map_err(|error| format!("{text}: {error}"))?;
                config.add_mapping(terms)?;
            }
            Value::String(text) => config.add_words(text.trim_matches(|c: char| "[()] ".contains(c)))?,
            Value::Sequence(items) => {
                for item in items {
                    match item {
                        Value::String(words) => config.add_words(&words)?,
                        Value::Mapping(terms) => config.add_mapping(terms)?,
                        _ => return Err("a list of losses is such as [ce 1.0, dice 3.0]".into()),
                    }
                }
            }
            Value::Mapping(terms) => config.add_mapping(terms)?,
            _ => return Err(format!("there are the losses {NAMES}")),
        }
        require(!config.0.is_empty(), || format!("no loss is named; there are {NAMES}"))?;
        Ok(config)
    }
}

/// `ce` where that is all, else every parameter.
impl From<LossConfig> for Value {
    fn from(config: LossConfig) -> Value {
        let plain = |term: &Term| Term::new(term.name(), Mapping::new()).as_ref() == Ok(term);
        if let [(1.0, term)] = &config.0[..]
            && plain(term)
        {
            return term.name().into();
        }
        let of_term = |(weight, term): &(f64, Term)| {
            let mut parameters = Mapping::new();
            parameters.insert("weight".into(), (*weight).into());
            if let Ok(Value::Mapping(own)) = serde_yaml::to_value(term) {
                parameters.extend(own);
            }
            (Value::from(term.name()), Value::Mapping(parameters))
        };
        Value::Mapping(config.0.iter().map(of_term).collect())
    }
}
