//! The seam between the log and the disk: everything that the log does to files goes through [`Storage`].
//!
//! Paths are relative to the log's directory, with `/`. The promises are those of a POSIX file system taken at its
//! weakest: what was written is durable only after [`StorageFile::sync_data`], a name only after
//! [`Storage::sync_folder`], and before that any part of it may survive a crash, in any order.

pub mod real;

#[cfg(any(test, feature = "test-util"))]
pub mod crashing;
#[cfg(any(test, feature = "test-util"))]
pub mod recording;

use std::fmt;
use std::io;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It exists and is only read.
    Read,
    /// It exists; it is read and written.
    Write,
    /// It is created, and emptied where it exists.
    Create,
}

/// A directory of files.
pub trait Storage: Send + Sync + fmt::Debug {
    /// What people call it: the path, for messages.
    fn describe(&self) -> String;

    /// Creates the folder, and those above it, where it does not exist, durably. `""` is the directory itself.
    fn create_folder(&self, folder: &str) -> io::Result<()>;

    /// Opens a file. The handle stays good when the file is renamed or removed.
    fn open(&self, path: &str, mode: Mode) -> io::Result<Arc<dyn StorageFile>>;

    /// The names of the files in a folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;

    /// Takes the exclusive lock on a file, creating it; [`io::ErrorKind::WouldBlock`] where somebody holds it. The lock is
    /// given back when the value is dropped.
    fn lock(&self, path: &str) -> io::Result<Box<dyn Lock>>;
}

/// An open file.
pub trait StorageFile: Send + Sync + fmt::Debug {
    /// Reads at most what fits; fewer bytes only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes everything, growing the file where needed. On an error any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reserves space that reads as zero, growing the file to its end.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Makes what was written, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;
}

/// A lock that is held while this value lives.
pub trait Lock: Send + Sync + fmt::Debug {}

/// Whether the error says that there is no space.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// The whole of a small file.
pub(crate) fn read_all(storage: &dyn Storage, path: &str) -> io::Result<Vec<u8>> {
    let file = storage.open(path, Mode::Read)?;
    let length = usize::try_from(file.length()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut bytes = vec![0; length];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}
