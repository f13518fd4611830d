//! How many events are on their way to the log. Beyond a bound publishing is refused, before anything is read or encoded:
//! an event that waits behind thousands comes late, and whoever waits that long sends it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tidegate_backbone::{Error, ErrorKind, Result};
use tidegate_schemas::limits;

/// Counts events from when they are published until their outcome is known. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Flights(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    out: AtomicUsize,
    refused: AtomicU64,
}

impl Flights {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, out: AtomicUsize::new(0), refused: AtomicU64::new(0) }))
    }

    /// Events that are on their way.
    pub(super) fn out(&self) -> usize {
        self.0.out.load(Ordering::Relaxed)
    }

    /// How often publishing was refused.
    pub(super) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Whether an event more may be published.
    pub(super) fn check(&self) -> Result<()> {
        let out = self.out();
        if out < self.0.most { Ok(()) } else { Err(self.full(out)) }
    }

    /// Counts events until the flight is dropped. A batch of more than all is taken where nothing else is out.
    pub(super) fn begin(&self, events: usize) -> Result<Flight> {
        let before = self.0.out.fetch_add(events, Ordering::Relaxed);
        let flight = Flight { flights: self.clone(), events };
        if before > 0 && before + events > self.0.most { Err(self.full(before)) } else { Ok(flight) }
    }

    fn full(&self, out: usize) -> Error {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        Error::new(
            ErrorKind::Backpressure { retry_after: limits::PUBLISHES_RETRY_AFTER },
            format!("{out} events are on their way to the log, and no more than {} may be", self.0.most),
        )
    }
}

/// Events that are on their way.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Flights,
    events: usize,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.0.out.fetch_sub(self.events, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_out_as_may_be() {
        let flights = Flights::new(10);
        let first = flights.begin(6).unwrap();
        assert!(flights.begin(5).is_err());
        assert_eq!(flights.out(), 6, "a refused batch is not out");
        let second = flights.begin(4).unwrap();
        let error = flights.check().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Backpressure { .. }), "{error}");
        drop(first);
        assert!(flights.check().is_ok());
        drop(second);
        let large = flights.begin(1_000).unwrap();
        assert!(flights.check().is_err());
        drop(large);
        assert_eq!((flights.out(), flights.refused()), (0, 3));
    }
}
