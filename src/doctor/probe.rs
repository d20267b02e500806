//! What takes all ranks to find out: whether sums are right, how fast they are, whether clocks and folders agree.

use crate::comm::{Comm, CommError};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Findings of all ranks together, the same on each.
#[derive(Debug, Default, Serialize)]
pub struct Measured {
    /// Ranks whose sums of known values came out wrong.
    pub wrong_sums: Vec<usize>,
    pub allreduce: Vec<Timing>,
    /// Largest difference of a rank's clock from rank 0's, in seconds, and that rank.
    pub clock_skew_s: f64,
    pub clock_rank: usize,
    /// Whether rank 0 may write into the folder.
    pub writable: bool,
    /// Ranks that do not see what rank 0 writes there.
    pub blind: Vec<usize>,
}

/// Time of one sum of `bytes` over all ranks, the median of a few.
#[derive(Debug, Serialize)]
pub struct Timing {
    pub bytes: usize,
    pub time_us: f64,
    /// What a perfect network would carry per link, in GB/s: 2(n-1)/n times the bytes per second.
    pub busbw_gbps: f64,
}

/// Bytes of the sums that are timed: one value, a small bucket of gradients, a large one.
pub const SIZES: [usize; 3] = [4, 1 << 20, 1 << 24];
const REPEATS: usize = 5;

/// Measures, with sums of `sizes` bytes. A collective.
pub fn measure(comm: &dyn Comm, folder: &Path, sizes: &[usize]) -> Result<Measured, CommError> {
    let wrong_sums = ranks_where(comm, !sums_are_right(comm)?)?;
    let allreduce = sizes.iter().map(|&bytes| time_sum(comm, bytes)).collect::<Result<_, _>>()?;
    let (clock_skew_s, clock_rank) = clock_skew(comm)?;
    let (writable, blind) = look_for_mark(comm, folder)?;
    Ok(Measured { wrong_sums, allreduce, clock_skew_s, clock_rank, writable, blind })
}

/// The ranks on which `here` holds. A collective.
fn ranks_where(comm: &dyn Comm, here: bool) -> Result<Vec<usize>, CommError> {
    let flags = comm.all_gather(&[u8::from(here)])?;
    Ok((0..flags.len()).filter(|&rank| flags[rank] == [1]).collect())
}

/// Sums values that every rank can predict, in lengths that take different paths through MPI.
fn sums_are_right(comm: &dyn Comm) -> Result<bool, CommError> {
    let mine = (comm.rank() % 16 + 1) as i64;
    let total: i64 = (0..comm.size()).map(|rank| (rank % 16 + 1) as i64).sum();
    let pattern = |index: usize| index as i64 % 7 + 1;
    let mut right = true;
    for length in [1, 1000, 50_001] {
        let mut integers: Vec<i64> = (0..length).map(|index| mine * pattern(index)).collect();
        let mut floats: Vec<f32> = integers.iter().map(|&value| value as f32).collect();
        comm.all_reduce_i64(&mut integers)?;
        comm.all_reduce_f32(&mut floats)?;
        let expected = |index: usize| total * pattern(index);
        right &= (0..length).all(|index| integers[index] == expected(index) && floats[index] == expected(index) as f32);
    }
    Ok(right)
}

fn time_sum(comm: &dyn Comm, bytes: usize) -> Result<Timing, CommError> {
    let mut values = vec![0f32; bytes / 4];
    comm.all_reduce_f32(&mut values)?;
    let mut times = [Duration::ZERO; REPEATS];
    for time in &mut times {
        comm.barrier()?;
        let start = Instant::now();
        comm.all_reduce_f32(&mut values)?;
        *time = start.elapsed();
    }
    times.sort();
    let seconds = times[REPEATS / 2].as_secs_f64().max(1e-9);
    let share = 2.0 * (comm.size() - 1) as f64 / comm.size() as f64;
    Ok(Timing { bytes, time_us: seconds * 1e6, busbw_gbps: share * bytes as f64 / seconds / 1e9 })
}

/// Compares clocks right after barriers; the smallest difference of a few is the closest to the truth.
fn clock_skew(comm: &dyn Comm) -> Result<(f64, usize), CommError> {
    let mut smallest = vec![f64::INFINITY; comm.size()];
    for _ in 0..REPEATS {
        comm.barrier()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let clocks = comm.all_gather(&now.to_le_bytes())?;
        let clock = |rank: usize| clocks[rank].as_slice().try_into().map_or(f64::NAN, f64::from_le_bytes);
        for (rank, skew) in smallest.iter_mut().enumerate() {
            *skew = skew.min((clock(rank) - clock(0)).abs());
        }
    }
    let worst = smallest.into_iter().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    Ok(worst.map_or((0.0, 0), |(rank, skew)| (skew, rank)))
}

/// Rank 0 leaves a file for a moment; who does not see it has another folder under the same name.
fn look_for_mark(comm: &dyn Comm, folder: &Path) -> Result<(bool, Vec<usize>), CommError> {
    let mut name = std::process::id().to_le_bytes();
    comm.broadcast(0, &mut name)?;
    let mark = folder.join(format!(".segdist-doctor-{}", u32::from_le_bytes(name)));
    let written = comm.is_root() && fs::write(&mark, b"").is_ok();
    let writable = !ranks_where(comm, written)?.is_empty();
    // Listing the folder first makes NFS look again.
    let _ = fs::read_dir(folder).map(Iterator::count);
    let blind = ranks_where(comm, writable && !mark.exists())?;
    if written {
        let _ = fs::remove_file(&mark);
    }
    Ok((writable, blind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn ranks_of_one_machine_agree_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        for measured in threads::run(3, |comm| measure(&*comm, folder.path(), &[4, 4096]).unwrap()) {
            assert_eq!((measured.wrong_sums.len(), measured.writable, measured.blind.len()), (0, true, 0));
            assert!(measured.clock_skew_s < 1.0);
            assert_eq!(measured.allreduce.len(), 2);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
