//! A job under way, its processes to be found, signalled and killed.
#![allow(dead_code)] // each binary uses its own part

use super::Ended;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A command in the background; whatever is left of it is killed in the end.
pub struct Job {
    child: Option<Child>,
    pid: u32,
}

impl Job {
    pub fn start(command: &mut Command) -> Job {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Job { pid: child.id(), child: Some(child) }
    }

    /// The process that was started: mpirun, or segdist itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process of rank `rank` under mpirun, once it is there.
    #[track_caller]
    pub fn rank(&self, rank: usize) -> u32 {
        wait_for("the rank's process", 60, || self.rank_now(rank))
    }

    /// The process of rank `rank` under mpirun, if it is there.
    pub fn rank_now(&self, rank: usize) -> Option<u32> {
        let entries = super::RANK_VARIABLES.map(|name| format!("{name}={rank}"));
        descendants(self.pid).into_iter().find(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| entries.iter().any(|entry| variable == entry.as_bytes()))
        })
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("a child can be waited for").is_some())
    }

    /// Waits for the end; fails after `limit` seconds.
    #[track_caller]
    pub fn wait(mut self, limit: u64) -> Ended {
        super::wait(self.child.take().expect("it is waited for once"), limit)
    }

    /// Kills the launcher and every rank at one moment.
    pub fn kill_all(&self) {
        let mut all = descendants(self.pid);
        all.insert(0, self.pid);
        all.into_iter().for_each(|pid| send(pid, Signal::KILL));
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.kill_all();
            let _ = child.wait();
        }
    }
}

/// Sends a signal; a process that is gone has no need of it.
pub fn send(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid as i32).expect("a process id is not 0"), signal);
}

/// Whether a process has taken charge of a signal.
pub fn listens(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// The processes that `pid` and its children have started.
fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc can be read")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| pid));
        next += 1;
    }
    found.split_off(1)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

/// Asks `question` until it has an answer; fails after `limit` seconds.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: u64, mut question: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(limit), "{what}: not after {limit} s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the run in `run` has made `step` updates.
#[track_caller]
pub fn wait_for_step(run: &Path, step: u64) {
    wait_for("the step", 120, || {
        let text = fs::read_to_string(run.join("metrics.jsonl")).ok()?;
        let reached = text.contains(&format!("{{\"event\":\"train\",\"step\":{step},"));
        reached.then_some(())
    });
}

/// The bytes of a run's tensors at a step: model, then optimizer.
pub fn tensors(run: &Path, step: u64) -> [Vec<u8>; 2] {
    ["model", "optimizer"].map(|name| {
        let path = run.join(format!("checkpoints/step-{step:08}/{name}.safetensors"));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

/// The steps of the history's `train` lines, in order.
pub fn trained(run: &Path) -> Vec<u64> {
    super::events(run, "train").iter().map(|line| line["step"].as_u64().expect("a step is a number")).collect()
}

/// How many kills a test makes: SEGDIST_KILLS, else 4.
pub fn kills() -> u64 {
    std::env::var("SEGDIST_KILLS").map_or(4, |text| text.parse().expect("SEGDIST_KILLS is a number"))
}

/// Knuth's generator: the moments differ between kills and not between runs of a test.
pub struct Moments(u64);

impl Moments {
    pub fn new(seed: u64) -> Moments {
        Moments(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}
