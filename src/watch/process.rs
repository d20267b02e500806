//! Whether a process of this host is the one that a run's history names.

use std::fs;
use std::time::{Duration, SystemTime};

/// Of the times in /proc/PID/stat, on every architecture.
const TICKS_PER_SECOND: u64 = 100;
/// The clocks of boot and files differ by less.
const SLACK: Duration = Duration::from_secs(5);

/// Whether process `pid` is there, not dead and unburied, and older than the last line that it is to have written: numbers
/// of processes are given out again.
pub fn is_writer(pid: u32, written: SystemTime) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name in front is in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    if fields.first().is_none_or(|state| *state == "Z" || *state == "X") {
        return false;
    }
    let start = || Some(booted()? + Duration::from_secs(fields.get(19)?.parse::<u64>().ok()? / TICKS_PER_SECOND));
    start().is_none_or(|start| start <= written + SLACK)
}

fn booted() -> Option<SystemTime> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_younger_process_with_the_number_of_the_writer_is_not_it() {
        let (me, now) = (std::process::id(), SystemTime::now());
        assert!(is_writer(me, now));
        assert!(!is_writer(me, booted().unwrap() - Duration::from_secs(60)));
        assert!(!is_writer(u32::MAX, now));
    }
}
