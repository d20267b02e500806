//! A bound on how deep a file is nested, before it is given to a parser that takes quadratic time or the whole stack.

/// Deeper than any configuration; they have two levels and lists of lists.
const MOST: usize = 64;
/// Larger than any configuration.
const MOST_BYTES: usize = 1 << 20;

/// An error where `text` is larger, or may be nested deeper, than a configuration is.
pub fn check(text: &str) -> Result<(), String> {
    if text.len() > MOST_BYTES {
        return Err(format!("it has {} bytes, no configuration has more than {MOST_BYTES}", text.len()));
    }
    let too_deep = || Err(format!("it is nested more than {MOST} levels deep"));
    let mut brackets = 0usize;
    for line in text.lines() {
        // `- - - 1` opens a level with each sign.
        if line.split_whitespace().take_while(|word| matches!(*word, "-" | "?" | ":")).count() > MOST {
            return too_deep();
        }
        for sign in line.bytes() {
            match sign {
                b'[' | b'{' => brackets += 1,
                b']' | b'}' => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            if brackets > MOST {
                return too_deep();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_files_are_refused_and_lists_of_lists_are_not() {
        check("DATASET:\n  imgSizes: [[1], [2, {a: 3}]]\n- - - 1\n").unwrap();
        for sign in ["[", "{", "- ", "? "] {
            assert!(check(&sign.repeat(100_000)).unwrap_err().contains("deep"), "{sign}");
        }
        let indented: String = (0..5000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(check(&indented).unwrap_err().contains("bytes"));
    }
}
