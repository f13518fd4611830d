//! What happened since the log was opened, as plain numbers; whoever exports metrics reads them from here.

use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers at one moment. All count up from the opening, but for `segments`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Groups that were written and synchronised.
    pub commits: u64,
    /// Records that were appended.
    pub records: u64,
    /// Bytes that were written, headers and copies included.
    pub bytes: u64,
    /// Segments that exist now.
    pub segments: u64,
    /// Segments that were sealed.
    pub segments_sealed: u64,
    /// Segments that were removed.
    pub segments_removed: u64,
    /// Records that were copied forward to empty a segment.
    pub records_copied: u64,
    /// Reads of a file.
    pub reads: u64,
    /// Batches that were served from memory.
    pub recent_hits: u64,
    /// Commits that found the disk full.
    pub storage_full: u64,
    /// Indexes that had to be made anew from their segment.
    pub indexes_rebuilt: u64,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) segments_sealed: AtomicU64,
    pub(crate) segments_removed: AtomicU64,
    pub(crate) records_copied: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) recent_hits: AtomicU64,
    pub(crate) storage_full: AtomicU64,
    pub(crate) indexes_rebuilt: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn snapshot(&self, segments: usize) -> CountersSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            commits: read(&self.commits),
            records: read(&self.records),
            bytes: read(&self.bytes),
            segments: segments as u64,
            segments_sealed: read(&self.segments_sealed),
            segments_removed: read(&self.segments_removed),
            records_copied: read(&self.records_copied),
            reads: read(&self.reads),
            recent_hits: read(&self.recent_hits),
            storage_full: read(&self.storage_full),
            indexes_rebuilt: read(&self.indexes_rebuilt),
        }
    }
}
