//! How libtorch's threads wait for each other.
//!
//! GCC's OpenMP lets them spin for some milliseconds at each of a step's thousands of barriers. That is fine while
//! every thread has a core; beside one other busy process the spinning keeps the very thread from running that all are
//! waiting for, and a step takes 15 to 100 times longer. Sleeping at once costs a wake-up at every barrier, a tenth of an
//! idle machine's speed. A short spin loses neither: 1,000 turns, some microseconds, are what libgomp itself takes where it
//! sees more threads than cores.
//!
//! ResNet-18 dilated with pyramid pooling, 2 × 160 × 160 on two cores, seconds a step (`segdist bench step` with
//! GOMP_SPINCOUNT or OMP_WAIT_POLICY, medians): idle 0.28 by libgomp's default, 0.28 with 1,000 turns, 0.31 asleep; beside
//! one busy process 0.56 with 1,000 turns, 0.79 with 10,000, 0.54 asleep.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// libgomp's variables for it (GCC's libgomp manual); a user who has set any of them has decided.
const DECIDED: [&str; 3] = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"];

/// Turns of the loop in which a thread waits before it sleeps.
const SPIN: &str = "1000";

/// Has threads sleep after a short while of waiting, unless the user has decided how they do.
///
/// The library reads the variable when it is loaded, before `main`, so the program starts itself again with it: the same
/// process with the same arguments. To be called before anything else, MPI above all. Returns where there is nothing to
/// do.
///
/// # Errors
/// What kept it from starting again; it runs on as it is.
pub fn spin_briefly() -> io::Result<()> {
    if DECIDED.iter().any(|name| env::var_os(name).is_some()) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "segdist".into());
    let again = Command::new(env::current_exe()?).arg0(name).args(arguments).env("GOMP_SPINCOUNT", SPIN).exec();
    Err(again)
}
