//! Where the ranks of a job are, and on which addresses those that watch listen.

use super::beat::Token;
use crate::comm::{self, Comm, CommError, broadcast_bytes};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

/// Longest wait for a connection to one address.
const CONNECT: Duration = Duration::from_secs(2);

/// Where a rank is and where it listens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Peer {
    pub host: String,
    pub pid: u32,
    /// Proves that a heartbeat is of this job; rank 0's counts.
    pub token: Token,
    /// Ranks of one network reach each other's loopback addresses.
    pub network: String,
    /// Addresses to connect to.
    pub listens: Vec<SocketAddrV4>,
}

impl Peer {
    /// Everyone's, by rank. Collective.
    ///
    /// # Errors
    /// When there is no randomness to be had, or a collective fails.
    pub fn all_gather(comm: &dyn Comm, listeners: &[TcpListener]) -> Result<Vec<Peer>, CommError> {
        let failed = |cause: String| CommError::Failed { call: "watchdog", rank: comm.rank(), cause };
        let told = listeners.iter().filter_map(|listener| match listener.local_addr() {
            Ok(SocketAddr::V4(address)) => Some(address),
            _ => None,
        });
        let own = Peer {
            host: comm::hostname(),
            pid: std::process::id(),
            token: random().map_err(|cause| failed(format!("/dev/urandom: {cause}")))?,
            network: network(),
            listens: told.collect(),
        };
        let bytes = serde_json::to_vec(&own).map_err(|cause| failed(cause.to_string()))?;
        let parse = |bytes: &Vec<u8>| serde_json::from_slice(bytes).map_err(|cause| failed(cause.to_string()));
        comm.all_gather(&bytes)?.iter().map(parse).collect()
    }

    /// A connection from the rank at `from`, over the first address that answers.
    pub fn connect(&self, from: &Peer) -> Option<TcpStream> {
        let reachable = |address: &&SocketAddrV4| !address.ip().is_loopback() || self.network == from.network;
        let mut connections = self
            .listens
            .iter()
            .filter(reachable)
            .filter_map(|&address| TcpStream::connect_timeout(&address.into(), CONNECT).ok());
        let stream = connections.next()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    }
}

/// Listens on the loopback address and, where ranks are elsewhere (`alone` false), on the host's other addresses.
///
/// # Errors
/// When none of them can be had.
pub fn listen(alone: bool) -> std::io::Result<Vec<TcpListener>> {
    let others = if alone { Vec::new() } else { addresses() };
    let (mut listeners, mut failure) = (Vec::new(), None);
    for address in [Ipv4Addr::LOCALHOST].into_iter().chain(others) {
        match TcpListener::bind((address, 0)) {
            Ok(listener) => listeners.push(listener),
            Err(cause) => failure = Some(cause),
        }
    }
    match failure {
        Some(cause) if listeners.is_empty() => Err(cause),
        _ => Ok(listeners),
    }
}

/// Whether all ranks are of rank 0's network: nobody needs to be reached from outside it. Collective.
pub fn alone(comm: &dyn Comm) -> Result<bool, CommError> {
    let own = network().into_bytes();
    let root = broadcast_bytes(comm, comm.is_root().then(|| own.clone()))?;
    let mut elsewhere = [i64::from(root != own)];
    comm.all_reduce_i64(&mut elsewhere)?;
    Ok(elsewhere[0] == 0)
}

/// Which machine's which network namespace this is; containers of one machine have one each, or share it.
fn network() -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/net");
    match (machine, namespace) {
        (Ok(machine), Ok(namespace)) => format!("{} {}", machine.trim(), namespace.display()),
        _ => comm::hostname(),
    }
}

/// 32 bytes that nobody can guess.
pub fn random() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// This host's own IPv4 addresses but the loopback's, as the kernel's routing table lists them.
fn addresses() -> Vec<Ipv4Addr> {
    let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    let local = lines.windows(2).filter(|pair| pair[1].contains("host LOCAL"));
    let addresses = local.filter_map(|pair| pair[0].trim_start_matches("|--").trim().parse::<Ipv4Addr>().ok());
    let mut addresses: Vec<_> = addresses.filter(|address| !address.is_loopback()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_one_machine_listen_to_nothing_outside_it() {
        let listeners = listen(true).unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap().ip().is_loopback()));
        assert_eq!(listeners.len(), 1);
    }

    #[test]
    fn a_loopback_address_is_tried_from_its_own_network_only() {
        let listener = listen(true).unwrap().remove(0);
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("an IPv4 address") };
        let peer = |network: &str| Peer { network: network.into(), listens: vec![address], ..Peer::default() };
        assert!(peer("here").connect(&peer("here")).is_some());
        assert!(peer("here").connect(&peer("there")).is_none());
    }
}
