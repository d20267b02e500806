//! Data sets whose folders, classes and colours are known by name.

/// The class names and colours of ADE20K's 150 classes, in the order of the classes.
pub fn ade20k() -> (Vec<String>, Vec<[u8; 3]>) {
    classes(include_str!("ade20k.txt"))
}

/// Parses `RRGGBB name;synonym…` lines; of the names, the first.
fn classes(text: &str) -> (Vec<String>, Vec<[u8; 3]>) {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (color, names) = line.split_once(' ')?;
            let [_, r, g, b] = u32::from_str_radix(color, 16).ok()?.to_be_bytes();
            Some((names.split(';').next()?.to_string(), [r, g, b]))
        })
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ade20k_has_150_classes_in_the_published_order() {
        let (names, palette) = ade20k();
        assert_eq!((names.len(), palette.len()), (150, 150));
        assert_eq!((names[0].as_str(), palette[0]), ("wall", [120, 120, 120]));
        assert_eq!(names[1], "building");
        assert_eq!(names[149], "flag");
    }
}
