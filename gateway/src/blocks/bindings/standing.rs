//! How an input binding stands.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What a binding does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum State {
    /// It has not begun to read.
    #[default]
    Starting,
    /// It reads, and what it reads is taken.
    Running,
    /// What it needs is not there for now, and is tried again.
    Waiting {
        /// Since when, in milliseconds since 1970, where that is known.
        since: Option<u64>,
        /// What it waits for.
        reason: String,
    },
    /// It stands still until somebody resumes it.
    Paused {
        /// Since when, in milliseconds since 1970.
        since: u64,
        /// Why.
        reason: String,
    },
    /// Nobody here knows.
    Unknown {
        /// Why.
        reason: String,
    },
}

impl State {
    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting { .. } => "waiting",
            Self::Paused { .. } => "paused",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Why it does not run, where it does not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting { reason, .. } | Self::Paused { reason, .. } | Self::Unknown { reason } => Some(reason),
            Self::Starting | Self::Running => None,
        }
    }

    /// Since when it waits or is paused, in milliseconds since 1970, where that is known.
    pub fn since(&self) -> Option<u64> {
        match self {
            Self::Waiting { since, .. } => *since,
            Self::Paused { since, .. } => Some(*since),
            Self::Starting | Self::Running | Self::Unknown { .. } => None,
        }
    }
}

/// How an input binding stands, and what it has done since it began here.
#[derive(Debug, Default)]
pub(super) struct Standing {
    state: Mutex<State>,
    /// Messages that became events.
    taken: AtomicU64,
    /// Those that were given before.
    redelivered: AtomicU64,
    /// Messages that were given back as refused.
    rejected: AtomicU64,
    resumed: Notify,
}

/// What an input has done since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Messages that became events.
    pub taken: u64,
    /// Messages that came which were given before, to anybody.
    pub redelivered: u64,
    /// Messages that were given back as refused.
    pub rejected: u64,
}

impl Counts {
    /// Each with its word.
    pub fn by_outcome(&self) -> [(&'static str, u64); 3] {
        [("taken", self.taken), ("redelivered", self.redelivered), ("rejected", self.rejected)]
    }
}

impl Standing {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// What it does.
    pub(super) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// What it has done.
    pub(super) fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { taken: of(&self.taken), redelivered: of(&self.redelivered), rejected: of(&self.rejected) }
    }

    pub(super) fn runs(&self) {
        *self.state.lock() = State::Running;
    }

    /// Whether this is another reason than it had.
    pub(super) fn waits(&self, now: u64, why: &str) -> bool {
        let mut state = self.state.lock();
        match &mut *state {
            State::Waiting { reason, .. } if reason == why => false,
            State::Waiting { reason, .. } => {
                why.clone_into(reason);
                true
            }
            _ => {
                *state = State::Waiting { since: Some(now), reason: why.to_owned() };
                true
            }
        }
    }

    pub(super) fn pauses(&self, now: u64, reason: &str) {
        *self.state.lock() = State::Paused { since: now, reason: reason.to_owned() };
    }

    pub(super) fn took(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn saw_again(&self) {
        self.redelivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets it go on where it is paused.
    pub(super) fn resume(&self) {
        let mut state = self.state.lock();
        if let State::Paused { .. } = *state {
            *state = State::Starting;
            self.resumed.notify_one();
        }
    }

    /// Until somebody resumes it.
    pub(super) async fn resumed(&self) {
        self.resumed.notified().await;
    }
}
