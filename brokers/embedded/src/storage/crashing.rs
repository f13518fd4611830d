//! Storage in memory that crashes: it keeps, for every file, what a reader sees and what the disk has for sure, and
//! decides with a seed what else the disk happened to have when the power went.
//!
//! After a crash any subset of the 512-byte sectors that were written but not synchronised may be there, any subset of
//! the changes of length, and any subset of the names created, renamed and removed without [`Storage::sync_folder`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::{Lock, Mode, Storage, StorageFile};

const SECTOR_BYTES: u64 = 512;

/// What a fault is injected into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// [`StorageFile::write_at`]; half of the bytes are written all the same.
    Write,
    /// [`StorageFile::allocate`].
    Allocate,
    /// [`StorageFile::sync_data`]; what it was to write is never written, though readers go on to see it.
    Sync,
    /// [`StorageFile::read_at`].
    Read,
    /// [`StorageFile::set_len`].
    SetLen,
    /// [`Storage::open`] with [`Mode::Create`].
    Create,
}

/// A fault: from the `skip`-th matching call on, `times` calls fail with this kind of error.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// Which calls.
    pub target: Target,
    /// How many of them go well first.
    pub skip: u64,
    /// How many then fail.
    pub times: u64,
    /// With what.
    pub error: io::ErrorKind,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    // What turns durable into live.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct Disk {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Naming>,
    locked: BTreeSet<String>,
    injections: Vec<Injection>,
    operations: u64,
    crash_at: Option<u64>,
    sync_is_noop: bool,
    capacity_bytes: Option<u64>,
}

/// Storage that crashes. Clones of the [`Arc`] share it; after [`CrashingStorage::reboot`] the old one answers nothing.
#[derive(Debug)]
pub struct CrashingStorage {
    disk: Arc<Mutex<Disk>>,
}

fn dead() -> io::Error {
    io::Error::other("the machine has crashed")
}

/// A small generator, so that a seed alone decides (splitmix64).
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }
}

impl CrashingStorage {
    /// An empty disk.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { disk: Arc::default() })
    }

    /// The control: from now on synchronising does nothing.
    pub fn sync_is_noop(&self, noop: bool) {
        self.disk.lock().sync_is_noop = noop;
    }

    /// Adds a fault.
    pub fn inject(&self, injection: Injection) {
        self.disk.lock().injections.push(injection);
    }

    /// The bytes that all files may take together; beyond it allocations and growing writes find the disk full.
    pub fn capacity_bytes(&self, capacity: Option<u64>) {
        self.disk.lock().capacity_bytes = capacity;
    }

    /// How many operations have changed the disk, synchronisations included.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// The machine crashes in that operation: it and all later ones fail, but the disk may have part of it.
    pub fn crash_at(&self, operation: Option<u64>) {
        self.disk.lock().crash_at = operation;
    }

    /// Whether the machine has crashed.
    pub fn crashed(&self) -> bool {
        let disk = self.disk.lock();
        disk.crash_at.is_some_and(|at| disk.operations >= at)
    }

    /// The disk as the machine finds it after a crash now; `seed` decides what of the rest survived.
    pub fn reboot(&self, seed: u64) -> Arc<Self> {
        let mut random = Seeded(seed);
        let mut disk = self.disk.lock();
        disk.crash_at = Some(0);
        // How much survives differs from crash to crash: nothing, all, and anything between.
        let mut percent = || [0, 10, 50, 90, 100][usize::try_from(random.below(5)).unwrap_or(0)];
        let (sectors_percent, names_percent) = (percent(), percent());
        let mut names = disk.durable_names.clone();
        for naming in &disk.pending_names {
            if random.below(100) >= names_percent {
                continue;
            }
            apply_naming(&mut names, naming);
        }
        let contents = disk
            .contents
            .iter()
            .map(|content| {
                let image = survivors(content, sectors_percent, &mut random);
                Content { live: image.clone(), durable: image, pending: Vec::new() }
            })
            .collect();
        let rebooted = Disk { contents, durable_names: names.clone(), names, ..Disk::default() };
        Arc::new(Self { disk: Arc::new(Mutex::new(rebooted)) })
    }

    /// The bytes of a file as a reader sees them, where it exists.
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.names.get(path).map(|&index| disk.contents[index].live.clone())
    }

    /// Sets the bytes of a file, durably: damage, or a fixture.
    pub fn set_contents(&self, path: &str, bytes: Vec<u8>) {
        let mut disk = self.disk.lock();
        let index = match disk.names.get(path) {
            Some(&index) => index,
            None => {
                disk.contents.push(Content::default());
                disk.contents.len() - 1
            }
        };
        disk.names.insert(path.to_owned(), index);
        disk.durable_names.insert(path.to_owned(), index);
        disk.contents[index] = Content { live: bytes.clone(), durable: bytes, pending: Vec::new() };
    }

    /// Every file there is.
    pub fn paths(&self) -> Vec<String> {
        self.disk.lock().names.keys().cloned().collect()
    }

    /// As [`CrashingStorage::reboot`], but this machine goes on: what a crash would have left.
    pub fn reboot_copy(&self, seed: u64) -> Arc<Self> {
        let crash_at = self.disk.lock().crash_at;
        let rebooted = self.reboot(seed);
        self.disk.lock().crash_at = crash_at;
        rebooted
    }

    /// A disk of its own with the same files, all of them durable.
    pub fn copied(&self) -> Arc<Self> {
        let disk = self.disk.lock();
        let contents = disk
            .contents
            .iter()
            .map(|content| Content { live: content.live.clone(), durable: content.live.clone(), pending: Vec::new() })
            .collect();
        let copy = Disk { contents, names: disk.names.clone(), durable_names: disk.names.clone(), ..Disk::default() };
        Arc::new(Self { disk: Arc::new(Mutex::new(copy)) })
    }
}

fn apply_naming(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming {
        Naming::Create(path, index) => {
            names.insert(path.clone(), *index);
        }
        Naming::Rename(from, to) => {
            if let Some(index) = names.remove(from) {
                names.insert(to.clone(), index);
            }
        }
        Naming::Remove(path) => {
            names.remove(path);
        }
    }
}

fn survivors(content: &Content, percent: u64, random: &mut Seeded) -> Vec<u8> {
    let mut image = content.durable.clone();
    for change in &content.pending {
        match change {
            Change::Length(length) => {
                if random.below(100) < percent {
                    image.resize(usize::try_from(*length).unwrap_or(0), 0);
                }
            }
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len() as u64;
                let mut at = *offset;
                while at < end {
                    let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                    if random.below(100) < percent {
                        write_into(&mut image, at, &bytes[(at - offset) as usize..(next - offset) as usize]);
                    }
                    at = next;
                }
            }
        }
    }
    image
}

fn write_into(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    if image.len() < from + bytes.len() {
        image.resize(from + bytes.len(), 0);
    }
    image[from..from + bytes.len()].copy_from_slice(bytes);
}

impl Disk {
    /// Counts an operation; an error where the machine crashes before or in it.
    fn alive(&self) -> io::Result<()> {
        if self.crash_at.is_some_and(|at| self.operations >= at) { Err(dead()) } else { Ok(()) }
    }

    /// Whether the operation that begins now is the one in which the machine crashes.
    fn count(&mut self) -> io::Result<bool> {
        self.alive()?;
        self.operations += 1;
        Ok(self.crash_at == Some(self.operations))
    }

    fn injected(&mut self, target: Target) -> io::Result<()> {
        for injection in &mut self.injections {
            if injection.target != target {
                continue;
            }
            if injection.skip > 0 {
                injection.skip -= 1;
            } else if injection.times > 0 {
                injection.times -= 1;
                return Err(io::Error::new(injection.error, "injected"));
            }
        }
        Ok(())
    }

    fn room(&self, index: usize, length: u64) -> io::Result<()> {
        let grown = length.saturating_sub(self.contents[index].live.len() as u64);
        let used: u64 = self.names.values().map(|&index| self.contents[index].live.len() as u64).sum();
        match self.capacity_bytes {
            Some(capacity) if grown > 0 && used + grown > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn folder_of(path: &str) -> &str {
        path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    fn set_length(&mut self, index: usize, length: u64) {
        let content = &mut self.contents[index];
        content.live.resize(usize::try_from(length).unwrap_or(0), 0);
        content.pending.push(Change::Length(length));
    }
}

impl Storage for CrashingStorage {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn create_folder(&self, _: &str) -> io::Result<()> {
        self.disk.lock().alive()
    }

    fn open(&self, path: &str, mode: Mode) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        let known = disk.names.get(path).copied();
        let index = match (known, mode) {
            (Some(index), Mode::Read | Mode::Write) => index,
            (None, Mode::Read | Mode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (known, Mode::Create) => {
                disk.injected(Target::Create)?;
                let crash = disk.count()?;
                let index = match known {
                    Some(index) => {
                        disk.set_length(index, 0);
                        index
                    }
                    None => {
                        disk.contents.push(Content::default());
                        let index = disk.contents.len() - 1;
                        disk.names.insert(path.to_owned(), index);
                        disk.pending_names.push(Naming::Create(path.to_owned(), index));
                        index
                    }
                };
                if crash {
                    return Err(dead());
                }
                index
            }
        };
        Ok(Arc::new(CrashingFile { disk: Arc::clone(&self.disk), index }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        disk.alive()?;
        let within = |path: &&String| Disk::folder_of(path) == folder;
        Ok(disk.names.keys().filter(within).map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let crash = disk.count()?;
        let naming = Naming::Rename(from.to_owned(), to.to_owned());
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        apply_naming(&mut disk.names, &naming);
        disk.pending_names.push(naming);
        if crash { Err(dead()) } else { Ok(()) }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let crash = disk.count()?;
        let naming = Naming::Remove(path.to_owned());
        apply_naming(&mut disk.names, &naming);
        disk.pending_names.push(naming);
        if crash { Err(dead()) } else { Ok(()) }
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.count()? {
            return Err(dead());
        }
        if disk.sync_is_noop {
            return Ok(());
        }
        let (here, elsewhere) = std::mem::take(&mut disk.pending_names).into_iter().partition(|naming| {
            let (Naming::Create(path, _) | Naming::Rename(_, path) | Naming::Remove(path)) = naming;
            Disk::folder_of(path) == folder
        });
        disk.pending_names = elsewhere;
        let here: Vec<Naming> = here;
        for naming in &here {
            apply_naming(&mut disk.durable_names, naming);
        }
        Ok(())
    }

    fn lock(&self, path: &str) -> io::Result<Box<dyn Lock>> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        if !disk.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(CrashingLock { disk: Arc::clone(&self.disk), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct CrashingLock {
    disk: Arc<Mutex<Disk>>,
    path: String,
}

impl Lock for CrashingLock {}

impl Drop for CrashingLock {
    fn drop(&mut self) {
        self.disk.lock().locked.remove(&self.path);
    }
}

#[derive(Debug)]
struct CrashingFile {
    disk: Arc<Mutex<Disk>>,
    index: usize,
}

impl StorageFile for CrashingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        disk.injected(Target::Read)?;
        let live = &disk.contents[self.index].live;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
        let read = buffer.len().min(live.len() - from);
        buffer[..read].copy_from_slice(&live[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let crash = disk.count()?;
        let failed = disk.injected(Target::Write).and_then(|()| disk.room(self.index, offset + bytes.len() as u64));
        let written = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        let content = &mut disk.contents[self.index];
        write_into(&mut content.live, offset, written);
        content.pending.push(Change::Write { offset, bytes: written.to_vec() });
        if crash { Err(dead()) } else { failed }
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let crash = disk.count()?;
        disk.injected(Target::Allocate)?;
        disk.room(self.index, offset + length)?;
        if (disk.contents[self.index].live.len() as u64) < offset + length {
            disk.set_length(self.index, offset + length);
        }
        if crash { Err(dead()) } else { Ok(()) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let crash = disk.count()?;
        disk.injected(Target::SetLen)?;
        disk.set_length(self.index, length);
        if crash { Err(dead()) } else { Ok(()) }
    }

    fn length(&self) -> io::Result<u64> {
        let disk = self.disk.lock();
        disk.alive()?;
        Ok(disk.contents[self.index].live.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.count()? {
            return Err(dead());
        }
        if let Err(error) = disk.injected(Target::Sync) {
            // As Linux does it: the pages count as clean from now on, so that a later synchronisation goes well without
            // writing them, and readers still see what the disk never got.
            disk.contents[self.index].pending.retain(|change| matches!(change, Change::Length(_)));
            return Err(error);
        }
        if disk.sync_is_noop {
            return Ok(());
        }
        let content = &mut disk.contents[self.index];
        for change in std::mem::take(&mut content.pending) {
            match change {
                Change::Write { offset, bytes } => write_into(&mut content.durable, offset, &bytes),
                Change::Length(length) => content.durable.resize(usize::try_from(length).unwrap_or(0), 0),
            }
        }
        Ok(())
    }
}
