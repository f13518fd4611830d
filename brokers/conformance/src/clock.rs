//! Time that a case holds in its hands.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_backbone::{Clock, Environment};

/// A wall clock that stands still until it is moved. It begins in November 2023, as every run of a case does. The time since
/// the machine booted is the machine's: leases and silences are not a case's to hold.
#[derive(Debug)]
pub struct HeldClock {
    machine: Arc<dyn Clock>,
    moves: Mutex<Vec<Move>>,
}

/// From when on by the machine's clock it has stood where.
#[derive(Clone, Copy, Debug)]
struct Move {
    /// The last millisecond before.
    after: u64,
    held: u64,
}

const BEGIN: u64 = 1_700_000_000_000;

impl Default for HeldClock {
    fn default() -> Self {
        let begin = Move { after: 0, held: BEGIN };
        Self { machine: Environment::system().clock, moves: Mutex::new(vec![begin]) }
    }
}

impl HeldClock {
    /// Goes on by that much.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        if by == 0 {
            return;
        }
        let mut moves = self.moves.lock();
        let held = moves.last().map_or(BEGIN, |last| last.held).saturating_add(by);
        let after = self.machine.unix_milliseconds();
        moves.push(Move { after, held });
        // So that no moment of the machine's clock is before the move and after it: a millisecond at most.
        while self.machine.unix_milliseconds() <= after {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Where it stood at a moment of the machine's clock.
    pub(crate) fn at(&self, machine: u64) -> u64 {
        let moves = self.moves.lock();
        moves.iter().rev().find(|step| step.after < machine).map_or(BEGIN, |step| step.held)
    }

    /// The first moment of the machine's clock at which it stood there or further on; none where that is yet to come.
    pub(crate) fn first_at(&self, held: u64) -> Option<u64> {
        let moves = self.moves.lock();
        let reached = moves.iter().find(|step| step.held >= held)?;
        Some(if reached.after == 0 { 0 } else { reached.after + 1 })
    }
}

impl Clock for HeldClock {
    fn unix_milliseconds(&self) -> u64 {
        self.moves.lock().last().map_or(BEGIN, |last| last.held)
    }

    fn since_boot(&self) -> Duration {
        self.machine.since_boot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_tells_where_it_stood() {
        let clock = HeldClock::default();
        let now = || clock.machine.unix_milliseconds();
        let first = now();
        assert_eq!((clock.at(first), clock.first_at(BEGIN)), (BEGIN, Some(0)));
        clock.advance(Duration::from_secs(10));
        let second = now();
        assert_eq!((clock.at(first), clock.at(second)), (BEGIN, BEGIN + 10_000));
        let moved = clock.first_at(BEGIN + 1).unwrap();
        assert!(first < moved && moved <= second, "{first} {moved} {second}");
        assert_eq!((clock.at(moved - 1), clock.at(moved)), (BEGIN, BEGIN + 10_000));
        assert_eq!(clock.first_at(BEGIN + 10_000), Some(moved));
        assert_eq!(clock.first_at(BEGIN + 10_001), None);
        assert_eq!(clock.unix_milliseconds(), BEGIN + 10_000);
    }
}
