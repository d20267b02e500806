//! A host that others use, too.

use crate::common::{events, run, samples, segdist, tiny};
use std::process::{Child, Command, Stdio};

/// Processes that only use cores, until they are dropped.
struct Spinning(Vec<Child>);

impl Spinning {
    fn start(count: usize) -> Spinning {
        let spin = |_| Command::new("sh").args(["-c", "while :; do :; done"]).stdout(Stdio::null()).spawn().unwrap();
        Spinning((0..count).map(spin).collect())
    }
}

impl Drop for Spinning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_run_says_once_that_the_machine_is_busy_with_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let (root, dir) = (folder.path().join("data"), folder.path().join("run"));
    samples(&root, &[(48, 32), (32, 48)], 4, 1);
    let cores = std::thread::available_parallelism().unwrap().get();
    let others = Spinning::start(2 * cores);
    let mut arguments = tiny(&root, &dir, 100_000);
    // Ends by itself with a checkpoint, after a while of steps.
    arguments.extend(["TRAIN.max_minutes=0.25".into(), "DATASET.list_val=".into(), "TRAIN.disp_iter=1000".into()]);
    let ended = run(segdist().args(&arguments).env("OMP_NUM_THREADS", cores.to_string()), 120);
    drop(others);
    assert_eq!((ended.code, events(&dir, "stopped").len()), (75, 1), "{}", ended.all());
    assert_eq!(ended.stderr.matches("the machine is busy with something else").count(), 1, "{}", ended.all());
}
