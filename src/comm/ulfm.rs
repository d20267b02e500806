//! User Level Failure Mitigation (Bland et al. 2013): the calls by which living ranks go on after others have died.
//!
//! They are extensions of MPI that Open MPI has from version 5 on, working under `mpirun --with-ft ulfm`. They are looked
//! up at run time, so that the program builds and runs with any MPI.

use mpi::ffi::{MPI_Comm, MPI_Error_class};
use std::ffi::{CStr, c_int, c_void};

unsafe extern "C" {
    fn segdist_mpi_err_proc_failed() -> c_int;
}

/// The calls of this process's MPI library.
#[derive(Clone, Copy)]
pub struct Ulfm {
    revoke: Simple,
    shrink: Shrink,
    agree: Agree,
    acknowledge: Simple,
}

type Simple = unsafe extern "C" fn(MPI_Comm) -> c_int;
type Shrink = unsafe extern "C" fn(MPI_Comm, *mut MPI_Comm) -> c_int;
type Agree = unsafe extern "C" fn(MPI_Comm, *mut c_int) -> c_int;

/// What Open MPI's launcher sets when ranks may die.
const SWITCH: &str = "OMPI_MCA_mpi_ft_enable";

impl Ulfm {
    /// Finds the calls; the reason where they are missing or switched off.
    pub fn find() -> Result<Ulfm, String> {
        let find = |name| symbol(name).ok_or("this MPI library has no MPIX_Comm_shrink: Open MPI 5 has");
        let switched_on = std::env::var(SWITCH).is_ok_and(|value| ["1", "true", "yes"].contains(&value.as_str()));
        // SAFETY: the types are those that the ULFM specification gives these names.
        let ulfm = unsafe {
            Ulfm {
                revoke: std::mem::transmute::<*mut c_void, Simple>(find(c"MPIX_Comm_revoke")?),
                shrink: std::mem::transmute::<*mut c_void, Shrink>(find(c"MPIX_Comm_shrink")?),
                agree: std::mem::transmute::<*mut c_void, Agree>(find(c"MPIX_Comm_agree")?),
                acknowledge: std::mem::transmute::<*mut c_void, Simple>(find(c"MPIX_Comm_failure_ack")?),
            }
        };
        if !switched_on {
            return Err("start it with Open MPI 5's mpirun --with-ft ulfm (launch/mpirun.sh --elastic does)".into());
        }
        Ok(ulfm)
    }

    /// Makes every operation on the communicator fail, on all ranks.
    pub fn revoke(&self, comm: MPI_Comm) -> c_int {
        // SAFETY: the communicator is live; it may be revoked from any thread, and more than once.
        unsafe { (self.revoke)(comm) }
    }

    /// A communicator of the living ranks.
    pub fn shrink(&self, comm: MPI_Comm) -> Result<MPI_Comm, c_int> {
        let mut new = std::mem::MaybeUninit::uninit();
        // SAFETY: the communicator is live and the pointer valid; on success the new one is written.
        match unsafe { (self.shrink)(comm, new.as_mut_ptr()) } {
            // SAFETY: as above.
            0 => Ok(unsafe { new.assume_init() }),
            code => Err(code),
        }
    }

    /// Whether all living ranks say yes. A death that nobody has heard of yet is an error code beside a valid answer.
    pub fn agree(&self, comm: MPI_Comm, yes: bool) -> Result<bool, c_int> {
        let mut flag = c_int::from(yes);
        // SAFETY: the communicator is live and the pointer valid.
        let code = unsafe { (self.agree)(comm, &mut flag) };
        if code != 0 && !died(code) {
            return Err(code);
        }
        if code != 0 {
            // SAFETY: the communicator is live.
            unsafe { (self.acknowledge)(comm) };
        }
        Ok(flag != 0)
    }
}

/// Whether an operation failed because a rank has died.
fn died(code: c_int) -> bool {
    let mut class = 0;
    // SAFETY: the pointer is valid; the shim only returns a constant.
    unsafe { MPI_Error_class(code, &mut class) == 0 && class == segdist_mpi_err_proc_failed() }
}

/// The address of a name in what is loaded.
pub fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends with a zero byte; looking it up in what is loaded changes nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
