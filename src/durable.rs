//! Files that appear whole or not at all: the program's only write-then-rename.
//!
//! A file is written beside its place under a name that starts with a dot, brought to the disk, and renamed; then the
//! folder is brought to the disk, which holds the name. A crash leaves at most the dotted file, which nobody reads and the
//! next writer replaces.

use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file being written; it gets its name by [`Unfinished::publish`], and vanishes if that is not reached.
pub struct Unfinished {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
}

impl Unfinished {
    /// Opens a new file that is to be called `target`, in place of one that an earlier writer left unfinished.
    pub fn create(target: &Path) -> io::Result<Unfinished> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut dotted = std::ffi::OsString::from(".");
        dotted.push(name);
        dotted.push(".new");
        let temporary = target.with_file_name(dotted);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Unfinished { file: create_new(&temporary)?, temporary, target: target.to_owned() })
    }

    /// The file, to be written to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Its present name, for a writer that opens files itself.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Waits until the content is on the disk, gives the file its name, and waits until that is on the disk as well.
    ///
    /// # Errors
    /// Also where another process has begun to write a file of that name meanwhile.
    pub fn publish(self) -> io::Result<()> {
        self.file.sync_all()?;
        self.rename()?;
        sync_dir(folder_of(&self.target))
    }

    /// Gives the file its name without waiting for the disk: for what can be made again.
    fn publish_unsynced(self) -> io::Result<()> {
        self.rename()
    }

    fn rename(&self) -> io::Result<()> {
        if !self.is_ours()? {
            return Err(io::Error::other("another process writes the same file"));
        }
        fs::rename(&self.temporary, &self.target)
    }

    /// Whether the temporary name still stands for the file that was opened.
    fn is_ours(&self) -> io::Result<bool> {
        let (ours, named) = (self.file.metadata()?, fs::symlink_metadata(&self.temporary)?);
        Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is no such name any more, or it is another writer's.
        if self.is_ours().unwrap_or(false) {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Whether a file of that name could be written, before the work whose result it is to hold.
pub fn try_out(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Unfinished::create(path).map(drop)
}

/// Writes `bytes` to `path`; when it returns, they are on the disk.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = Unfinished::create(path)?;
    unfinished.file().write_all(bytes)?;
    unfinished.publish()
}

/// The same without waiting for the disk: pictures and tables, which can be made again.
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = Unfinished::create(path)?;
    unfinished.file().write_all(bytes)?;
    unfinished.publish_unsynced()
}

/// Creates a file that is not there yet. In a folder that others may write to, a planted link is not followed.
pub fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?))
}

/// Waits until the names in a folder are on the disk.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
