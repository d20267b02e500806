//! What is new in a metrics.jsonl that another process writes.

use crate::fault::{self, Kind};
use crate::run_dir::RunDir;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How many of the bytes read last are looked at again, to see that the file still is what it was.
const CHECKED: usize = 256;

/// A reader that remembers where it stopped.
pub struct Follower {
    path: PathBuf,
    /// Device and number of the file that was read; a resumed run writes another.
    file: Option<(u64, u64)>,
    /// Bytes of whole lines that were handed out.
    offset: u64,
    /// The last of them, at most [`CHECKED`].
    tail: Vec<u8>,
}

/// What a look at the file gave.
pub struct News {
    /// The file is not the one that was read before, or was cut: forget what came from it.
    pub anew: bool,
    /// Whole lines that were not handed out before.
    pub lines: Vec<String>,
    /// When it was last written; None where there is no file yet.
    pub written: Option<SystemTime>,
}

impl Follower {
    /// Follows `dir`/metrics.jsonl, which need not exist yet.
    pub fn new(dir: &Path) -> Follower {
        Follower { path: RunDir::new(dir).history(), file: None, offset: 0, tail: Vec::new() }
    }

    /// Reads the lines that are new. Half a line at the end waits until it is whole.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read(&mut self) -> anyhow::Result<News> {
        self.try_read().map_err(|cause| {
            let message = format!("{}: cannot be read: {cause}; name a run's DIR", self.path.display());
            fault::error(Kind::of(&cause), message)
        })
    }

    fn try_read(&mut self) -> io::Result<News> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let anew = self.file.is_some();
                self.forget();
                return Ok(News { anew, lines: Vec::new(), written: None });
            }
            Err(cause) => return Err(cause),
        };
        let about = file.metadata()?;
        let identity = Some((about.dev(), about.ino()));
        let anew = self.file.is_some() && (self.file != identity || !self.is_continued(&mut file)?);
        if anew {
            self.forget();
        }
        self.file = identity;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
        self.offset += bytes.len() as u64;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(CHECKED)..]);
        self.tail.drain(..self.tail.len().saturating_sub(CHECKED));
        let lines = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
        Ok(News { anew, lines, written: about.modified().ok() })
    }

    /// Whether the bytes before the place where reading stopped are those that were read.
    fn is_continued(&self, file: &mut File) -> io::Result<bool> {
        file.seek(SeekFrom::Start(self.offset - self.tail.len() as u64))?;
        let mut again = Vec::new();
        file.take(self.tail.len() as u64).read_to_end(&mut again)?;
        Ok(again == self.tail)
    }

    fn forget(&mut self) {
        (self.file, self.offset) = (None, 0);
        self.tail.clear();
    }
}
