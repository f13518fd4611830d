//! Until when an owner may act without asking the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tidegate_schemas::limits;

use crate::environment::Clock;

/// The lease of one ownership. It lasts [`limits::CLAIM_LEASE`] from the moment at which the newest frame that is known
/// accepted was sent: a candidate counts the silence from when it read that frame, which is later, and counts longer.
#[derive(Debug)]
pub(super) struct Lease {
    clock: Arc<dyn Clock>,
    /// Whether nobody but this process can own the slot, so that there is nothing to count.
    exclusive: bool,
    /// When the newest frame that is known accepted was sent, in microseconds since the machine booted.
    sent: AtomicU64,
    ended: AtomicBool,
}

impl Lease {
    pub(super) fn new(clock: Arc<dyn Clock>, exclusive: bool, sent: Duration) -> Self {
        let lease = Self { clock, exclusive, sent: AtomicU64::new(0), ended: AtomicBool::new(false) };
        lease.renew(sent);
        lease
    }

    /// A frame that was sent then is known accepted.
    pub(super) fn renew(&self, sent: Duration) {
        self.sent.fetch_max(u64::try_from(sent.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// When the newest frame that is known accepted was sent, since the machine booted.
    pub(super) fn renewed(&self) -> Duration {
        Duration::from_micros(self.sent.load(Ordering::SeqCst))
    }

    /// The ownership is over, or about to be given up.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(super) fn holds(&self) -> bool {
        if self.ended.load(Ordering::SeqCst) {
            return false;
        }
        self.exclusive || self.clock.since_boot() < self.renewed().saturating_add(limits::CLAIM_LEASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    #[test]
    fn a_lease_counts_from_the_sending_and_is_not_revived() {
        let clock = Arc::new(ManualClock::default());
        let lease = Lease::new(Arc::clone(&clock) as Arc<dyn Clock>, false, Duration::ZERO);
        clock.advance(Duration::from_millis(1_499));
        assert!(lease.holds());
        clock.advance(Duration::from_millis(1));
        assert!(!lease.holds());
        // Known accepted now, but sent a second ago.
        lease.renew(Duration::from_millis(500));
        assert!(lease.holds());
        lease.renew(Duration::from_millis(100));
        clock.advance(Duration::from_millis(499));
        assert!(lease.holds(), "an older frame takes nothing away");
        // The machine slept for an hour.
        clock.advance(Duration::from_secs(3_600));
        assert!(!lease.holds());
        lease.end();
        lease.renew(clock.since_boot());
        assert!(!lease.holds());
        let exclusive = Lease::new(clock, true, Duration::ZERO);
        assert!(exclusive.holds());
        exclusive.end();
        assert!(!exclusive.holds());
    }
}
