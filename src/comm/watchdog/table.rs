//! What is known of every rank, and whom to blame. Pure: time comes in as durations.

use super::Limits;
use super::beat::Beat;
use super::peer::Peer;
use std::time::Duration;

/// A rank whose connection has ended without farewell is given up after this long.
const GONE: Duration = Duration::from_secs(3);

/// Others named in a verdict.
const SHOWN: usize = 4;

/// The watched ranks.
pub struct Table {
    rows: Vec<Row>,
    /// These are all ranks.
    whole: bool,
}

struct Row {
    rank: usize,
    place: String,
    last: Option<Beat>,
    /// Since the last heartbeat.
    silent: Duration,
    /// Since the last heartbeat that told of progress.
    stuck: Duration,
    /// Its connection has ended.
    lost: bool,
    finished: bool,
}

impl Table {
    /// A table of the ranks `watched`.
    pub fn new(peers: &[Peer], watched: Vec<usize>) -> Table {
        let row = |rank: usize| Row {
            rank,
            place: format!("host {}, pid {}", peers[rank].host, peers[rank].pid),
            last: None,
            silent: Duration::ZERO,
            stuck: Duration::ZERO,
            lost: false,
            finished: false,
        };
        Table { whole: watched.len() == peers.len(), rows: watched.into_iter().map(row).collect() }
    }

    /// Time has passed.
    pub fn age(&mut self, passed: Duration) {
        for row in &mut self.rows {
            row.silent += passed;
            row.stuck += passed;
        }
    }

    /// A heartbeat has arrived; one of a rank that is not watched is ignored.
    pub fn heard(&mut self, beat: &Beat) {
        let Some(row) = self.rows.iter_mut().find(|row| row.rank == beat.rank) else { return };
        row.silent = Duration::ZERO;
        // It has connected again.
        row.lost = false;
        row.finished |= beat.last;
        if row.last.as_ref().is_none_or(|last| (last.ticks, last.collectives) != (beat.ticks, beat.collectives)) {
            row.stuck = Duration::ZERO;
        }
        row.last = Some(beat.clone());
    }

    /// Whether every rank has sent a heartbeat.
    pub fn all_heard(&self) -> bool {
        self.rows.iter().all(|row| row.last.is_some())
    }

    /// A rank's connection has ended.
    pub fn lost(&mut self, rank: usize) {
        self.rows.iter_mut().filter(|row| row.rank == rank).for_each(|row| row.lost = true);
    }

    /// A rank is not watched any more.
    pub fn forget(&mut self, rank: usize) {
        self.rows.retain(|row| row.rank != rank);
    }

    /// The message with which to end the job, if it has come to that.
    ///
    /// A rank that was never heard is not blamed while another goes on: a firewall between the sockets must not end a
    /// job that MPI runs.
    pub fn verdict(&self, limits: &Limits) -> Option<String> {
        let started = self.known().any(|(_, last)| last.step > 0);
        let limit = if started { limits.stall } else { limits.start };
        let patience = |row: &Row| if row.lost { GONE.min(limits.stall) } else { limits.stall };
        let silent = self.known().filter(|(row, _)| row.silent >= patience(row)).max_by_key(|(row, _)| row.silent);
        if let Some((row, last)) = silent {
            let time = row.silent.as_secs_f64();
            return Some(self.blame(row, &format!("is silent for {time:.0} s, last seen in {}", place(last))));
        }
        // Who waits in a collective is not to blame while another, such as one with more to evaluate, goes on.
        let all_stuck = self.whole && self.known().all(|(row, _)| row.stuck >= limit);
        let all_wait = self.known().next().is_some() && self.known().all(|(_, last)| last.waits);
        if all_stuck
            && all_wait
            && let Some(row) = self.rows.iter().find(|row| row.last.is_none())
        {
            return Some(self.blame(row, "was never heard"));
        }
        // All wait for whoever is in no collective or, failing that, has come least far.
        let blamed = self.known().filter(|(row, last)| row.stuck >= limit && (all_stuck || !last.waits));
        let (row, last) = blamed.min_by_key(|(_, last)| (last.waits, last.step, last.ticks, last.collectives))?;
        let time = row.stuck.as_secs_f64();
        Some(self.blame(row, &format!("makes no progress for {time:.0} s, last seen in {}", place(last))))
    }

    /// Those under way that have been heard.
    fn known(&self) -> impl Iterator<Item = (&Row, &Beat)> {
        let active = self.rows.iter().filter(|row| !row.finished);
        active.filter_map(|row| row.last.as_ref().map(|last| (row, last)))
    }

    fn blame(&self, row: &Row, state: &str) -> String {
        let others = self.known().filter(|(other, _)| other.rank != row.rank).take(SHOWN);
        let others: Vec<String> =
            others.map(|(other, last)| format!("rank {} in {}", other.rank, place(last))).collect();
        let others = if others.is_empty() { String::new() } else { format!("; waiting for it: {}", others.join(", ")) };
        format!("rank {} ({}) {state}{others}", row.rank, row.place)
    }
}

/// Where a rank is in its work.
fn place(beat: &Beat) -> String {
    format!("{} of step {}, collective {}", beat.phase, beat.step, beat.collectives)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { start: Duration::from_secs(300), stall: Duration::from_secs(10), survives: false };

    fn table(ranks: usize) -> Table {
        let peer = |rank: usize| Peer { host: format!("node{rank}"), pid: 100 + rank as u32, ..Peer::default() };
        Table::new(&(0..ranks).map(peer).collect::<Vec<_>>(), (0..ranks).collect())
    }

    fn beat(rank: usize, step: u64, ticks: u64) -> Beat {
        Beat { rank, last: false, step, ticks, collectives: 7, waits: false, phase: "gradients".into() }
    }

    /// Seconds pass in which the ranks named beat as they are told.
    fn pass(table: &mut Table, seconds: u64, beats: &[Beat]) {
        for _ in 0..seconds {
            table.age(Duration::from_secs(1));
            beats.iter().for_each(|beat| table.heard(beat));
        }
    }

    #[test]
    fn a_silent_rank_is_named_with_host_pid_and_place() {
        let mut table = table(2);
        pass(&mut table, 1, &[beat(0, 4, 9), beat(1, 4, 9)]);
        pass(&mut table, 9, &[beat(0, 4, 10)]);
        assert_eq!(table.verdict(&LIMITS), None);
        pass(&mut table, 1, &[beat(0, 4, 10)]);
        let verdict = table.verdict(&LIMITS).unwrap();
        assert!(
            verdict.starts_with("rank 1 (host node1, pid 101) is silent for 10 s, last seen in gradients of step 4")
        );
        assert!(verdict.contains("rank 0 in gradients"), "{verdict}");
    }

    #[test]
    fn a_rank_whose_connection_ended_is_given_up_early() {
        let mut table = table(2);
        pass(&mut table, 1, &[beat(0, 4, 9), beat(1, 4, 9)]);
        table.lost(1);
        pass(&mut table, 3, &[beat(0, 4, 10)]);
        assert!(table.verdict(&LIMITS).unwrap().starts_with("rank 1"));
    }

    #[test]
    fn a_rank_that_connects_again_has_its_whole_time_again() {
        let mut table = table(2);
        pass(&mut table, 1, &[beat(0, 4, 9), beat(1, 4, 9)]);
        table.lost(1);
        pass(&mut table, 2, &[beat(0, 4, 10)]);
        pass(&mut table, 1, &[beat(0, 4, 11), beat(1, 4, 10)]);
        pass(&mut table, 9, &[beat(0, 4, 12)]);
        assert_eq!(table.verdict(&LIMITS), None);
        pass(&mut table, 1, &[beat(0, 4, 13)]);
        assert!(table.verdict(&LIMITS).unwrap().starts_with("rank 1"));
    }

    #[test]
    fn of_ranks_that_stand_still_the_one_behind_is_named() {
        let mut table = table(3);
        pass(&mut table, 12, &[beat(0, 4, 9), beat(1, 4, 8), beat(2, 4, 9)]);
        let verdict = table.verdict(&LIMITS).unwrap();
        assert!(verdict.starts_with("rank 1 (host node1, pid 101) makes no progress"), "{verdict}");
    }

    #[test]
    fn ranks_that_wait_are_not_blamed_while_another_goes_on() {
        let mut table = table(3);
        let waiting = |rank| Beat { waits: true, ..beat(rank, 4, 9) };
        for tick in 0..40 {
            pass(&mut table, 1, &[waiting(0), beat(1, 4, 10 + tick), waiting(2)]);
            assert_eq!(table.verdict(&LIMITS), None);
        }
        pass(&mut table, 12, &[waiting(0), beat(1, 4, 49), waiting(2)]);
        let verdict = table.verdict(&LIMITS).unwrap();
        assert!(verdict.starts_with("rank 1 (host node1, pid 101) makes no progress"), "{verdict}");
    }

    #[test]
    fn one_that_was_never_heard_is_named_when_all_others_wait() {
        let mut table = table(3);
        let waiting = |rank| Beat { waits: true, ..beat(rank, 4, 9) };
        pass(&mut table, 8, &[waiting(0), waiting(2)]);
        assert_eq!(table.verdict(&LIMITS), None);
        pass(&mut table, 4, &[waiting(0), waiting(2)]);
        let verdict = table.verdict(&LIMITS).unwrap();
        assert!(
            verdict.starts_with("rank 1 (host node1, pid 101) was never heard; waiting for it: rank 0"),
            "{verdict}"
        );
        pass(&mut table, 1, &[waiting(0), beat(2, 4, 9)]);
        let verdict = table.verdict(&LIMITS).unwrap();
        assert!(verdict.starts_with("rank 2 (host node2, pid 102) makes no progress"), "{verdict}");
    }

    #[test]
    fn the_first_step_has_its_own_limit() {
        let mut table = table(1);
        pass(&mut table, 299, &[beat(0, 0, 1)]);
        assert_eq!(table.verdict(&LIMITS), None);
        pass(&mut table, 2, &[beat(0, 0, 1)]);
        assert!(table.verdict(&LIMITS).is_some());
    }

    #[test]
    fn neither_a_finished_rank_nor_one_never_heard_is_blamed() {
        let mut table = table(3);
        table.heard(&Beat { last: true, ..beat(1, 4, 9) });
        for tick in 0..400 {
            pass(&mut table, 1, &[beat(0, 4, tick)]);
        }
        assert_eq!(table.verdict(&LIMITS), None);
    }
}
