//! Names with holes, matched and filled: `block{i+1}.{j}.{rest}` stands for `block3.0.norm1.weight` with i = 2, j = 0 and
//! rest = `norm1.weight`.

/// A name, parts of which are open.
pub struct Pattern {
    pieces: Vec<Piece>,
}

enum Piece {
    Text(&'static str),
    /// A number without leading zeros: `times` · value + `plus`.
    Number {
        hole: &'static str,
        times: usize,
        plus: usize,
    },
    /// All that follows.
    Rest(&'static str),
}

/// What the holes of a pattern stand for.
pub type Holes = Vec<(&'static str, Filling)>;

/// What one hole stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filling {
    Number(usize),
    Text(String),
}

impl Pattern {
    /// Parses `text`: a hole of one letter is a number, `{i}`, `{i+1}` or `{i*2+1}`; one of several letters takes all that
    /// follows.
    pub fn new(text: &'static str) -> Pattern {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (hole, after) = after.split_once('}').unwrap_or((after, ""));
            if !before.is_empty() {
                pieces.push(Piece::Text(before));
            }
            pieces.push(Piece::hole(hole));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest));
        }
        Pattern { pieces }
    }

    /// The same pattern with `prefix` in front.
    pub fn after(mut self, prefix: &'static str) -> Pattern {
        if !prefix.is_empty() {
            self.pieces.insert(0, Piece::Text(prefix));
        }
        self
    }

    /// What the holes of this pattern stand for in `name`, or None where the name is another.
    pub fn matches(&self, name: &str) -> Option<Holes> {
        let mut holes = Holes::new();
        let mut left = name;
        for piece in &self.pieces {
            let (hole, filling) = match piece {
                Piece::Text(text) => {
                    left = left.strip_prefix(text)?;
                    continue;
                }
                Piece::Number { hole, times, plus } => {
                    let digits = left.bytes().take_while(u8::is_ascii_digit).count();
                    let (number, after) = left.split_at(digits);
                    left = after;
                    (*hole, Filling::Number(whole(number)?.checked_sub(*plus).filter(|n| n % times == 0)? / times))
                }
                Piece::Rest(hole) => (*hole, Filling::Text(std::mem::take(&mut left).to_string())),
            };
            match holes.iter().find(|(other, _)| *other == hole) {
                Some((_, other)) if *other != filling => return None,
                Some(_) => {}
                None => holes.push((hole, filling)),
            }
        }
        left.is_empty().then_some(holes)
    }

    /// The name with its holes filled; None where `holes` lacks one.
    pub fn fill(&self, holes: &Holes) -> Option<String> {
        let mut name = String::new();
        for piece in &self.pieces {
            let filling = |hole: &str| holes.iter().find(|(other, _)| *other == hole).map(|(_, filling)| filling);
            match piece {
                Piece::Text(text) => name += text,
                Piece::Number { hole, times, plus } => match filling(hole)? {
                    Filling::Number(number) => name += &(number * times + plus).to_string(),
                    Filling::Text(_) => return None,
                },
                Piece::Rest(hole) => match filling(hole)? {
                    Filling::Text(text) => name += text,
                    Filling::Number(_) => return None,
                },
            }
        }
        Some(name)
    }
}

impl Piece {
    fn hole(text: &'static str) -> Piece {
        let (product, plus) = text.split_once('+').unwrap_or((text, "0"));
        let (hole, times) = product.split_once('*').unwrap_or((product, "1"));
        match hole.len() {
            1 => Piece::Number { hole, times: whole(times).unwrap_or(1).max(1), plus: whole(plus).unwrap_or(0) },
            _ => Piece::Rest(hole),
        }
    }
}

/// A number as it is written, of at most four digits, so that two names never stand for one.
fn whole(text: &str) -> Option<usize> {
    let canonical = text == "0" || !text.starts_with('0');
    if canonical && text.len() <= 4 { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(from: &'static str, to: &'static str, name: &str) -> Option<String> {
        Pattern::new(to).fill(&Pattern::new(from).matches(name)?)
    }

    #[test]
    fn numbers_are_shifted_and_the_rest_is_carried_over() {
        let (from, to) = ("block{i+1}.{j}.{rest}", "encoder.block.{i}.{j}.{rest}");
        assert_eq!(through(from, to, "block3.10.norm1.weight").as_deref(), Some("encoder.block.2.10.norm1.weight"));
        assert_eq!(through(to, from, "encoder.block.2.10.norm1.weight").as_deref(), Some("block3.10.norm1.weight"));
        assert_eq!(through("features.{i*2+1}.a", "stages.{i}.a", "features.5.a").as_deref(), Some("stages.2.a"));
        assert_eq!(through("stages.{i}.a", "features.{i*2+1}.a", "stages.2.a").as_deref(), Some("features.5.a"));
    }

    #[test]
    fn a_name_of_another_form_does_not_match() {
        for name in ["block0.1.a", "block01.1.a", "block2.1a", "block2.x.a", "block12345.1.a", "bloc", "block2.1."] {
            assert!(
                Pattern::new("block{i+1}.{j}.{rest}")
                    .matches(name)
                    .is_none_or(|holes| name.ends_with('.') && holes.len() == 3),
                "{name}"
            );
        }
        assert_eq!(through("features.{i*2+1}.a", "stages.{i}.a", "features.4.a"), None);
        assert_eq!(through("a.{i}.{i}", "{i}", "a.1.2"), None);
        assert_eq!(through("a.{i}", "b.{j}", "a.1"), None);
    }
}
