//! How libtorch's threads wait for each other.
//!
//! GCC's OpenMP lets them spin for some milliseconds at each of a step's thousands of barriers. That is fine while
//! every thread has a core; beside one other busy process the spinning keeps the very thread from running that all are
//! waiting for, and a step takes 15 to 100 times longer. Sleeping instead costs a wake-up, some microseconds.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// libgomp's variables for it (GCC's libgomp manual); a user who has set any of them has decided.
const DECIDED: [&str; 3] = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"];

/// Has threads sleep while they wait, unless the user has decided how they do.
///
/// The library reads the variable when it is loaded, before `main`, so the program starts itself again with it: the same
/// process with the same arguments. To be called before anything else, MPI above all. Returns where there is nothing to
/// do.
///
/// # Errors
/// What kept it from starting again; it runs on as it is.
pub fn wait_without_spinning() -> io::Result<()> {
    if DECIDED.iter().any(|name| env::var_os(name).is_some()) {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "segdist".into());
    let again = Command::new(env::current_exe()?).arg0(name).args(arguments).env("OMP_WAIT_POLICY", "PASSIVE").exec();
    Err(again)
}
