//! What libtorch says when memory runs out, in words that help.

/// The line for the user where `text`, an error or a panic of libtorch, is about too little memory: where, how much was
/// missing, and what to make smaller.
pub fn shortage(text: &str) -> Option<String> {
    let [gpu, cpu] = ["out of memory", "DefaultCPUAllocator: can't allocate memory"].map(|words| text.contains(words));
    if !gpu && !cpu {
        return None;
    }
    let between =
        |from: &str, to: &str| text.split_once(from).and_then(|(_, rest)| Some(rest.split_once(to)?.0.trim()));
    let wanted = between("Tried to allocate ", ". ").or(between("tried to allocate ", " bytes"));
    let free = between(" of which ", " is free");
    let total = between("total capacity of ", " of which");
    let place = match gpu {
        true => between("GPU ", " has").map_or_else(|| "the GPU".to_owned(), |index| format!("GPU {index}")),
        false => "the host".to_owned(),
    };
    let mut line = format!("{place} has too little memory");
    if let Some(wanted) = wanted {
        let unit = if cpu { " bytes" } else { "" };
        line += &format!(": {wanted}{unit} more were asked for");
    }
    if let (Some(free), Some(total)) = (free, total) {
        line += &format!(", {free} of {total} are free");
    }
    Some(line + "; lower TRAIN.batch_size_per_gpu, DATASET.imgSizes or imgMaxSize, or set TRAIN.amp bf16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_full_is_told_with_what_was_missing() {
        let text = "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to allocate 2.25 GiB. \
                    GPU 3 has a total capacity of 79.15 GiB of which 1.44 GiB is free. Process 1 has 77.70 GiB memory in use.";
        assert_eq!(
            shortage(text).unwrap(),
            "GPU 3 has too little memory: 2.25 GiB more were asked for, 1.44 GiB of 79.15 GiB are free; lower \
             TRAIN.batch_size_per_gpu, DATASET.imgSizes or imgMaxSize, or set TRAIN.amp bf16"
        );
    }

    #[test]
    fn a_host_that_is_full_is_told_too_and_nothing_else_is() {
        let text = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
                    allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)";
        let line = shortage(text).unwrap();
        assert!(line.starts_with("the host has too little memory: 1099511627776 bytes more"), "{line}");
        assert!(shortage("CUDA error: an illegal memory access was encountered").is_none());
        // Another library's words, without numbers.
        assert!(shortage("CUBLAS: out of memory").unwrap().starts_with("the GPU has too little memory; lower"));
    }
}
