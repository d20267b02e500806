//! A heartbeat and its 64 bytes on the wire: 48 of content, and 16 that only a rank of the same job can have made.

/// A random number that only the ranks of one job know. It never travels over the watchdog's own connections.
pub type Token = [u8; 32];
/// A random number that a watcher sends to whoever connects, never twice the same.
pub type Challenge = [u8; 32];

/// Length of a sealed heartbeat.
pub const BYTES: usize = 64;
const SEAL: usize = 16;
const PHASE: usize = 15;

/// How far a rank's work has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    pub rank: usize,
    /// The rank ends its watch in order.
    pub last: bool,
    pub step: u64,
    pub ticks: u64,
    /// Finished collectives.
    pub collectives: u64,
    /// The rank is in a collective and computes nothing.
    pub waits: bool,
    pub phase: String,
}

impl Beat {
    fn write(&self, content: &mut [u8]) {
        content[..8].copy_from_slice(&(self.rank as u64).to_le_bytes());
        content[8..16].copy_from_slice(&self.step.to_le_bytes());
        content[16..24].copy_from_slice(&self.ticks.to_le_bytes());
        content[24..32].copy_from_slice(&self.collectives.to_le_bytes());
        content[32] = u8::from(self.last) + 2 * u8::from(self.waits);
        let phase = &self.phase.as_bytes()[..self.phase.len().min(PHASE)];
        content[33..33 + phase.len()].copy_from_slice(phase);
    }

    fn read(content: &[u8]) -> Beat {
        let number = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().expect("eight bytes"));
        Beat {
            rank: number(0) as usize,
            last: content[32] & 1 > 0,
            step: number(8),
            ticks: number(16),
            collectives: number(24),
            waits: content[32] & 2 > 0,
            phase: String::from_utf8_lossy(&content[33..]).trim_end_matches('\0').to_string(),
        }
    }
}

/// One connection's key and count, kept by both sides: a heartbeat of another job, changed, repeated or out of turn is
/// none. BLAKE3's keyed hash is the message authentication code (O'Connor et al. 2020, section 6.2).
pub struct Seal {
    key: [u8; 32],
    /// Heartbeats so far.
    count: u64,
}

impl Seal {
    /// The seal of a connection whose watcher has sent `challenge`.
    pub fn new(token: &Token, challenge: &Challenge) -> Seal {
        Seal { key: *blake3::keyed_hash(token, challenge).as_bytes(), count: 0 }
    }

    /// The next heartbeat's bytes; they are the next until [`Seal::sent`].
    pub fn close(&self, beat: &Beat) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let (seal, content) = bytes.split_at_mut(SEAL);
        beat.write(content);
        seal.copy_from_slice(&self.code(content));
        bytes
    }

    /// The bytes have left.
    pub fn sent(&mut self) {
        self.count += 1;
    }

    /// The heartbeat, if these are the next one's bytes.
    pub fn open(&mut self, bytes: &[u8; BYTES]) -> Option<Beat> {
        let (seal, content) = bytes.split_at(SEAL);
        // Without a shortcut at the first difference, whose time would tell how many bytes are right.
        let difference = seal.iter().zip(self.code(content)).fold(0, |all, (a, b)| all | (a ^ b));
        (difference == 0).then(|| {
            self.count += 1;
            Beat::read(content)
        })
    }

    fn code(&self, content: &[u8]) -> [u8; SEAL] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.count.to_le_bytes()).update(content);
        std::array::from_fn(|i| hasher.finalize().as_bytes()[i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat() -> Beat {
        let (step, ticks, collectives, phase) = (9, 44, 812, "gradients".into());
        Beat { rank: 3, last: true, step, ticks, collectives, waits: true, phase }
    }

    #[test]
    fn a_beat_survives_the_wire_and_a_strange_changed_or_repeated_one_does_not() {
        let seal = || Seal::new(&[7; 32], &[1; 32]);
        let bytes = seal().close(&beat());
        let mut watcher = seal();
        assert_eq!(watcher.open(&bytes), Some(beat()));
        assert_eq!(watcher.open(&bytes), None, "repeated");
        for (token, challenge) in [([8; 32], [1; 32]), ([7; 32], [2; 32])] {
            assert_eq!(Seal::new(&token, &challenge).open(&bytes), None, "another job's or connection's");
        }
        for at in 0..BYTES {
            let mut changed = bytes;
            changed[at] ^= 4;
            assert_eq!(seal().open(&changed), None, "byte {at} changed");
        }
    }

    #[test]
    fn what_could_not_be_sent_leaves_the_next_one_valid() {
        let (mut sender, mut watcher) = (Seal::new(&[7; 32], &[1; 32]), Seal::new(&[7; 32], &[1; 32]));
        let _not_sent = sender.close(&beat());
        for step in 0..3 {
            let next = Beat { step, ..beat() };
            let bytes = sender.close(&next);
            sender.sent();
            assert_eq!(watcher.open(&bytes), Some(next));
        }
    }
}
