//! Storage that passes everything on to another and notes, in order, what was done.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::{Lock, Mode, Storage, StorageFile};

/// One thing that was done, with the path of the file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of the seam that has its name")]
pub enum Done {
    CreateFolder(String),
    Create(String),
    Open(String),
    Rename(String, String),
    Remove(String),
    SyncFolder(String),
    Lock(String),
    Write { path: String, offset: u64, length: usize },
    Allocate { path: String, offset: u64, length: u64 },
    SetLen { path: String, length: u64 },
    SyncData(String),
}

/// Storage that keeps a list of what was done. Reads are not noted.
#[derive(Debug)]
pub struct RecordingStorage {
    inner: Arc<dyn Storage>,
    done: Arc<Mutex<Vec<Done>>>,
}

impl RecordingStorage {
    /// Notes what is done to `inner`.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, done: Arc::default() }
    }

    /// What was done since the last call, in order.
    pub fn take(&self) -> Vec<Done> {
        std::mem::take(&mut self.done.lock())
    }

    // Noted once it has happened; a failure is not.
    fn note<T>(&self, result: io::Result<T>, done: Done) -> io::Result<T> {
        if result.is_ok() {
            self.done.lock().push(done);
        }
        result
    }
}

impl Storage for RecordingStorage {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn create_folder(&self, folder: &str) -> io::Result<()> {
        self.note(self.inner.create_folder(folder), Done::CreateFolder(folder.to_owned()))
    }

    fn open(&self, path: &str, mode: Mode) -> io::Result<Arc<dyn StorageFile>> {
        let done = if mode == Mode::Create { Done::Create(path.to_owned()) } else { Done::Open(path.to_owned()) };
        let inner = self.note(self.inner.open(path, mode), done)?;
        Ok(Arc::new(RecordingFile { inner, path: path.to_owned(), done: Arc::clone(&self.done) }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.inner.list(folder)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.note(self.inner.rename(from, to), Done::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.note(self.inner.remove(path), Done::Remove(path.to_owned()))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.note(self.inner.sync_folder(folder), Done::SyncFolder(folder.to_owned()))
    }

    fn lock(&self, path: &str) -> io::Result<Box<dyn Lock>> {
        self.note(self.inner.lock(path), Done::Lock(path.to_owned()))
    }
}

#[derive(Debug)]
struct RecordingFile {
    inner: Arc<dyn StorageFile>,
    path: String,
    done: Arc<Mutex<Vec<Done>>>,
}

impl RecordingFile {
    fn note(&self, result: io::Result<()>, done: Done) -> io::Result<()> {
        if result.is_ok() {
            self.done.lock().push(done);
        }
        result
    }
}

impl StorageFile for RecordingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let done = Done::Write { path: self.path.clone(), offset, length: bytes.len() };
        self.note(self.inner.write_at(offset, bytes), done)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.note(self.inner.allocate(offset, length), Done::Allocate { path: self.path.clone(), offset, length })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.note(self.inner.set_len(length), Done::SetLen { path: self.path.clone(), length })
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(self.inner.sync_data(), Done::SyncData(self.path.clone()))
    }
}
