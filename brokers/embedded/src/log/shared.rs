//! What the writer, the readers and the adapter share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tidegate_backbone::budget::Budget;
use tidegate_backbone::{Clock, LogId, LogInfo, Position, Result};
use tidegate_schemas::limits;
use tokio::sync::watch;

use crate::counters::Counters;
use crate::error::{closed, not_found};
use crate::log::frame::Key;
use crate::log::index::SegmentIndex;
use crate::log::queue::Queue;
use crate::log::recent::Kept;
use crate::log::runs::{Released, Runs};
use crate::name;
use crate::options::Options;
use crate::storage::{Lock, Mode, Storage, StorageFile};

/// What a reader that waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visible {
    /// The position that the next record gets; all before it are durable.
    pub(crate) end: u64,
    pub(crate) ended: Option<Ended>,
}

/// Why no more records will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Deleted,
    Closed,
}

/// The durable state of one log.
#[derive(Debug, Default)]
pub(crate) struct LogState {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) appended_last: u64,
    pub(crate) runs: Runs,
}

/// What the writer has given out beyond the durable state; nobody else reads it.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    pub(crate) next: AtomicU64,
    pub(crate) appended_last: AtomicU64,
    pub(crate) deleted: AtomicBool,
}

/// One log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) number: u32,
    pub(crate) id: LogId,
    pub(crate) state: RwLock<LogState>,
    pub(crate) visible: watch::Sender<Visible>,
    /// The newest records, without a gap up to the end; which go is decided by [`super::recent::Recent`].
    pub(crate) recent: Mutex<VecDeque<Kept>>,
    pub(crate) ahead: Ahead,
}

impl Log {
    pub(crate) fn new(number: u32, id: LogId, state: LogState) -> Self {
        let ahead = Ahead {
            next: AtomicU64::new(state.end),
            appended_last: AtomicU64::new(state.appended_last),
            deleted: AtomicBool::new(false),
        };
        let visible = watch::Sender::new(Visible { end: state.end, ended: None });
        Self { number, id, state: RwLock::new(state), visible, recent: Mutex::default(), ahead }
    }

    /// Forgets what was given out and not made durable.
    pub(crate) fn fall_back(&self) {
        let state = self.state.read();
        self.ahead.next.store(state.end, Ordering::Relaxed);
        self.ahead.appended_last.store(state.appended_last, Ordering::Relaxed);
        self.ahead.deleted.store(false, Ordering::Relaxed);
    }

    pub(crate) fn info(&self) -> LogInfo {
        let state = self.state.read();
        LogInfo {
            id: self.id.clone(),
            begin: Position(state.begin),
            end: Position(state.end),
            bytes: state.runs.bytes(),
        }
    }
}

/// All logs that exist durably.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    pub(crate) by_id: HashMap<LogId, Arc<Log>>,
    pub(crate) by_number: BTreeMap<u32, Arc<Log>>,
}

impl Logs {
    pub(crate) fn insert(&mut self, log: Arc<Log>) {
        self.by_number.insert(log.number, Arc::clone(&log));
        self.by_id.insert(log.id.clone(), log);
    }

    pub(crate) fn remove(&mut self, log: &Log) {
        self.by_number.remove(&log.number);
        self.by_id.remove(&log.id);
    }
}

/// What is known of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentState {
    /// Bytes of the file up to its end, without what is allocated ahead.
    pub(crate) length: u64,
    /// Bytes of frames that a reader can still ask for.
    pub(crate) live: u64,
    pub(crate) sealed: bool,
    /// The lsn of the footer, of a sealed one.
    pub(crate) last_lsn: u64,
    /// A record in it could not be copied forward, so it stays as it is.
    pub(crate) damaged: bool,
}

/// The indexes of sealed segments that were used last.
#[derive(Debug, Default)]
pub(crate) struct IndexCache {
    // The most recently used is the last.
    entries: Vec<(u64, Arc<SegmentIndex>)>,
}

impl IndexCache {
    pub(crate) fn get(&mut self, segment: u64) -> Option<Arc<SegmentIndex>> {
        let at = self.entries.iter().position(|(number, _)| *number == segment)?;
        let entry = self.entries.remove(at);
        let index = Arc::clone(&entry.1);
        self.entries.push(entry);
        Some(index)
    }

    pub(crate) fn put(&mut self, segment: u64, index: Arc<SegmentIndex>) {
        self.remove(segment);
        self.entries.push((segment, index));
        let bytes =
            |entries: &[(u64, Arc<SegmentIndex>)]| entries.iter().map(|(_, index)| index.memory_bytes()).sum::<usize>();
        while self.entries.len() > 1 && bytes(&self.entries) > limits::SEGMENT_INDEX_CACHE_BYTES {
            self.entries.remove(0);
        }
    }

    pub(crate) fn remove(&mut self, segment: u64) {
        self.entries.retain(|(number, _)| *number != segment);
    }
}

/// What the writer, the readers and the adapter share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) memory: Budget,
    pub(crate) key: Key,
    pub(crate) queue: Queue,
    pub(crate) logs: RwLock<Logs>,
    pub(crate) segments: RwLock<BTreeMap<u64, SegmentState>>,
    /// The index of the segment that is written.
    pub(crate) active: RwLock<Option<(u64, SegmentIndex)>>,
    pub(crate) indexes: Mutex<IndexCache>,
    pub(crate) files: Mutex<VecDeque<(u64, Arc<dyn StorageFile>)>>,
    pub(crate) counters: Counters,
    pub(crate) failed: Mutex<Option<String>>,
    pub(crate) closed: AtomicBool,
    pub(crate) lock: Mutex<Option<Box<dyn Lock>>>,
}

impl Shared {
    /// The log with that identity.
    pub(crate) fn log(&self, id: &LogId) -> Result<Arc<Log>> {
        self.logs.read().by_id.get(id).cloned().ok_or_else(|| not_found(id))
    }

    /// An error where appends are no longer taken.
    pub(crate) fn writable(&self) -> Result<()> {
        if let Some(reason) = self.failed.lock().as_deref() {
            return Err(closed(Some(reason)));
        }
        self.readable()
    }

    /// An error where the log was closed.
    pub(crate) fn readable(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed(None)) } else { Ok(()) }
    }

    /// Stops all writing until the directory is opened anew.
    pub(crate) fn fail(&self, reason: &str) {
        tracing::error!(directory = %self.storage.describe(), reason, "the embedded log has failed");
        self.failed.lock().get_or_insert_with(|| reason.to_owned());
        self.queue.close();
        self.wake_readers();
    }

    /// Tells readers that wait that nothing more will come.
    pub(crate) fn wake_readers(&self) {
        for log in self.logs.read().by_number.values() {
            log.visible.send_modify(|visible| {
                visible.ended.get_or_insert(Ended::Closed);
            });
        }
    }

    /// Notes that nobody can ask for those bytes any more.
    pub(crate) fn release(&self, released: &Released) {
        let mut segments = self.segments.write();
        for (number, bytes) in released {
            if let Some(segment) = segments.get_mut(number) {
                segment.live = segment.live.saturating_sub(*bytes);
            }
        }
    }

    /// The file of a segment, opened where it is not.
    pub(crate) fn file(&self, segment: u64) -> io::Result<Arc<dyn StorageFile>> {
        if let Some((_, file)) = self.files.lock().iter().find(|(number, _)| *number == segment) {
            return Ok(Arc::clone(file));
        }
        let file = self.storage.open(&name::segment(segment), Mode::Read)?;
        self.keep_open(segment, Arc::clone(&file));
        Ok(file)
    }

    /// Keeps a file open for readers, and lets go of the one that was opened first where there are too many.
    pub(crate) fn keep_open(&self, segment: u64, file: Arc<dyn StorageFile>) {
        let mut files = self.files.lock();
        files.retain(|(number, _)| *number != segment);
        files.push_back((segment, file));
        if files.len() > limits::SEGMENT_FILES_OPEN {
            files.pop_front();
        }
    }

    /// Lets go of what is kept of a segment that is gone.
    pub(crate) fn forget(&self, segment: u64) {
        self.files.lock().retain(|(number, _)| *number != segment);
        self.indexes.lock().remove(segment);
    }
}
