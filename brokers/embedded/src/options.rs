//! What an embedded log is opened with.

use std::path::PathBuf;

use tidegate_schemas::limits;

/// When an append is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After it was written and synchronised, together with whatever else was queued.
    #[default]
    Group,
    /// After it was written: survives the process, not the machine. For measurements and controls.
    NoSync,
}

/// A fault that tests must be able to find. A log opened with one breaks its promises on purpose.
#[cfg(any(test, feature = "test-util"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Appends are acknowledged before they are written.
    AcknowledgeBeforeWrite,
}

/// What an embedded log is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory; it is created where it does not exist.
    pub directory: PathBuf,
    /// Bytes at which a segment is sealed; one commit may exceed it. At most 16 GiB. Default [`limits::SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// Bytes that are allocated ahead in a segment. Default [`limits::SEGMENT_ALLOCATION_BYTES`].
    pub allocation_bytes: u64,
    /// Appends that may wait for the writer. Default [`limits::APPEND_QUEUE_RECORDS`].
    pub queue_records: usize,
    /// The bytes of those appends. Default [`limits::APPEND_QUEUE_BYTES`].
    pub queue_bytes: usize,
    /// The bytes of committed records that are kept in memory for readers at the end. Default [`limits::RECENT_BYTES`].
    pub recent_bytes: usize,
    /// Threads that read the files; with 0 the caller's own thread reads, which blocks it. Default 2.
    pub read_threads: usize,
    /// When an append is acknowledged. Default [`Durability::Group`].
    pub durability: Durability,
    /// Breaks a promise on purpose.
    #[cfg(any(test, feature = "test-util"))]
    pub fault: Option<Fault>,
    /// There is no writer thread; commits happen in `EmbeddedLog::drive`.
    #[cfg(any(test, feature = "test-util"))]
    pub by_hand: bool,
}

impl Options {
    /// The defaults, for that directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes: limits::SEGMENT_BYTES,
            allocation_bytes: limits::SEGMENT_ALLOCATION_BYTES,
            queue_records: limits::APPEND_QUEUE_RECORDS,
            queue_bytes: limits::APPEND_QUEUE_BYTES,
            recent_bytes: limits::RECENT_BYTES,
            read_threads: 2,
            durability: Durability::Group,
            #[cfg(any(test, feature = "test-util"))]
            fault: None,
            #[cfg(any(test, feature = "test-util"))]
            by_hand: false,
        }
    }

    /// Whether appends are acknowledged before they are written.
    pub(crate) fn acknowledges_early(&self) -> bool {
        #[cfg(any(test, feature = "test-util"))]
        return self.fault == Some(Fault::AcknowledgeBeforeWrite);
        #[cfg(not(any(test, feature = "test-util")))]
        false
    }

    /// Whether the test commits.
    pub(crate) fn by_hand(&self) -> bool {
        #[cfg(any(test, feature = "test-util"))]
        return self.by_hand;
        #[cfg(not(any(test, feature = "test-util")))]
        false
    }
}
