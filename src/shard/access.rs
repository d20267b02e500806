//! Whether a shard is mapped into memory or read into it.

use std::fs::File;

/// How the bytes of a shard are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Mapped on local file systems, read on those that live across a network.
    Auto,
    /// Mapped into memory.
    Mmap,
    /// Read by position.
    Pread,
}

/// `f_type` in statfs(2) of file systems across a network or in user space: AFS, Ceph, CIFS, FUSE (also sshfs, s3fs),
/// GPFS, Lustre, NCP, NFS, OrangeFS, PanFS, 9p, SMB, SMB2, BeeGFS. On these a page fault is a slow, single-page
/// request, and a file that vanishes under a map is common.
const NETWORK: [u64; 14] = [
    0x5346_414f,
    0x00c3_6400,
    0xff53_4d42,
    0x6573_5546,
    0x4750_4653,
    0x0bd0_0bd0,
    0x564c,
    0x6969,
    0x2003_0528,
    0xaad7_aaea,
    0x0102_1997,
    0x517b,
    0xfe53_4d42,
    0x1983_0326,
];

impl Access {
    /// Whether to map `file`. A file system that does not tell its type is read.
    pub(super) fn maps(self, file: &File) -> bool {
        match self {
            Access::Mmap => true,
            Access::Pread => false,
            // The type is signed or not, of 32 or 64 bits, depending on the platform: only the low 32 bits count.
            Access::Auto => rustix::fs::fstatfs(file).is_ok_and(|stat| !NETWORK.contains(&(stat.f_type as u32 as u64))),
        }
    }
}
