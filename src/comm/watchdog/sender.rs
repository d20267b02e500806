//! The way of heartbeats from a rank to the one that watches it: connects, answers the challenge, connects again.

use super::beat::{Beat, Challenge, Seal, Token};
use super::peer::Peer;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Between attempts to connect: the first pause, and the longest.
const PAUSE: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(20)];

/// Sends heartbeats to the rank that watches this one.
pub struct Sender {
    rank: usize,
    /// The watcher, and this rank itself; None: nobody watches.
    target: Option<(Peer, Peer)>,
    token: Token,
    link: Link,
    attempts: u32,
    /// No attempt before.
    next: Instant,
}

enum Link {
    Down,
    /// Connected; so much of the watcher's challenge is here.
    Challenged(TcpStream, Vec<u8>),
    Up(TcpStream, Seal),
}

impl Sender {
    /// All ranks send to rank 0, rank 0 to rank 1.
    pub fn new(peers: &[Peer], rank: usize) -> Sender {
        let target = peers.get(usize::from(rank == 0)).map(|peer| (peer.clone(), peers[rank].clone()));
        Sender { rank, target, token: peers[0].token, link: Link::Down, attempts: 0, next: Instant::now() }
    }

    /// Whether heartbeats arrive, as far as this side can tell, or have nowhere to go.
    pub fn is_up(&self) -> bool {
        self.target.is_none() || matches!(self.link, Link::Up(..))
    }

    /// Sends, or goes one step further towards a connection; never waits for the other side's answer.
    pub fn send(&mut self, beat: &Beat) {
        self.link = match std::mem::replace(&mut self.link, Link::Down) {
            Link::Down => self.connect(),
            Link::Challenged(stream, challenge) => self.answer(stream, challenge),
            up => up,
        };
        if let Link::Up(stream, seal) = &mut self.link {
            match stream.write(&seal.close(beat)) {
                Ok(super::beat::BYTES) => seal.sent(),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {}
                // What has left in part cannot be repeated.
                _ => self.link = Link::Down,
            }
        }
    }

    fn connect(&mut self) -> Link {
        let Some((watcher, own)) = self.target.as_ref().filter(|_| Instant::now() >= self.next) else {
            return Link::Down;
        };
        let connected = watcher.connect(own);
        if connected.is_none() && self.attempts == 0 {
            let (rank, host) = (self.rank, &watcher.host);
            log::warn!("rank {rank}: no connection to the watchdog on {host}: until there is one, stalls are not seen");
        }
        // Ranks that were refused together do not come back together.
        let pause = PAUSE[0].saturating_mul(1 << self.attempts.min(10)).min(PAUSE[1]);
        let part = (self.rank as u32).wrapping_add(self.attempts).wrapping_mul(2_654_435_761) >> 16;
        self.next = Instant::now() + pause.mul_f64(0.5 + f64::from(part) / 65536.0);
        self.attempts += 1;
        connected.map_or(Link::Down, |stream| Link::Challenged(stream, Vec::new()))
    }

    fn answer(&mut self, mut stream: TcpStream, mut challenge: Vec<u8>) -> Link {
        let mut bytes = [0; size_of::<Challenge>()];
        match stream.read(&mut bytes[challenge.len()..]) {
            Ok(0) => return Link::Down,
            Ok(count) => challenge.extend_from_slice(&bytes[challenge.len()..][..count]),
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Link::Down,
        }
        let Ok(whole) = Challenge::try_from(&challenge[..]) else { return Link::Challenged(stream, challenge) };
        self.attempts = 0;
        Link::Up(stream, Seal::new(&self.token, &whole))
    }
}

#[cfg(test)]
mod tests {
    use super::super::inbox::Inbox;
    use super::super::peer;
    use super::*;
    use std::net::SocketAddr;

    fn beat() -> Beat {
        Beat { rank: 1, last: false, step: 1, ticks: 2, collectives: 3, waits: false, phase: "start".into() }
    }

    /// Sends until it is heard, at most ten seconds.
    fn heard(inbox: &mut Inbox, sender: &mut Sender) {
        let start = Instant::now();
        loop {
            sender.send(&beat());
            std::thread::sleep(Duration::from_millis(5));
            if inbox.receive().beats.contains(&beat()) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "not heard");
        }
    }

    #[test]
    fn whoever_is_dropped_connects_again_and_is_heard() {
        let listener = peer::listen(true).unwrap().remove(0);
        let Ok(SocketAddr::V4(address)) = listener.local_addr() else { panic!("an IPv4 address") };
        let watcher = Peer { token: [3; 32], listens: vec![address], ..Peer::default() };
        let inbox = || Inbox::new(vec![listener.try_clone().unwrap()], [3; 32], 2).unwrap();
        let mut sender = Sender::new(&[watcher, Peer::default()], 1);
        let mut first = inbox();
        heard(&mut first, &mut sender);
        drop(first);
        heard(&mut inbox(), &mut sender);
    }
}
