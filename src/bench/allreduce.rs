//! Times sums of f32 over all ranks at message sizes from 4 B to 256 MiB, in the columns of nccl-tests.

use super::median;
use crate::comm::Comm;
use anyhow::bail;
use serde_json::json;
use std::time::Instant;

const SMALLEST: usize = 4;
const LARGEST: usize = 256 << 20;
/// About how many bytes each size moves in all.
const BUDGET: usize = 512 << 20;

/// Prints one row a size: bytes, time_us (median), algbw_gbps = bytes ÷ time and busbw_gbps = algbw·2(n − 1)/n, in
/// 10⁹ bytes a second.
pub fn run(comm: &dyn Comm, json: bool) -> anyhow::Result<()> {
    let sizes = std::iter::successors(Some(SMALLEST), |bytes| Some(bytes * 4)).take_while(|bytes| *bytes <= LARGEST);
    let mut rows = Vec::new();
    for bytes in sizes {
        let seconds = time(comm, bytes)?;
        let algbw = bytes as f64 / seconds / 1e9;
        let busbw = algbw * 2.0 * (comm.size() as f64 - 1.0) / comm.size() as f64;
        rows.push(json!({
            "bytes": bytes,
            "time_us": seconds * 1e6,
            "algbw_gbps": algbw,
            "busbw_gbps": busbw,
        }));
    }
    if comm.is_root() {
        super::print(&json!({ "ranks": comm.size(), "rows": rows }), json);
    }
    Ok(())
}

/// Median seconds of one sum of `bytes`; every result is checked.
fn time(comm: &dyn Comm, bytes: usize) -> anyhow::Result<f64> {
    let repeats = (BUDGET / bytes).clamp(3, 20);
    let mut values = vec![0f32; bytes / 4];
    let mut times = Vec::new();
    for repeat in 0..=repeats {
        // Small integers: their sums are exact in any order.
        let own = |at: usize| ((at + comm.rank() + repeat) % 8) as f32;
        values.iter_mut().enumerate().for_each(|(at, value)| *value = own(at));
        comm.barrier()?;
        let start = Instant::now();
        comm.all_reduce_f32(&mut values)?;
        if repeat > 0 {
            times.push(start.elapsed().as_secs_f64());
        }
        let expected = |at: usize| (0..comm.size()).map(|rank| ((at + rank + repeat) % 8) as f32).sum::<f32>();
        if let Some(at) = (0..values.len()).find(|at| values[*at] != expected(*at)) {
            bail!("rank {}: value {at} of a sum of {bytes} bytes is {}, not {}", comm.rank(), values[at], expected(at));
        }
    }
    Ok(median(&mut times))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::threads;

    #[test]
    fn sums_over_ranks_are_right() {
        assert!(threads::run(3, |comm| time(comm.as_ref(), 4096).unwrap()).iter().all(|seconds| *seconds > 0.0));
    }
}
