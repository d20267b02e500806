//! The watchdog's port and MPI's end under attack: strangers cost a job nothing, and a job that is done ends.

use crate::common::jobs::{Job, trained, wait_for, wait_for_step};
use crate::common::{launcher, run, samples, tiny};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{ErrorKind::ConnectionReset, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// `script` in a shell in place of segdist under mpirun: `"$0" "$@"` is segdist with the overrides of a tiny job.
fn through_shell(folder: &Path, script: &str, steps: u64) -> Command {
    let root = folder.join("data");
    samples(&root, &[(48, 32); 8], 4, 1);
    let mut command = launcher();
    command.args(["-np", "2", "sh", "-c", script, env!("CARGO_BIN_EXE_segdist")]);
    command.args(tiny(&root, &folder.join("run"), steps));
    command
}

/// The TCP ports on which a process listens: the sockets among its descriptors that /proc/net/tcp shows as listening.
fn listening_ports(pid: u32) -> Vec<(String, u16)> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").flatten();
    let sockets: Vec<String> = links
        .filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_str()?.strip_prefix("socket:[")?.to_owned()))
        .map(|name| name.trim_end_matches(']').to_owned())
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc can be read");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row[3] == "0A" && sockets.iter().any(|socket| socket == row[9]));
    let address = |text: &str| {
        let (ip, port) = text.split_once(':').expect("address and port");
        (ip.to_owned(), u16::from_str_radix(port, 16).expect("a port in hexadecimal"))
    };
    listening.map(|row| address(row[1])).collect()
}

/// Whether whoever listens there greets with a challenge of 32 bytes, as only the watchdog does.
fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(4))).expect("a timeout can be set");
    stream.read_exact(&mut [0; 32]).is_ok()
}

#[test]
fn eleven_hundred_idle_connections_neither_end_a_job_of_1024_descriptors_nor_stay() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let script = "ulimit -n 1024; exec \"$0\" \"$@\"";
    let job = Job::start(through_shell(folder.path(), script, 100_000).arg("DIST.stall_timeout_s=20"));
    wait_for_step(&dir, 2);
    let pid = job.rank(0);
    let ports = listening_ports(pid);
    let (ip, port) = ports.into_iter().find(|(_, port)| greets(*port)).expect("rank 0 listens for heartbeats");
    assert_eq!(ip, "0100007F", "of ranks on one machine, nothing outside it is told");

    let idle: Vec<TcpStream> = (0..1100).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    assert!(idle.len() > 1000, "{} connections", idle.len());
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let before = *trained(&dir).last().unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        assert!(descriptors() < 400, "{} descriptors", descriptors());
        thread::sleep(Duration::from_millis(50));
    }
    wait_for("a step after the flood", 60, || (*trained(&dir).last().unwrap() > before).then_some(()));
    // All have been dropped by now, from that side.
    for mut stream in &idle {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let end = stream.read_to_end(&mut Vec::new());
        assert!(end.as_ref().is_ok_and(|sent| *sent <= 32) || end.is_err_and(|error| error.kind() == ConnectionReset));
    }
    drop(idle);
    job.kill_all();
}

#[test]
fn a_finished_job_ends_though_mpi_finalize_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("hang.c"), folder.path().join("hang.so"));
    fs::write(&source, "#include <unistd.h>\nint MPI_Finalize(void) { for (;;) pause(); }\n").unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(compiled.unwrap().success());
    let script = format!("exec env LD_PRELOAD={} \"$0\" \"$@\"", library.display());
    let ended = run(&mut through_shell(folder.path(), &script, 2), 180);
    assert!(ended.stderr.contains("MPI_Finalize has not returned"), "{}", ended.all());
    let dir = folder.path().join("run");
    assert_eq!(trained(&dir), [1, 2], "{}", ended.all());
    let history = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    assert!(history.contains("\"event\":\"finished\""), "{}", ended.all());
}
