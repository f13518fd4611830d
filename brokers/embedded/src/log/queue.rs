//! The queue before the writer: bounded by records and by bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tidegate_backbone::{Error, ErrorKind, LogId, Position, Result};
use tidegate_schemas::limits;
use tokio::sync::oneshot;

use crate::log::frame::{Kind, frame_bytes};
use crate::log::shared::Log;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Encoded and checksummed by the caller, so that the writer only has to put it in its place.
    Append {
        log: Arc<Log>,
        kind: Kind,
        body: Bytes,
        body_crc: u32,
    },
    Create {
        id: LogId,
    },
    Delete {
        id: LogId,
    },
    Trim {
        log: Arc<Log>,
        before: u64,
    },
}

impl Operation {
    /// The bytes of its frame, at most.
    pub(crate) fn frame_bytes(&self) -> u64 {
        match self {
            Self::Append { body, .. } => frame_bytes(body.len()),
            Self::Create { .. } => frame_bytes(limits::TOPIC_NAME_BYTES * 2),
            Self::Delete { .. } | Self::Trim { .. } => frame_bytes(0),
        }
    }
}

/// Where the outcome goes; the position where there is one.
pub(crate) type Done = oneshot::Sender<Result<Option<Position>>>;

/// An operation and who waits for it.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) operation: Operation,
    pub(crate) done: Done,
}

#[derive(Debug, Default)]
struct Waiting {
    operations: VecDeque<Queued>,
    bytes: usize,
    closed: bool,
}

/// The queue before the writer.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    records_max: usize,
    bytes_max: usize,
}

/// What the writer finds.
#[derive(Debug)]
pub(crate) enum Taken {
    Work(Vec<Queued>),
    /// Nothing came within the time.
    Idle,
    /// Nothing is left, and nothing more will come.
    Closed,
}

impl Queue {
    pub(crate) fn new(records_max: usize, bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), wake: Condvar::new(), records_max, bytes_max }
    }

    /// Adds an operation behind all others, and gives where its outcome will come.
    pub(crate) fn push(&self, operation: Operation) -> Result<oneshot::Receiver<Result<Option<Position>>>> {
        let bytes = usize::try_from(operation.frame_bytes()).unwrap_or(usize::MAX);
        let (done, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(crate::error::closed(None));
            }
            // A slot's frames are few, and everything that the gateway remembers waits for them: events leave them an
            // eighth of the queue.
            let event = matches!(operation, Operation::Append { kind: Kind::Event, .. });
            let reserve = |most: usize| if event { most - most / 8 } else { most };
            let (records_max, bytes_max) = (reserve(self.records_max), reserve(self.bytes_max));
            let full = waiting.operations.len() >= records_max
                || (waiting.bytes + bytes > bytes_max && !waiting.operations.is_empty());
            // Trims and deletions are few and give space back, so they are always taken.
            let bounded = matches!(operation, Operation::Append { .. } | Operation::Create { .. });
            if full && bounded {
                return Err(Error::new(
                    ErrorKind::Backpressure { retry_after: limits::APPEND_RETRY_AFTER },
                    format!(
                        "{} appends with {} bytes wait for the disk, and no more than {records_max} with {bytes_max} bytes may",
                        waiting.operations.len(),
                        waiting.bytes,
                    ),
                ));
            }
            waiting.bytes += bytes;
            waiting.operations.push_back(Queued { operation, done });
        }
        self.wake.notify_one();
        Ok(receiver)
    }

    /// Takes what is there up to the bytes of one commit, waiting as long as `patience` says, `None` for ever.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Taken {
        let mut waiting = self.waiting.lock();
        while waiting.operations.is_empty() {
            if waiting.closed {
                return Taken::Closed;
            }
            match patience {
                None => self.wake.wait(&mut waiting),
                Some(patience) if patience.is_zero() => return Taken::Idle,
                Some(patience) => {
                    if self.wake.wait_for(&mut waiting, patience).timed_out() && waiting.operations.is_empty() {
                        return if waiting.closed { Taken::Closed } else { Taken::Idle };
                    }
                }
            }
        }
        let mut taken = Vec::with_capacity(waiting.operations.len().min(1024));
        let mut total = 0;
        while let Some(next) = waiting.operations.front() {
            let bytes = usize::try_from(next.operation.frame_bytes()).unwrap_or(usize::MAX);
            if !taken.is_empty() && total + bytes > limits::COMMIT_BYTES {
                break;
            }
            total += bytes;
            taken.extend(waiting.operations.pop_front());
        }
        waiting.bytes -= total;
        Taken::Work(taken)
    }

    /// Takes no more; what is there is still given out.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake.notify_all();
    }
}
