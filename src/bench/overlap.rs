//! How much of the gradients' way between ranks is hidden behind backward.
//!
//! The same update three ways in turn, so that whatever else a machine does falls on all three alike: buckets sent
//! beside backward, buckets sent after it, and every rank for itself. A time ends when the slowest rank is done. The
//! differences are taken within a round of the three, which a machine's slower and faster minutes change least.

use super::{median, step};
use crate::comm::{Comm, Solo};
use crate::sync::DistConfig;
use crate::torch::memory;
use crate::train::{Recipe, TrainConfig};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tch::Device;

/// Rounds before the clock counts.
const WARM_UP: u64 = 2;
const MEASURED: u64 = 15;

/// Prints the medians `overlapped_s`, `serial_s` and `alone_s`, of the serial way `backward_s` and `sum_s`, and
/// `hidden`, the median of (serial − overlapped) ÷ that of (serial − alone).
pub fn run(recipe: &Recipe, device: Device, comm: &Arc<dyn Comm>, json: bool) -> anyhow::Result<()> {
    memory::keep_freed_memory();
    let solo: Arc<dyn Comm> = Arc::new(Solo);
    // As many images a rank in all three ways.
    let train = TrainConfig { global_batch: 0, ..recipe.train.clone() };
    let [overlapped, serial] = [true, false].map(|overlap| DistConfig { overlap, ..recipe.dist.clone() });
    let mut ways = Vec::new();
    for (dist, comm) in [(&overlapped, comm), (&serial, comm), (recipe.dist, &solo)] {
        ways.push(step::trainer(&Recipe { dist, train: &train, ..*recipe }, device, comm)?);
    }
    let mut times = [(); 3].map(|()| Vec::new());
    let (mut backwards, mut sums) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + MEASURED {
        for (way, trainer) in ways.iter_mut().enumerate() {
            comm.barrier()?;
            let start = Instant::now();
            let update = step::update(trainer, device)?;
            comm.barrier()?;
            if round < WARM_UP {
                continue;
            }
            times[way].push(start.elapsed().as_secs_f64());
            if way == 1 {
                backwards.push(update.backward_s);
                sums.push(update.comm_s);
            }
        }
    }
    if comm.is_root() {
        let saved = |way: usize| {
            median(&mut times[1].iter().zip(&times[way]).map(|(serial, time)| serial - time).collect::<Vec<_>>())
        };
        let hidden = saved(0) / saved(2);
        let [overlapped_s, serial_s, alone_s] = times.each_mut().map(|times| median(times));
        let (backward_s, sum_s) = (median(&mut backwards), median(&mut sums));
        let row = json!({
            "overlapped_s": overlapped_s, "serial_s": serial_s, "alone_s": alone_s,
            "backward_s": backward_s, "sum_s": sum_s, "hidden": hidden,
        });
        super::print(&row, json);
    }
    Ok(())
}
