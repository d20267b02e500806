//! The real binary, the real mpirun and small real files, for every test that runs the program.
#![allow(dead_code)] // each binary uses its own part

pub mod jobs;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Both streams, for messages of failing tests.
    pub fn all(&self) -> String {
        format!("exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    /// The run must have ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.all());
        self
    }

    /// The lines that segdist itself wrote to stderr.
    pub fn errors(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with("segdist: ")).collect()
    }
}

/// `segdist`, alone.
pub fn segdist() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segdist"));
    command.env("OMP_NUM_THREADS", "1").env("RUST_BACKTRACE", "0");
    command
}

/// `mpirun -np RANKS segdist`, or segdist alone for one rank.
pub fn ranks(count: usize) -> Command {
    if count == 1 { segdist() } else { mpirun(count) }
}

/// `mpirun -np RANKS segdist`.
pub fn mpirun(count: usize) -> Command {
    let mut command = launcher();
    command.args(["-np", &count.to_string(), env!("CARGO_BIN_EXE_segdist")]);
    command
}

/// mpirun without any arguments of the job: Open MPI's in .deps/, or that of an MPICH, which SEGDIST_MPIRUN names.
pub fn launcher() -> Command {
    let other = std::env::var_os("SEGDIST_MPIRUN");
    let mut command = Command::new(other.as_deref().unwrap_or(OPEN_MPI.as_ref()));
    if other.is_none() {
        // MPICH's starts as many ranks as it is told to, binds none and does not mind root.
        command.args(["--oversubscribe", "--bind-to", "none"]);
        command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    }
    command.env("OMP_NUM_THREADS", "1").env("RUST_BACKTRACE", "0");
    command
}

const OPEN_MPI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.deps/bin/mpirun");

/// Where Open MPI's launcher and MPICH's write down the rank of each process.
pub const RANK_VARIABLES: [&str; 2] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"];

/// Appends segdist to a launcher's arguments, started such that each of these ranks has its SEGDIST_FAULT.
pub fn with_faults<'a>(command: &'a mut Command, faults: &[(usize, &str)]) -> &'a mut Command {
    let [first, second] = RANK_VARIABLES;
    let cases: String = faults.iter().map(|(rank, fault)| format!("{rank}) export SEGDIST_FAULT={fault};; ")).collect();
    let script = format!("case ${{{first}:-${second}}} in {cases}esac; exec \"$0\" \"$@\"");
    command.args(["sh", "-c", &script, env!("CARGO_BIN_EXE_segdist")])
}

/// Runs to the end, or kills and fails after `limit` seconds.
#[track_caller]
pub fn run(command: &mut Command, limit: u64) -> Ended {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    wait(child.unwrap_or_else(|error| panic!("{command:?}: {error}")), limit)
}

/// Waits for a child whose streams are pipes; kills it and fails after `limit` seconds.
#[track_caller]
pub fn wait(mut child: Child, limit: u64) -> Ended {
    let stdout = read(child.stdout.take().expect("stdout is a pipe"));
    let stderr = read(child.stderr.take().expect("stderr is a pipe"));
    let start = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status.code().unwrap_or(-1);
        }
        if start.elapsed() > Duration::from_secs(limit) {
            child.kill().expect("a child can be killed");
            child.wait().expect("a child can be waited for");
            // Processes that it has started may hold the stream open.
            std::thread::sleep(Duration::from_secs(1));
            let text = stderr.is_finished().then(|| stderr.join().expect("a reader does not panic"));
            panic!("still running after {limit} s\n{}", text.unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let join = |reader: std::thread::JoinHandle<String>| reader.join().expect("a reader does not panic");
    Ended { code, stdout: join(stdout), stderr: join(stderr) }
}

fn read(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Writes `sizes.len()` labelled PNG images and DIR/list.odgt, whose content depends on `seed`; labels are 0 … classes.
pub fn samples(dir: &Path, sizes: &[(u32, u32)], classes: u8, seed: u32) -> PathBuf {
    fs::create_dir_all(dir).expect("a temporary folder can be written");
    let mut list = String::new();
    for (index, &(width, height)) in sizes.iter().enumerate() {
        let (image, label) = (format!("{index}.png"), format!("{index}_label.png"));
        let noise = |x: u32, y: u32, c: u32| {
            let mixed = (x * 7 + y * 13 + c * 29 + index as u32 * 101 + seed * 977).wrapping_mul(2_654_435_761);
            (mixed >> 24) as u8
        };
        let class = |x: u32, y: u32| ((x / 8 + y / 8 * 3 + index as u32 + seed) % (classes as u32 + 1)) as u8;
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let rgb: Vec<u8> = pixels
            .clone()
            .flat_map(|(x, y)| {
                [0, 1, 2].map(|c| class(x, y).wrapping_mul(30 + 20 * c as u8).wrapping_add(noise(x, y, c) / 8))
            })
            .collect();
        let labels: Vec<u8> = pixels.map(|(x, y)| class(x, y)).collect();
        write_png(&dir.join(&image), width, height, png::ColorType::Rgb, &rgb);
        write_png(&dir.join(&label), width, height, png::ColorType::Grayscale, &labels);
        list += &format!(
            "{{\"fpath_img\": \"{image}\", \"fpath_segm\": \"{label}\", \"width\": {width}, \"height\": {height}}}\n"
        );
    }
    let path = dir.join("list.odgt");
    fs::write(&path, list).expect("a temporary folder can be written");
    path
}

/// Writes an 8-bit PNG.
pub fn write_png(path: &Path, width: u32, height: u32, colour: png::ColorType, pixels: &[u8]) {
    let file = fs::File::create(path).expect("a temporary folder can be written");
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(colour);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels)).expect("a small PNG is written");
}

/// Overrides for a tiny network on `samples`, trained `steps` steps and logged at each.
pub fn tiny(root: &Path, run: &Path, steps: u64) -> Vec<String> {
    let text = |path: &Path| path.to_str().expect("temporary paths are text").to_owned();
    [
        ("DATASET.root_dataset", text(root)),
        ("DATASET.list_train", text(&root.join("list.odgt"))),
        ("DATASET.list_val", text(&root.join("list.odgt"))),
        ("DATASET.num_class", "4".into()),
        ("DATASET.imgSizes", "(32,)".into()),
        ("DATASET.imgMaxSize", "64".into()),
        ("MODEL.arch_encoder", "resnet18dilated".into()),
        ("MODEL.arch_decoder", "c1_deepsup".into()),
        ("MODEL.init", "random".into()),
        ("TRAIN.num_epoch", "1".into()),
        ("TRAIN.epoch_iters", steps.to_string()),
        ("TRAIN.disp_iter", "1".into()),
        ("TRAIN.workers", "1".into()),
        ("DIR", text(run)),
    ]
    .into_iter()
    .map(|(key, value)| format!("{key}={value}"))
    .collect()
}

/// The objects of DIR/metrics.jsonl with this event.
pub fn events(run: &Path, event: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("a run has a history");
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("every line is JSON"));
    lines.filter(|line| line["event"] == event).collect()
}

/// The losses of a run, step by step.
pub fn losses(run: &Path) -> Vec<f64> {
    events(run, "train").iter().map(|line| line["loss"].as_f64().expect("a loss is a number")).collect()
}
