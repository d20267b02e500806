//! Heartbeats that arrive. Whoever connects has seconds to prove that he knows the job's token, and costs little until
//! then: he can neither take the process's descriptors nor its time.

use super::beat::{BYTES, Beat, Challenge, Seal, Token};
use super::peer;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Time for the first heartbeat.
const PROOF: Duration = Duration::from_secs(5);
/// Unproven connections that are kept, beyond one for each watched rank.
const STRANGERS: usize = 32;
/// Connections of one listener that are looked at before those that are open have their turn.
const ACCEPTS: usize = 512;

/// Receives on some listeners.
pub struct Inbox {
    listeners: Vec<TcpListener>,
    token: Token,
    challenges: Challenges,
    /// The oldest first.
    connections: Vec<Connection>,
    /// Most unproven ones.
    unproven: usize,
}

struct Connection {
    stream: TcpStream,
    since: Instant,
    seal: Seal,
    pending: Vec<u8>,
    /// Whose it is, once it has proved it.
    rank: Option<usize>,
}

/// Random numbers that do not repeat.
struct Challenges {
    secret: [u8; 32],
    count: u64,
}

/// What an inbox has to tell.
#[derive(Default)]
pub struct Received {
    pub beats: Vec<Beat>,
    /// Ranks whose connection has ended.
    pub gone: Vec<usize>,
}

impl Inbox {
    /// An inbox for the heartbeats of `watched` ranks.
    ///
    /// # Errors
    /// When the system refuses a setting, or has no randomness.
    pub fn new(listeners: Vec<TcpListener>, token: Token, watched: usize) -> std::io::Result<Inbox> {
        listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
        let challenges = Challenges { secret: peer::random()?, count: 0 };
        Ok(Inbox { listeners, token, challenges, connections: Vec::new(), unproven: watched + STRANGERS })
    }

    /// What has arrived since the last call. Connections that end or send anything else are dropped.
    pub fn receive(&mut self) -> Received {
        self.accept();
        let mut received = Received::default();
        self.connections.retain_mut(|connection| {
            let open = connection.read(&mut received.beats) && connection.is_proven_or_new();
            if !open {
                received.gone.extend(connection.rank);
            }
            open
        });
        self.drop_strangers();
        received
    }

    fn accept(&mut self) {
        for listener in &self.listeners {
            for _ in 0..ACCEPTS {
                let Ok((stream, _)) = listener.accept() else { break };
                self.connections.extend(Connection::greet(stream, &self.token, self.challenges.next()));
            }
        }
    }

    /// Of too many unproven connections, the oldest make room: a rank proves itself at once, and connects again.
    fn drop_strangers(&mut self) {
        let unproven = self.connections.iter().filter(|connection| connection.rank.is_none()).count();
        let mut many = unproven.saturating_sub(self.unproven);
        self.connections.retain(|connection| {
            let dropped = many > 0 && connection.rank.is_none();
            many -= usize::from(dropped);
            !dropped
        });
    }
}

impl Challenges {
    fn next(&mut self) -> Challenge {
        self.count += 1;
        *blake3::keyed_hash(&self.secret, &self.count.to_le_bytes()).as_bytes()
    }
}

impl Connection {
    fn greet(mut stream: TcpStream, token: &Token, challenge: Challenge) -> Option<Connection> {
        stream.set_nonblocking(true).ok()?;
        let sent = stream.write(&challenge).ok()?;
        let seal = Seal::new(token, &challenge);
        let (since, pending) = (Instant::now(), Vec::new());
        (sent == challenge.len()).then_some(Connection { stream, since, seal, pending, rank: None })
    }

    fn is_proven_or_new(&self) -> bool {
        self.rank.is_some() || self.since.elapsed() < PROOF
    }

    /// Reads what is there; whether the connection is still of use.
    fn read(&mut self, beats: &mut Vec<Beat>) -> bool {
        let mut buffer = [0; 16 * BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(cause) => return cause.kind() == ErrorKind::WouldBlock,
            }
            let (whole, rest) = self.pending.as_chunks::<BYTES>();
            for bytes in whole {
                let Some(beat) = self.seal.open(bytes) else { return false };
                if *self.rank.get_or_insert(beat.rank) != beat.rank {
                    return false;
                }
                beats.push(beat);
            }
            self.pending = rest.to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const TOKEN: Token = [9; 32];

    fn inbox(watched: usize) -> (Inbox, SocketAddr) {
        let listeners = peer::listen(true).unwrap();
        let address = listeners[0].local_addr().unwrap();
        (Inbox::new(listeners, TOKEN, watched).unwrap(), address)
    }

    fn beat(rank: usize) -> Beat {
        Beat { rank, last: false, step: 1, ticks: 2, collectives: 3, waits: false, phase: "start".into() }
    }

    /// Answers the challenge with a token; the stream stays open.
    fn answer(mut stream: &TcpStream, token: &Token) -> Seal {
        let mut challenge = [0; 32];
        stream.read_exact(&mut challenge).unwrap();
        Seal::new(token, &challenge)
    }

    /// Receives until `done`, at most ten seconds.
    fn receive_until(inbox: &mut Inbox, done: impl Fn(&Inbox, &[Beat]) -> bool) -> Vec<Beat> {
        let (mut beats, start) = (Vec::new(), Instant::now());
        while !done(inbox, &beats) {
            assert!(start.elapsed() < Duration::from_secs(10), "{beats:?}");
            beats.extend(inbox.receive().beats);
            std::thread::sleep(Duration::from_millis(5));
        }
        beats
    }

    #[test]
    fn a_rank_is_heard_and_one_with_another_token_is_dropped() {
        let (mut inbox, address) = inbox(2);
        let (mut own, mut strange) = (TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap());
        receive_until(&mut inbox, |inbox, _| inbox.connections.len() == 2);
        own.write_all(&answer(&own, &TOKEN).close(&beat(1))).unwrap();
        strange.write_all(&answer(&strange, &[8; 32]).close(&beat(1))).unwrap();
        let beats = receive_until(&mut inbox, |inbox, beats| inbox.connections.len() == 1 && !beats.is_empty());
        assert_eq!(beats, [beat(1)]);
        assert_eq!(inbox.connections[0].rank, Some(1));
        drop(own);
        receive_until(&mut inbox, |inbox, _| inbox.connections.is_empty());
    }

    #[test]
    fn a_rank_among_silent_connections_is_heard_and_those_are_bounded_and_dropped_in_seconds() {
        let (mut inbox, address) = inbox(2);
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(TcpStream::connect(address).unwrap());
            inbox.receive();
            assert!(inbox.connections.len() <= 2 + STRANGERS);
        }
        let mut own = TcpStream::connect(address).unwrap();
        inbox.receive();
        own.write_all(&answer(&own, &TOKEN).close(&beat(1))).unwrap();
        assert_eq!(receive_until(&mut inbox, |_, beats| !beats.is_empty()), [beat(1)]);
        receive_until(&mut inbox, |inbox, _| inbox.connections.len() == 1);
    }

    #[test]
    fn a_connection_speaks_for_one_rank_only() {
        let (mut inbox, address) = inbox(2);
        let mut own = TcpStream::connect(address).unwrap();
        receive_until(&mut inbox, |inbox, _| inbox.connections.len() == 1);
        let mut seal = answer(&own, &TOKEN);
        for rank in [1, 0] {
            own.write_all(&seal.close(&beat(rank))).unwrap();
            seal.sent();
        }
        assert_eq!(receive_until(&mut inbox, |inbox, _| inbox.connections.is_empty()), [beat(1)]);
    }
}
