//! Watches: changes of the keys with a prefix, in the order of revisions, through a bounded queue.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_schemas::limits;
use tokio::sync::Notify;

/// What a watch gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A key was put, or deleted where it has no value.
    Changed {
        /// Which.
        key: Bytes,
        /// By which revision.
        revision: u64,
        /// What it is now.
        value: Option<Bytes>,
    },
    /// More changed than the watch holds; read all keys again. Changes after that reading follow.
    Rescan,
}

#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<Watched>,
    rescan: bool,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    prefix: Bytes,
    queue: Mutex<Queue>,
    notify: Notify,
}

/// Follows the changes of some keys. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
}

impl Watch {
    /// The next change, waiting for it; none when the journal is closed and all was given. May be dropped while it
    /// waits, without losing a change.
    pub async fn next(&mut self) -> Option<Watched> {
        loop {
            {
                let mut queue = self.shared.queue.lock();
                if queue.rescan {
                    queue.rescan = false;
                    return Some(Watched::Rescan);
                }
                if let Some(change) = queue.changes.pop_front() {
                    return Some(change);
                }
                if queue.closed {
                    return None;
                }
            }
            // One waiter only, as `next` borrows the watch: a permit stored between the look and the wait wakes it.
            self.shared.notify.notified().await;
        }
    }
}

/// All watches of a slot.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    watches: Vec<Weak<Shared>>,
    closed: bool,
}

impl Watches {
    pub(crate) fn add(&mut self, prefix: Bytes) -> Watch {
        let queue = Queue { closed: self.closed, ..Queue::default() };
        let shared = Arc::new(Shared { prefix, queue: Mutex::new(queue), notify: Notify::new() });
        self.watches.push(Arc::downgrade(&shared));
        Watch { shared }
    }

    pub(crate) fn changed(&mut self, key: &Bytes, revision: u64, value: Option<&Bytes>) {
        self.watches.retain(|watch| {
            let Some(shared) = watch.upgrade() else { return false };
            if key.starts_with(&shared.prefix) {
                let mut queue = shared.queue.lock();
                if queue.changes.len() >= limits::JOURNAL_WATCH_CHANGES {
                    queue.changes.clear();
                    queue.rescan = true;
                }
                // A reader that is about to scan again sees this change there; told twice is harmless, missed is not.
                queue.changes.push_back(Watched::Changed { key: key.clone(), revision, value: value.cloned() });
                drop(queue);
                shared.notify.notify_one();
            }
            true
        });
    }

    /// What was told before is not to be relied on: all are to read again.
    pub(crate) fn rescan(&mut self) {
        self.watches.retain(|watch| {
            let Some(shared) = watch.upgrade() else { return false };
            let mut queue = shared.queue.lock();
            queue.changes.clear();
            queue.rescan = true;
            drop(queue);
            shared.notify.notify_one();
            true
        });
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
        for shared in self.watches.drain(..).filter_map(|watch| watch.upgrade()) {
            shared.queue.lock().closed = true;
            shared.notify.notify_one();
        }
    }
}
