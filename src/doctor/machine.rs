//! What Linux tells about this host: cores, memory, libraries, mounts. Whatever cannot be read is `None` or empty.

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Kinds of file systems that live on another machine.
const NETWORK: [&str; 9] = ["nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "9p"];

/// Where a folder lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub folder: String,
    /// Kind of file system, such as ext4 or nfs4.
    pub kind: String,
    pub network: bool,
    pub free_bytes: u64,
}

impl Mount {
    /// Finds the mount that holds `folder`.
    pub fn of(folder: &Path) -> Option<Mount> {
        let folder = folder.canonicalize().ok()?;
        let kind = kind_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, &folder)?;
        let network = NETWORK.contains(&kind.as_str()) || kind.starts_with("fuse.");
        let (_, free_bytes) = file_system_bytes(&folder)?;
        Some(Mount { folder: folder.display().to_string(), kind, network, free_bytes })
    }
}

/// The kind of the mount with the longest path above `folder`, the last one mounted where there are several.
fn kind_of(mountinfo: &str, folder: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?.replace("\\040", " ");
        folder.starts_with(&point).then_some((point.len(), right.split(' ').next()?))
    });
    mounts.max_by_key(|&(length, _)| length).map(|(_, kind)| kind.to_owned())
}

/// Total and available bytes of the file system that holds `path`.
pub fn file_system_bytes(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize)))
}

/// All cores of the host, whatever this process may use.
pub fn host_cores() -> usize {
    let listed = names_in("/sys/devices/system/cpu");
    listed.iter().filter(|name| name.strip_prefix("cpu").is_some_and(|rest| rest.parse::<usize>().is_ok())).count()
}

/// Memory of the host in bytes.
pub fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Whether memory may be locked without limit.
pub fn locks_memory() -> bool {
    getrlimit(Resource::Memlock).current.is_none()
}

/// The file that a library of this process was loaded from.
pub fn loaded_library(name: &str) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path =
        maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..])).find(|path| path.ends_with(name))?;
    Some(path.to_owned())
}

/// The kind of container that this process is in.
pub fn container() -> Option<String> {
    let variable = |name| std::env::var_os(name).is_some();
    let kind = if variable("APPTAINER_CONTAINER") || variable("SINGULARITY_CONTAINER") {
        "Apptainer"
    } else if variable("ENROOT_ROOTFS") || variable("SLURM_CONTAINER_IMAGE") {
        "enroot"
    } else if Path::new("/.dockerenv").exists() {
        "Docker"
    } else if Path::new("/run/.containerenv").exists() {
        "Podman"
    } else {
        return None;
    };
    Some(kind.to_owned())
}

/// Names in a folder, sorted; none where it cannot be read.
pub fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm;

    #[test]
    fn the_innermost_mount_holds_a_folder() {
        let mountinfo = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                         30 22 0:30 / /data rw - nfs4 server:/export rw\n\
                         31 22 0:31 / /data/fast\\040disk rw shared:9 master:2 - xfs /dev/nvme0 rw\n";
        let kind = |folder: &str| kind_of(mountinfo, Path::new(folder)).unwrap();
        assert_eq!(
            (kind("/home"), kind("/data/ade"), kind("/database")),
            ("ext4".into(), "nfs4".into(), "ext4".into())
        );
        assert_eq!(kind("/data/fast disk/x"), "xfs");
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        assert!(!comm::cores().is_empty() && comm::cores().len() <= host_cores());
        assert!(memory_bytes().unwrap() > 1 << 20);
        assert!(Mount::of(Path::new(".")).is_some());
    }
}
