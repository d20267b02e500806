//! Whether this host is busy with something else, so that steps take longer than they must.
//!
//! Two things must hold for a while: this process's threads wait for a core for a good part of the time in which they could
//! run (the kernel counts that as run delay), and cores are used by others than the ranks of this host. The first alone may
//! be our own threads, the second alone others on cores that we have no use for.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

/// How long it must be so.
const WHILE: Duration = Duration::from_secs(5);

/// Least part of its runnable time that the process waited.
const WAITED: f64 = 0.2;

/// Least number of cores that others used.
const OTHERS: f64 = 0.4;

/// Looks at the host from time to time; for one rank of each host.
pub struct Neighbours {
    /// Ranks on this host, all of which use about as much of it as this one.
    ranks: usize,
    last: Option<Sample>,
    told: bool,
}

/// Counters of the kernel's at one moment.
#[derive(Clone)]
struct Sample {
    at: Instant,
    /// Of each thread of this process: seconds on a core, and seconds in which it waited for one.
    threads: BTreeMap<String, [f64; 2]>,
    /// Seconds that all cores of the host have worked.
    host: f64,
}

impl Neighbours {
    /// On a host with so many ranks.
    pub fn new(ranks: usize) -> Neighbours {
        Neighbours { ranks, last: None, told: false }
    }

    /// To be called at every step; one line, once, when the host has been busy with something else for a while.
    pub fn look(&mut self) -> Option<String> {
        if self.told || self.last.as_ref().is_some_and(|last| last.at.elapsed() < WHILE) {
            return None;
        }
        let now = Sample::take()?;
        let line = self.last.as_ref().and_then(|last| verdict(last, &now, self.ranks));
        self.told = line.is_some();
        self.last = Some(now);
        line
    }
}

/// The line, if it was so between two samples.
fn verdict(before: &Sample, after: &Sample, ranks: usize) -> Option<String> {
    let clock = after.at.duration_since(before.at).as_secs_f64();
    let zero = [0.0; 2];
    let (mut worked, mut waited) = (0.0, 0.0);
    for (thread, [ran, delayed]) in &after.threads {
        let earlier = before.threads.get(thread).unwrap_or(&zero);
        worked += ran - earlier[0];
        waited += delayed - earlier[1];
    }
    let share = waited / (waited + worked).max(f64::MIN_POSITIVE);
    let others = (after.host - before.host - worked * ranks as f64) / clock.max(f64::MIN_POSITIVE);
    (share >= WAITED && others >= OTHERS).then(|| {
        format!(
            "the machine is busy with something else, which uses {others:.1} cores: for {clock:.0} s this process waited for \
             a core {:.0} % of the time in which it could have run, so steps take longer; stop the other, or give it other cores",
            100.0 * share
        )
    })
}

impl Sample {
    /// None where the kernel does not say.
    fn take() -> Option<Sample> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir("/proc/self/task").ok()?.flatten() {
            // A thread may have ended since.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let mut numbers = text.split_whitespace().map_while(|word| word.parse::<f64>().ok());
            let (ran, delayed) = (numbers.next()? / 1e9, numbers.next()? / 1e9);
            threads.insert(task.file_name().to_string_lossy().into_owned(), [ran, delayed]);
        }
        Some(Sample { at: Instant::now(), threads, host: host_seconds(&fs::read_to_string("/proc/stat").ok()?)? })
    }
}

/// What all cores have worked, by /proc/stat: all but idle and waiting for disks; what a hypervisor gave to other machines
/// counts.
fn host_seconds(text: &str) -> Option<f64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else { return None };
    let second = rustix::param::clock_ticks_per_second() as f64;
    Some((user + nice + system + irq + softirq + steal) / second)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six seconds in which two threads ran and waited as given, and the host's cores worked.
    fn line(ran: f64, waited: f64, host: f64, ranks: usize) -> Option<String> {
        let at = Instant::now();
        let threads = |ran: f64, waited: f64| ["1", "2"].map(|name| (name.to_owned(), [ran, waited])).into();
        let before = Sample { at, threads: threads(10.0, 1.0), host: 100.0 };
        let after =
            Sample { at: at + Duration::from_secs(6), threads: threads(10.0 + ran, 1.0 + waited), host: 100.0 + host };
        verdict(&before, &after, ranks)
    }

    #[test]
    fn a_busy_host_is_one_where_others_work_and_this_process_waits() {
        let told = line(4.0, 2.0, 12.0, 1).unwrap();
        assert!(told.contains("uses 0.7 cores") && told.contains("33 %"), "{told}");
        assert!(line(6.0, 0.1, 30.0, 1).is_none(), "others work on other cores");
        assert!(line(3.0, 3.0, 12.0, 2).is_none(), "the other rank is what works");
        assert!(line(3.0, 0.0, 6.0, 1).is_none(), "nobody waits");
    }

    #[test]
    fn the_kernels_counters_are_read() {
        let text = "cpu  424668 11006 63069 28232 433 0 323 1516 0 0\ncpu0 1 2 3\n";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(host_seconds(text), Some((424668.0 + 11006.0 + 63069.0 + 323.0 + 1516.0) / ticks));
        assert_eq!(host_seconds("cpu  1 2 3\n"), None);
    }
}
