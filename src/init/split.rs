//! Which samples validate.

use super::gather::Part;
use super::survey::Survey;

/// Share of the samples that validate, where the data set does not say.
const SHARE: f64 = 0.2;

/// Indices into the survey's samples.
pub struct Split {
    pub training: Vec<usize>,
    pub validation: Vec<usize>,
    /// One line.
    pub why: String,
}

/// The data set's own parts where it has both, else a hash of each name: a sample stays where it is when others come.
pub fn split(survey: &Survey) -> Split {
    let all = || 0..survey.sound.len();
    let part = |part: Part| all().filter(|&at| survey.sound[at].part() == Some(part)).collect::<Vec<_>>();
    let (training, validation) = (part(Part::Training), part(Part::Validation));
    if !training.is_empty() && !validation.is_empty() {
        return Split { training, validation, why: "the data set's own parts".into() };
    }
    if survey.sound.len() == 1 {
        return Split {
            training: vec![0],
            validation: vec![0],
            why: "there is one image: it trains and validates".into(),
        };
    }
    let hash = |at: usize| {
        let hash = blake3::hash(survey.sound[at].sample.name.as_bytes());
        u32::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]))
    };
    let limit = (SHARE * f64::from(u32::MAX)) as u32;
    let (mut validation, mut training): (Vec<usize>, Vec<usize>) = all().partition(|&at| hash(at) < limit);
    // Small sets may fall to one side.
    if validation.is_empty() || validation.len() * 2 > survey.sound.len() {
        training = all().collect();
        training.sort_by_key(|&at| hash(at));
        validation = training.drain(..(survey.sound.len() / 5).max(1)).collect();
    }
    training.sort_unstable();
    validation.sort_unstable();
    let why = "one image in five, by a hash of its name, so that it stays where it is when others come".into();
    Split { training, validation, why }
}
