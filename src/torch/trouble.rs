//! What libtorch says when the cause is what the user asked for, in words that help: too little memory, images of a size
//! that a network cannot take, numbers of a type that a device does not compute with.

/// One line where `text`, an error or a panic of libtorch, has such a cause; `relief` says what takes less memory.
pub fn explained(text: &str, relief: &str) -> Option<String> {
    shortage(text, relief).or_else(|| size(text)).or_else(|| number_type(text))
}

/// The text up to where libtorch goes on with where in its own sources that was.
pub fn without_frames(text: &str) -> &str {
    let end = ["\\nException raised from", "\nException raised from", " Exception raised from"];
    let end = end.iter().filter_map(|words| text.find(words)).min();
    &text[..end.unwrap_or(text.len())]
}

/// Where memory ran out, how much was missing, and what to make smaller.
fn shortage(text: &str, relief: &str) -> Option<String> {
    let cpu =
        ["DefaultCPUAllocator:", "std::bad_alloc", "Cannot allocate memory"].iter().any(|words| text.contains(words));
    if !cpu && !text.contains("out of memory") && !text.contains("CUDNN_STATUS_ALLOC_FAILED") {
        return None;
    }
    // oneDNN, a library for the CPU, says no more than "out of memory".
    let gpu = !cpu && ["CUDA", "CUBLAS", "CUDNN", "GPU"].iter().any(|words| text.contains(words));
    let between =
        |from: &str, to: &str| text.split_once(from).and_then(|(_, rest)| Some(rest.split_once(to)?.0.trim()));
    let wanted = between("Tried to allocate ", ". ").map(str::to_owned);
    let wanted = wanted.or_else(|| Some(readable(between("tried to allocate ", " bytes")?.parse().ok()?)));
    let free = between(" of which ", " is free");
    let total = between("total capacity of ", " of which");
    let place = match gpu {
        true => between("GPU ", " has").map_or_else(|| "the GPU".to_owned(), |index| format!("GPU {index}")),
        false => "the host".to_owned(),
    };
    let mut line = format!("{place} has too little memory");
    if let Some(wanted) = wanted {
        line += &format!(": {wanted} more were asked for");
    }
    if let (Some(free), Some(total)) = (free, total) {
        line += &format!(", {free} of {total} are free");
    }
    Some(format!("{line}; {relief}"))
}

/// A number of bytes for people.
pub fn readable(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 20) {
        mib if mib < 1.0 => format!("{bytes} bytes"),
        mib if mib < 1024.0 => format!("{mib:.0} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}

fn size(text: &str) -> Option<String> {
    const SMALL: [&str; 4] = [
        "Kernel size can't be greater than actual input size",
        "Output size is too small",
        "Expected more than 1 value per channel",
        "Padding size should be less than the corresponding input dimension",
    ];
    const OTHER: [&str; 5] = [
        "must match the size of tensor",
        "Sizes of tensors must match",
        "is invalid for input of size",
        "shapes cannot be multiplied",
        "too large to be indexed",
    ];
    let found = |all: &[&str]| all.iter().any(|words| text.contains(words));
    let said = said(text);
    if found(&SMALL) {
        return Some(format!("images are too small for this network ({said}); raise DATASET.imgSizes and imgMaxSize"));
    }
    found(&OTHER)
        .then(|| format!("images have a size that this network does not take ({said}); change DATASET.imgSizes"))
}

fn number_type(text: &str) -> Option<String> {
    const WORDS: [&str; 4] = [
        "not implemented for 'Half'",
        "not implemented for 'BFloat16'",
        "expected scalar type",
        "to have the same dtype",
    ];
    let found = WORDS.iter().any(|words| text.contains(words));
    found.then(|| format!("this device cannot compute with that type of numbers ({}); set TRAIN.amp off", said(text)))
}

/// libtorch's own words: of a panic, those inside its error.
fn said(text: &str) -> String {
    const MOST: usize = 140;
    let text = without_frames(text);
    let text = text.split_once("Torch(\"").map_or(text, |(_, inner)| inner);
    let short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELIEF: &str = "lower TRAIN.batch_size_per_gpu";

    fn told(text: &str) -> String {
        explained(text, RELIEF).unwrap()
    }

    #[test]
    fn a_gpu_that_is_full_is_told_with_what_was_missing() {
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 2.25 GiB. \
                    GPU 3 has a total capacity of 79.15 GiB of which 1.44 GiB is free. Process 1 has 77.70 GiB memory in use.";
        assert_eq!(
            told(text),
            "GPU 3 has too little memory: 2.25 GiB more were asked for, 1.44 GiB of 79.15 GiB are free; lower \
             TRAIN.batch_size_per_gpu"
        );
        // Another library's words, without numbers.
        assert!(told("CUBLAS: out of memory").starts_with("the GPU has too little memory; lower"));
    }

    #[test]
    fn a_host_that_is_full_is_told_too() {
        let text = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
                    allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)";
        assert!(told(text).starts_with("the host has too little memory: 1024.0 GiB more were"), "{}", told(text));
        assert!(
            told("could not create a primitive: out of memory").starts_with("the host has too little memory; lower")
        );
    }

    #[test]
    fn a_size_or_type_that_does_not_fit_names_its_key_without_places_in_sources() {
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"Calculated padded input size per channel: (2 x 2). \
                    Kernel size: (8 x 8). Kernel size can't be greater than actual input size\\nException raised from \
                    check_shape_forward at /pytorch/aten/src/ATen/native/Convolution.cpp:705";
        let line = told(text);
        assert!(line.contains("(2 x 2)") && line.contains("DATASET.imgSizes") && !line.contains(".cpp"), "{line}");
        assert!(line.len() < 300, "{line}");
        assert!(told("\"max_pool\" not implemented for 'Half'").contains("TRAIN.amp off"));
        assert!(explained("CUDA error: an illegal memory access was encountered", RELIEF).is_none());
    }
}
