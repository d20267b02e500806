//! Heartbeats on the wire: 64 bytes each over TCP, recognised by the job's token.

use crate::comm::{self, Comm, CommError};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

const BYTES: usize = 64;
/// A random number that only the ranks of one job know.
pub type Token = [u8; 16];

const PHASE: usize = 15;
const CONNECT: Duration = Duration::from_secs(2);
/// Connections that are kept open: nobody can exhaust the process's files by connecting.
const CONNECTIONS: usize = 1 << 14;

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
    fn to_bytes(&self, token: Token) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..16].copy_from_slice(&token);
        bytes[16..24].copy_from_slice(&(self.rank as u64).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.step.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.ticks.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.collectives.to_le_bytes());
        bytes[48] = u8::from(self.last) + 2 * u8::from(self.waits);
        let phase = &self.phase.as_bytes()[..self.phase.len().min(PHASE)];
        bytes[49..49 + phase.len()].copy_from_slice(phase);
        bytes
    }

    fn from_bytes(bytes: &[u8; BYTES], token: Token) -> Option<Beat> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        (bytes[..16] == token).then(|| Beat {
            rank: number(16) as usize,
            last: bytes[48] & 1 > 0,
            step: number(24),
            ticks: number(32),
            collectives: number(40),
            waits: bytes[48] & 2 > 0,
            phase: String::from_utf8_lossy(&bytes[49..]).trim_end_matches('\0').to_string(),
        })
    }
}

/// Where a rank is and where it listens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Peer {
    pub host: String,
    pub pid: u32,
    /// Proves that a heartbeat is of this job; rank 0's counts.
    pub token: Token,
    pub addresses: Vec<Ipv4Addr>,
    pub port: u16,
}

impl Peer {
    /// Everyone's, by rank. Collective.
    pub fn all_gather(comm: &dyn Comm, listener: Option<&TcpListener>) -> Result<Vec<Peer>, CommError> {
        let port = listener.and_then(|listener| listener.local_addr().ok()).map_or(0, |address| address.port());
        let mut token = [0; 16];
        let random = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut token));
        let failed = |cause: String| CommError::Failed { call: "watchdog", rank: comm.rank(), cause };
        random.map_err(|cause| failed(format!("/dev/urandom: {cause}")))?;
        let own = Peer { host: comm::hostname(), pid: std::process::id(), token, addresses: addresses(), port };
        let bytes = serde_json::to_vec(&own).map_err(|cause| failed(cause.to_string()))?;
        let parse = |bytes: &Vec<u8>| serde_json::from_slice(bytes).map_err(|cause| failed(cause.to_string()));
        comm.all_gather(&bytes)?.iter().map(parse).collect()
    }

    fn connect(&self, from: &Peer) -> Option<TcpStream> {
        let here = (self.host == from.host).then_some(Ipv4Addr::LOCALHOST);
        let addresses = here.into_iter().chain(self.addresses.iter().copied());
        let mut connections = addresses
            .filter_map(|ip| TcpStream::connect_timeout(&SocketAddrV4::new(ip, self.port).into(), CONNECT).ok());
        let stream = connections.next()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    }
}

/// This host's own IPv4 addresses but the loopback's, as the kernel's routing table lists them.
fn addresses() -> Vec<Ipv4Addr> {
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|pair| pair[1].contains("host LOCAL"));
    let addresses = local.filter_map(|pair| pair[0].trim_start_matches("|--").trim().parse::<Ipv4Addr>().ok());
    let mut addresses: Vec<_> = addresses.filter(|address| !address.is_loopback()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// The way to the rank that watches this one.
pub struct Sender {
    target: Option<(Peer, Peer)>,
    token: Token,
    stream: Option<TcpStream>,
}

impl Sender {
    /// All ranks send to rank 0, rank 0 to rank 1.
    pub fn new(peers: &[Peer], rank: usize) -> Sender {
        let target = peers.get(usize::from(rank == 0)).map(|peer| (peer.clone(), peers[rank].clone()));
        Sender { target, token: peers[0].token, stream: None }
    }

    /// Sends, connecting first if need be. A watcher out of reach is said once and given up.
    pub fn send(&mut self, beat: &Beat) {
        if self.stream.is_none() {
            let Some((target, own)) = self.target.take() else { return };
            self.stream = target.connect(&own);
            if self.stream.is_none() {
                log::warn!(
                    "rank {}: no connection to the watchdog on {}: stalls will not be seen",
                    beat.rank,
                    target.host
                );
            }
        }
        if let Some(stream) = &mut self.stream
            && let Err(cause) = stream.write_all(&beat.to_bytes(self.token))
            && cause.kind() != ErrorKind::WouldBlock
        {
            self.stream = None;
        }
    }
}

/// Heartbeats that arrive here.
pub struct Inbox {
    listener: TcpListener,
    token: Token,
    lines: Vec<Line>,
}

/// One connection.
struct Line {
    stream: TcpStream,
    pending: Vec<u8>,
    /// Whose it is, once it has said so.
    rank: Option<usize>,
}

/// What an inbox has to tell.
#[derive(Default)]
pub struct Received {
    pub beats: Vec<Beat>,
    /// Ranks whose connection has ended.
    pub gone: Vec<usize>,
}

impl Inbox {
    pub fn new(listener: TcpListener, token: Token) -> std::io::Result<Inbox> {
        listener.set_nonblocking(true)?;
        Ok(Inbox { listener, token, lines: Vec::new() })
    }

    /// What has arrived since the last call. Connections that end or send anything else are dropped.
    pub fn receive(&mut self) -> Received {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.lines.len() < CONNECTIONS && stream.set_nonblocking(true).is_ok() {
                self.lines.push(Line { stream, pending: Vec::new(), rank: None });
            }
        }
        let mut received = Received::default();
        let token = self.token;
        self.lines.retain_mut(|line| {
            let open = line.read(token, &mut received.beats);
            if !open {
                received.gone.extend(line.rank);
            }
            open
        });
        received
    }
}

impl Line {
    /// Reads what is there; whether the connection is still of use.
    fn read(&mut self, token: Token, beats: &mut Vec<Beat>) -> bool {
        let mut buffer = [0; 16 * BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(cause) => return cause.kind() == ErrorKind::WouldBlock,
            }
            let (whole, rest) = self.pending.as_chunks::<BYTES>();
            for bytes in whole {
                let Some(beat) = Beat::from_bytes(bytes, token) else { return false };
                self.rank = Some(beat.rank);
                beats.push(beat);
            }
            self.pending = rest.to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_survives_the_wire_and_another_jobs_does_not() {
        let (step, ticks, collectives, phase) = (9, 44, 812, "gradients".into());
        let beat = Beat { rank: 3, last: true, step, ticks, collectives, waits: true, phase };
        assert_eq!(Beat::from_bytes(&beat.to_bytes([7; 16]), [7; 16]), Some(beat.clone()));
        assert_eq!(Beat::from_bytes(&beat.to_bytes([7; 16]), [8; 16]), None);
    }
}
