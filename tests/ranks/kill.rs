//! Kills at random moments: every run ends where the uninterrupted one ends.
//!
//! `SEGDIST_KILLS` sets how many there are (default 4).

use crate::common::jobs::{Job, Moments, kills, send, tensors, trained};
use crate::common::{mpirun, run, samples, tiny};
use rustix::process::Signal;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const STEPS: u64 = 12;

#[test]
fn runs_killed_at_random_moments_end_like_the_uninterrupted_one() {
    let kills = kills();
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("data");
    samples(&root, &[(48, 32), (32, 48), (40, 40)], 4, 1);
    let command = |name: &str| {
        let mut command = mpirun(2);
        command.args(tiny(&root, &folder.path().join(name), STEPS)).arg("CHECKPOINT.every_steps=1");
        command
    };
    let start = Instant::now();
    run(&mut command("whole"), 300).ok();
    let length = start.elapsed().as_millis() as u64;
    let expected = tensors(&folder.path().join("whole"), STEPS);

    let mut moments = Moments::new(7);
    let (mut done, mut round) = (0, 0);
    while done < kills {
        round += 1;
        let name = format!("killed{round}");
        // A run is killed a few times, then finishes.
        for _ in 0..3.min(kills - done) {
            let mut job = Job::start(&mut command(&name));
            std::thread::sleep(Duration::from_millis(moments.below(length)));
            if job.ended() {
                break;
            }
            done += 1;
            match (moments.below(3), moments.below(2) as usize) {
                (0, _) => job.kill_all(),
                (_, rank) => job.rank_now(rank).map_or_else(|| job.kill_all(), |pid| send(pid, Signal::KILL)),
            }
            // Whatever the code: the job may just have been over.
            job.wait(120);
        }
        run(&mut command(&name), 300).ok();
        let dir = folder.path().join(&name);
        assert_eq!(trained(&dir), (1..=STEPS).collect::<Vec<_>>(), "{name}");
        assert!(tensors(&dir, STEPS) == expected, "{name}: other tensors than the uninterrupted run");
    }
}
