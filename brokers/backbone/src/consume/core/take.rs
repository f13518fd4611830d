//! What goes out next, and what becomes of it.

use std::sync::Arc;

use tidegate_routing::breaker::{self, Permit};

use super::entries::Round;
use super::{Core, Partition};
use crate::budget::Account;
use crate::consume::owned::Owned;
use crate::consume::progress::{Choice, LaneKey, Progress, Taken};

/// How often it is looked whether a lease that was not renewed in time is held again.
const LEASE_POLL_MILLISECONDS: u64 = 20;

/// An event to go out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    place: usize,
    ticket: u64,
    pub(crate) partition: Partition,
    /// The ownership that it goes out under.
    pub(crate) owned: Arc<Owned>,
    pub(crate) taken: Taken,
    pub(crate) redriven: bool,
    /// It finds out whether the sink is well again, which was found at fault for that cause.
    pub(crate) probe: Option<breaker::Cause>,
}

/// What an attempt showed of the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing: there was none.
    Nothing,
    /// It answered for this event.
    Success,
    /// It refused the request, whatever the event.
    Refused,
    /// It failed in a way that another try may mend.
    Failure,
    /// There was no connection.
    Unreachable,
}

/// What [`Core::take`] found.
#[derive(Debug)]
pub(crate) enum Take {
    /// This one goes out.
    Now(Box<Outgoing>),
    /// Nothing before something changes, or before that time (milliseconds since 1970).
    Wait(Option<u64>),
    /// Never again.
    Closed,
}

impl Core {
    /// The next event to go out.
    pub(crate) fn take(&self, now: u64) -> Take {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.closed {
            return Take::Closed;
        }
        if state.paused.is_some() {
            return Take::Wait(None);
        }
        let probe = match state.breaker.permit(now) {
            Permit::All => None,
            Permit::Probe(cause) => Some(cause),
            Permit::Wait(until) => return Take::Wait(until),
        };
        let max_in_flight = state.subscription.spec.max_in_flight;
        if state.in_flight >= max_in_flight {
            return Take::Wait(None);
        }
        let retries = state.budget.ready_at(now);
        let choice = match (probe, &retries) {
            (Some(_), _) => Choice::Probe,
            (None, Ok(_)) => Choice::RetriesFirst,
            (None, Err(_)) => Choice::New,
        };
        let short_of_memory = !self.memory.has_room(Account::Reads);
        let mut without_lease = false;
        let mut round = Round::from(state.turn);
        while let Some(place) = state.entries.next_ready(&mut round, choice) {
            let taken = state.entries.try_at(place, |entry| {
                if entry.owned.is_closing() {
                    return None;
                }
                if !entry.owned.holds() {
                    without_lease = true;
                    return None;
                }
                let taken = entry.progress.take(choice)?;
                entry.mark();
                entry.progress.memory_is_short(short_of_memory);
                let reads_on = entry.reads_from().is_some() && entry.progress.has_room();
                entry.owned.goes_out();
                let outgoing = Outgoing {
                    place,
                    ticket: entry.ticket,
                    partition: entry.partition.clone(),
                    owned: Arc::clone(&entry.owned),
                    taken,
                    redriven: entry.redrive_only,
                    probe,
                };
                Some((outgoing, reads_on || entry.progress.has_due(now)))
            });
            let Some((outgoing, room)) = taken else { continue };
            state.turn = place + 1;
            state.in_flight += 1;
            if outgoing.taken.attempts > 0 {
                state.budget.retry();
            } else {
                state.budget.first();
            }
            if probe.is_some() {
                state.breaker.probe();
            }
            // One permit stands for any number of events that became ready while nobody waited: whoever took one wakes
            // the next.
            if probe.is_none() && state.in_flight < max_in_flight && state.entries.has_ready() {
                self.ready.notify_one();
            }
            if room {
                self.feed.notify_one();
            }
            return Take::Now(Box::new(outgoing));
        }
        let budget = retries.err().filter(|_| state.entries.has_retry());
        let lease = without_lease.then(|| now.saturating_add(LEASE_POLL_MILLISECONDS));
        Take::Wait(budget.into_iter().chain(lease).min())
    }

    /// Settles an event that went out.
    pub(crate) fn settle(&self, outgoing: Outgoing, heard: Heard, now: u64, change: impl FnOnce(&mut Progress, Taken)) {
        let mut state = self.state.lock();
        state.in_flight -= 1;
        let key = match outgoing.taken.lane {
            LaneKey::Key(hash) => hash,
            LaneKey::Single(position) => (outgoing.place as u128 + 1) << 64 | u128::from(position.0),
        };
        let was_probe = outgoing.probe.is_some();
        match heard {
            Heard::Nothing => state.breaker.release(was_probe),
            Heard::Success | Heard::Refused => state.breaker.record(breaker::Heard::Success, was_probe, now),
            Heard::Failure => state.breaker.record(breaker::Heard::Failure { key }, was_probe, now),
            Heard::Unreachable => state.breaker.record(breaker::Heard::Unreachable, was_probe, now),
        }
        if outgoing.taken.attempts > 0 && matches!(heard, Heard::Success | Heard::Nothing | Heard::Unreachable) {
            // It was none that the sink could not take.
            state.budget.succeeded();
        }
        // What belonged to an ownership that is over, or to a topic that is gone, is settled without effect.
        if state.entries.at(outgoing.place).is_some_and(|entry| entry.ticket == outgoing.ticket) {
            state.entries.change_at(outgoing.place, |entry| change(&mut entry.progress, outgoing.taken));
        }
        drop(state);
        outgoing.owned.came_back();
        self.ready.notify_one();
        // It also keeps the time of the next probe.
        self.feed.notify_one();
    }
}
