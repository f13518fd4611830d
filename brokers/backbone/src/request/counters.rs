//! What a node counts.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Figures since a node was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counted {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> Counted {
                Counted { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Messages given to the lane.
    messages_sent,
    /// Messages that came from the lane.
    messages_received,
    /// Messages that are none, or damaged, or of another version.
    malformed,
    /// Messages that were meant for another node.
    foreign,
    /// Requests sent.
    requests_sent,
    /// Requests that came, repeated ones counted.
    requests_received,
    /// Requests that a handler was asked to carry out.
    carried_out,
    /// Requests that were dropped because they had come before.
    duplicates,
    /// Requests that were dropped because their time was over.
    expired,
    /// Requests that were refused without asking their handler.
    turned_away,
    /// Requests that their callers cancelled.
    cancelled,
    /// Replies and refusals for which nobody waited any more.
    late,
    /// Chunks that had come before.
    chunks_repeated,
    /// Bodies that were given up because a part of them was missing or did not come.
    transfers_broken,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
