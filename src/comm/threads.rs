//! Ranks as threads of one process, so that a test can run several without mpirun.
//!
//! Every collective gathers all ranks' bytes at a rendezvous and folds them in rank order.

use super::{Comm, CommError};
use std::sync::{Arc, Condvar, Mutex};

/// One rank of a group of threads.
pub struct ThreadComm {
    rank: usize,
    group: Arc<Group>,
}

struct Group {
    size: usize,
    state: Mutex<Round>,
    turn: Condvar,
}

#[derive(Default)]
struct Round {
    number: u64,
    arrived: usize,
    parts: Vec<Vec<u8>>,
    /// What the last finished round collected; kept until the next one finishes.
    result: Arc<Vec<Vec<u8>>>,
    child: Option<Arc<Group>>,
}

impl Group {
    fn new(size: usize) -> Arc<Self> {
        let state = Round { parts: vec![Vec::new(); size], ..Round::default() };
        Arc::new(Group { size, state: Mutex::new(state), turn: Condvar::new() })
    }

    /// Leaves `bytes` and returns everyone's. The last to arrive closes the round and, if asked, makes a new group.
    fn meet(&self, rank: usize, bytes: &[u8], split: bool) -> (Arc<Vec<Vec<u8>>>, Option<Arc<Group>>) {
        let mut round = self.state.lock().expect("a rank thread panicked inside a collective");
        let number = round.number;
        round.parts[rank] = bytes.to_vec();
        round.arrived += 1;
        if round.arrived == self.size {
            round.result = Arc::new(std::mem::replace(&mut round.parts, vec![Vec::new(); self.size]));
            round.child = split.then(|| Group::new(self.size));
            round.arrived = 0;
            round.number += 1;
            self.turn.notify_all();
        } else {
            while round.number == number {
                round = self.turn.wait(round).expect("a rank thread panicked inside a collective");
            }
        }
        (round.result.clone(), round.child.clone())
    }
}

/// Runs `body` once per rank, each on a thread of its own, and returns the results in rank order.
pub fn run<T: Send>(size: usize, body: impl Fn(Arc<dyn Comm>) -> T + Sync) -> Vec<T> {
    let group = Group::new(size);
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                let comm: Arc<dyn Comm> = Arc::new(ThreadComm { rank, group: group.clone() });
                let body = &body;
                scope.spawn(move || body(comm))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank thread panicked")).collect()
    })
}

macro_rules! sum {
    ($self:ident, $values:ident, $type:ty) => {{
        let bytes: Vec<u8> = $values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (parts, _) = $self.group.meet($self.rank, &bytes, false);
        $values.fill(0 as $type);
        for part in parts.iter() {
            for (value, bytes) in $values.iter_mut().zip(part.chunks_exact(size_of::<$type>())) {
                *value += <$type>::from_le_bytes(bytes.try_into().expect("chunks have the type's size"));
            }
        }
        Ok(())
    }};
}

impl Comm for ThreadComm {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.group.size
    }
    fn all_reduce_f32(&self, values: &mut [f32]) -> Result<(), CommError> {
        sum!(self, values, f32)
    }
    fn all_reduce_f64(&self, values: &mut [f64]) -> Result<(), CommError> {
        sum!(self, values, f64)
    }
    fn all_reduce_i64(&self, values: &mut [i64]) -> Result<(), CommError> {
        sum!(self, values, i64)
    }
    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<(), CommError> {
        let (parts, _) = self.group.meet(self.rank, bytes, false);
        bytes.copy_from_slice(&parts[root]);
        Ok(())
    }
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError> {
        Ok(self.group.meet(self.rank, bytes, false).0.to_vec())
    }
    fn all_to_all(&self, bytes: &[u8]) -> Result<Vec<u8>, CommError> {
        let part = bytes.len() / self.group.size;
        let (parts, _) = self.group.meet(self.rank, bytes, false);
        Ok(parts.iter().flat_map(|bytes| &bytes[self.rank * part..][..part]).copied().collect())
    }
    fn barrier(&self) -> Result<(), CommError> {
        self.group.meet(self.rank, &[], false);
        Ok(())
    }
    fn duplicate(&self) -> Result<Arc<dyn Comm>, CommError> {
        let (_, child) = self.group.meet(self.rank, &[], true);
        let group = child.expect("the last rank to arrive made the group");
        Ok(Arc::new(ThreadComm { rank: self.rank, group }))
    }
    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
