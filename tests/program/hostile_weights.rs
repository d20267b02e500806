//! Small files of weights that ask for much memory: each is refused by the program, which has little.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::common::{run, segdist};

/// `segdist`, able to have 1 GB of its own memory and no more.
fn small_segdist() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -d 1048576; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_segdist")]);
    command.env("OMP_NUM_THREADS", "1").env("RUST_BACKTRACE", "0");
    command
}

/// An entry of a zip archive, as its directory has it.
struct Entry {
    name: String,
    /// Where the local header is.
    at: usize,
    packed: usize,
    size: usize,
    crc: u32,
    deflated: bool,
}

/// The 26 bytes that local header and directory have in common, from "version needed" to the length of `extra`.
fn fields(entry: &Entry, extra: usize) -> Vec<u8> {
    let mut out: Vec<u8> = [20u16, 0, if entry.deflated { 8 } else { 0 }, 0, 0x21].map(u16::to_le_bytes).concat();
    out.extend([entry.crc, entry.packed as u32, entry.size as u32].map(u32::to_le_bytes).concat());
    out.extend([entry.name.len() as u16, extra as u16].map(u16::to_le_bytes).concat());
    out
}

fn local(out: &mut Vec<u8>, entry: &Entry, extra: usize) {
    out.extend(b"PK\x03\x04");
    out.extend(fields(entry, extra));
    out.extend(entry.name.bytes());
}

fn entry(out: &mut Vec<u8>, name: &str, content: &[u8], deflated: bool) -> Entry {
    let packed = match deflated {
        true => {
            let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            packer.write_all(content).unwrap();
            packer.finish().unwrap()
        }
        false => content.to_vec(),
    };
    let (at, size, crc) = (out.len(), content.len(), crc32fast::hash(content));
    let entry = Entry { name: name.into(), at, packed: packed.len(), size, crc, deflated };
    local(out, &entry, 0);
    out.extend(packed);
    entry
}

fn finish(mut out: Vec<u8>, entries: &[Entry]) -> Vec<u8> {
    let start = out.len();
    for entry in entries {
        out.extend(b"PK\x01\x02\x14\0");
        out.extend(fields(entry, 0));
        out.extend([0; 10]);
        out.extend((entry.at as u32).to_le_bytes());
        out.extend(entry.name.bytes());
    }
    let size = out.len() - start;
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes().repeat(2));
    out.extend([size as u32, start as u32].map(u32::to_le_bytes).concat());
    out.extend([0, 0]);
    out
}

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn number(number: usize) -> Vec<u8> {
    [b"J".as_slice(), &(number as u32).to_le_bytes()].concat()
}

/// A state dict of one-dimensional float tensors, one on each of the storages named, of `numel` numbers.
fn state_dict(storages: &[String], numel: usize) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (index, key) in storages.iter().enumerate() {
        out.extend(text(&format!("tensor{index}")));
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.extend(
            [text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(key), text("cpu"), number(numel)].concat(),
        );
        out.extend(
            [b"tQ".to_vec(), number(0), number(numel), b"\x85".to_vec(), number(1), b"\x85\x89".to_vec()].concat(),
        );
        out.extend(b"}tR");
    }
    out.extend(b"u.");
    out
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|key| key.to_string()).collect()
}

/// 300 storages of 20 MB of zeros, deflated to 6 MB.
fn deflated_zeros() -> Vec<u8> {
    let (mut out, zeros) = (Vec::new(), vec![0; 20 << 20]);
    let mut entries = vec![entry(&mut out, "a/data.pkl", &state_dict(&keys(300), 5 << 20), false)];
    let first = entry(&mut out, "a/data/0", &zeros, true);
    let packed = out[first.at + 30 + first.name.len()..].to_vec();
    for key in 1..300 {
        let name = format!("a/data/{key}");
        let entry = Entry { name, at: out.len(), ..first };
        local(&mut out, &entry, 0);
        out.extend(&packed);
        entries.push(entry);
    }
    entries.insert(1, first);
    finish(out, &entries)
}

/// 1,200 entries whose local headers reach over those that follow, to one body of 1 MB.
fn shared_body() -> Vec<u8> {
    let (mut out, body) = (Vec::new(), vec![7; 1 << 20]);
    let mut entries = vec![entry(&mut out, "a/data.pkl", &state_dict(&keys(1200), body.len() / 4), false)];
    let header = |key: usize| 30 + format!("a/data/{key}").len();
    let crc = crc32fast::hash(&body);
    for key in 0..1200 {
        let (name, size) = (format!("a/data/{key}"), body.len());
        let entry = Entry { name, at: out.len(), packed: size, size, crc, deflated: false };
        local(&mut out, &entry, (key + 1..1200).map(header).sum());
        entries.push(entry);
    }
    out.extend(body);
    finish(out, &entries)
}

/// A list of 100,000 pairs, made a dict of 4,000 times.
fn copied_list() -> Vec<u8> {
    let mut out = b"\x80\x02ccollections\nOrderedDict\nq\0](".to_vec();
    out.extend(b"K\x01K\x01\x86q\x02".iter());
    out.extend(b"h\x02".repeat(99_999));
    out.extend(b"e\x85q\x01");
    out.extend(b"h\0h\x01R".repeat(4000));
    out.push(b'.');
    let mut archive = Vec::new();
    let entries = [entry(&mut archive, "a/data.pkl", &out, false)];
    finish(archive, &entries)
}

/// A storage key of 1 MB, used 3,000 times.
fn long_key() -> Vec<u8> {
    let mut out = b"\x80\x02(".to_vec();
    out.extend([text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(&"k".repeat(1 << 20))].concat());
    out.extend([text("cpu"), number(1), b"tq\0".to_vec(), b"h\0Q0".repeat(3000), b"}.".to_vec()].concat());
    let mut archive = Vec::new();
    let entries = [entry(&mut archive, "a/data.pkl", &out, false)];
    finish(archive, &entries)
}

#[test]
fn small_files_that_ask_for_gigabytes_are_refused_within_one() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("deflated.pth", deflated_zeros(), "far more bytes than the file holds"),
        ("shared.pth", shared_body(), "far more bytes than the file holds"),
        ("copied.pth", copied_list(), "copies the same items"),
        ("key.pth", long_key(), "no dict of tensors"),
    ];
    for (name, content, part) in cases {
        let (path, out) = (folder.path().join(name), folder.path().join("out.safetensors"));
        std::fs::write(&path, &content).unwrap();
        let ended = run(small_segdist().arg("convert").arg(&path).arg(&out), 60);
        let [error] = ended.errors()[..] else { panic!("{}", ended.all()) };
        assert!(ended.code == 2 && error.contains(name) && error.contains(part), "{}", ended.all());
        assert!(!out.exists() && content.len() < 8 << 20);
    }
}

#[test]
fn a_name_that_would_steer_the_terminal_is_refused_and_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.pth");
    let mut archive = Vec::new();
    let pickle = state_dict(&keys(1), 1);
    let hostile: Vec<u8> = pickle.iter().map(|&byte| if byte == b't' { 0x1b } else { byte }).collect();
    let at = pickle.windows(7).position(|window| window == b"tensor0").unwrap();
    let pickle = [&pickle[..at], &hostile[at..at + 7], &pickle[at + 7..]].concat();
    let entries = [entry(&mut archive, "a/data.pkl", &pickle, false), entry(&mut archive, "a/data/0", &[0; 4], false)];
    std::fs::write(&path, finish(archive, &entries)).unwrap();
    let ended = run(segdist().arg("convert").args([&path, Path::new("/nonexistent/out.pth")]), 60);
    assert!(ended.code == 2 && ended.stderr.contains("control characters"), "{}", ended.all());
    assert!(!ended.all().contains('\u{1b}'));
}

/// A folder as of Hugging Face with these files.
fn folder_of(parent: &Path, name: &str, files: &[(&str, &[u8])]) -> std::path::PathBuf {
    let folder = parent.join(name);
    std::fs::create_dir(&folder).unwrap();
    for (name, content) in files {
        std::fs::write(folder.join(name), content).unwrap();
    }
    folder
}

/// An index that says that `file` holds a tensor.
fn index(file: &str) -> Vec<u8> {
    serde_json::json!({"weight_map": {"tensor0": file}}).to_string().into_bytes()
}

#[test]
fn a_folder_of_weights_has_the_same_rules_and_no_way_out() {
    let outside = tempfile::tempdir().unwrap();
    let parent = outside.path();
    let mut archive = Vec::new();
    let entries = [
        entry(&mut archive, "a/data.pkl", &state_dict(&keys(1), 1), false),
        entry(&mut archive, "a/data/0", &[0; 4], false),
    ];
    let good = finish(archive, &entries);
    std::fs::write(parent.join("secret.bin"), &good).unwrap();
    let (pickle, json) = ("pytorch_model.bin", "pytorch_model.bin.index.json");
    let calls: &[u8] = include_bytes!("../golden/weights/hostile.zip.pth");
    let zeros = deflated_zeros();
    let absolute = parent.join("secret.bin").display().to_string();
    let one = "pytorch_model-00001-of-00001.bin";
    let cases = [
        (folder_of(parent, "calls", &[(pickle, calls)]), "os.system"),
        (folder_of(parent, "bomb", &[(pickle, &zeros)]), "far more bytes than the file holds"),
        (folder_of(parent, "calls-in-part", &[(json, &index(one)), (one, calls)]), "os.system"),
        (
            folder_of(parent, "bomb-in-part", &[(json, &index(one)), (one, &zeros)]),
            "far more bytes than the file holds",
        ),
        (folder_of(parent, "up", &[(json, &index("../secret.bin"))]), "not a file beside it"),
        (folder_of(parent, "absolute", &[(json, &index(&absolute))]), "not a file beside it"),
        (folder_of(parent, "here", &[(json, &index("."))]), "not a file beside it"),
        (folder_of(parent, "nul", &[(json, &index("a\0b"))]), "not a file beside it"),
        (folder_of(parent, "steering", &[(json, &index("\u{1b}[2Jx/y"))]), "not a file beside it"),
    ];
    for (folder, part) in cases {
        let out = parent.join("out.safetensors");
        let ended = run(small_segdist().arg("convert").arg(&folder).arg(&out), 60);
        let [error] = ended.errors()[..] else { panic!("{}", ended.all()) };
        let named = folder.file_name().unwrap().to_string_lossy();
        assert!(error.contains(&*named) && error.contains(part), "{}", ended.all());
        assert!(ended.code == 2 && !out.exists() && !ended.all().contains('\u{1b}'), "{}", ended.all());
    }
    // A file that claims to be larger than memory is refused before it is read.
    let large = folder_of(parent, "large", &[(json, &index(one))]);
    std::fs::File::create(large.join(one)).unwrap().set_len(1 << 40).unwrap();
    let long = folder_of(parent, "long", &[]);
    std::fs::File::create(long.join(json)).unwrap().set_len(1 << 40).unwrap();
    for (folder, part) in [(large, "too large to be weights"), (long, "too large to be an index")] {
        let ended = run(small_segdist().arg("convert").arg(&folder).arg(parent.join("out.safetensors")), 60);
        assert!(ended.code == 2 && ended.stderr.contains(part), "{}", ended.all());
    }
}
