//! The memory of a GPU as MPI gets it, and whether this MPI can read it.

use super::ulfm::symbol;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;

/// f32 values in the memory of this rank's GPU, lent for one operation. The processor cannot read them.
pub struct DeviceValues<'a> {
    address: *mut f32,
    count: usize,
    lent: PhantomData<&'a mut f32>,
}

impl DeviceValues<'_> {
    /// # Safety
    /// `count` f32 lie at `address` in the memory of a GPU, for as long as the result lives; no kernel writes or reads
    /// them meanwhile.
    pub unsafe fn new(address: *mut f32, count: usize) -> Self {
        DeviceValues { address, count, lent: PhantomData }
    }

    /// How many bytes they are.
    pub fn bytes(&self) -> usize {
        self.count * size_of::<f32>()
    }

    /// Addresses and lengths of its parts of at most `most` values.
    pub fn parts(&self, most: usize) -> impl Iterator<Item = (*mut c_void, usize)> {
        let starts = (0..self.count).step_by(most);
        starts.map(move |start| (self.address.wrapping_add(start).cast(), most.min(self.count - start)))
    }
}

/// Whether this MPI library says that it takes addresses of a GPU; the reason where it does not. MPI must be running.
pub fn cuda_aware() -> Result<(), String> {
    let Some(query) = symbol(c"MPIX_Query_cuda_support") else {
        return Err("this MPI library cannot be asked for CUDA support (it has no MPIX_Query_cuda_support)".into());
    };
    // SAFETY: Open MPI, MPICH and their kin give this name the type int (void).
    let query = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(query) };
    // SAFETY: it takes nothing and only reads the library's own state.
    match unsafe { query() } {
        1 => Ok(()),
        _ => Err("this MPI library was built without CUDA support, or finds no GPU".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_into_parts_that_follow_each_other() {
        // SAFETY: nothing is read or written through the address.
        let values = unsafe { DeviceValues::new(std::ptr::without_provenance_mut(4096), 10) };
        let parts: Vec<_> = values.parts(4).map(|(address, count)| (address.addr(), count)).collect();
        assert_eq!(parts, [(4096, 4), (4112, 4), (4128, 2)]);
    }
}
