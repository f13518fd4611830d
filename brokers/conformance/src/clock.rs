//! Time that a case holds in its hands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_backbone::Clock;

/// A clock that stands still until it is moved. It begins in November 2023, as every run of a case does.
#[derive(Debug)]
pub struct HeldClock(AtomicU64);

impl Default for HeldClock {
    fn default() -> Self {
        Self(AtomicU64::new(1_700_000_000_000))
    }
}

impl HeldClock {
    /// Goes on by that much.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for HeldClock {
    fn unix_milliseconds(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.unix_milliseconds())
    }
}
