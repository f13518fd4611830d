//! How much is out, for whoever waits until nothing is.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// A count of what has begun and not ended.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    count: AtomicU32,
    none: Notify,
}

impl Outstanding {
    /// One more has begun.
    pub(crate) fn begin(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// One that had begun has ended.
    pub(crate) fn end(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.none.notify_waiters();
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until there is none.
    pub(crate) async fn ended(&self) {
        loop {
            let none = self.none.notified();
            tokio::pin!(none);
            // Before the look, so that one that ends between is not missed.
            none.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            none.await;
        }
    }
}
