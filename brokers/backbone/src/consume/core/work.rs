//! What there is to read for one subscription: lanes whose time has come, and partitions that it reads by itself.

use tidegate_routing::breaker::Permit;

use super::{Core, Site};
use crate::budget::Account;
use crate::consume::progress::Loads;
use crate::log::Position;

/// What the feeder is to do next.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Lanes to load, with their partitions.
    pub(crate) loads: Vec<(Site, Loads)>,
    /// Lanes are due that others are waited for.
    pub(crate) gathers: bool,
    /// Partitions to read on by itself, and from where.
    pub(crate) reads: Vec<(Site, Position)>,
    /// When the next lane is due, in milliseconds since 1970.
    pub(crate) next_due: Option<u64>,
}

impl Core {
    /// What there is to read. Loading is kept to about what can go out soon; `waited` says that no more lanes are to be waited
    /// for which could be loaded with those that are due.
    pub(crate) fn work(&self, now: u64, waited: bool) -> Option<Work> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let mut work = Work::default();
        if state.paused.is_some() {
            return Some(work);
        }
        let mut probe_at = None;
        match state.breaker.permit(now) {
            Permit::Probe(_) => self.ready.notify_one(),
            Permit::Wait(at) => probe_at = at,
            Permit::All => {}
        }
        // Twice what can be out at once keeps the lanes busy while the next are loaded.
        let active_max = state.subscription.spec.max_in_flight as usize * 2;
        let short_of_memory = !self.memory.has_room(Account::Reads);
        for place in state.entries.due(now) {
            let loads = state.entries.try_at(place, |entry| {
                entry.progress.memory_is_short(short_of_memory);
                let loads = entry.progress.due(now, active_max, waited);
                if loads.lanes.is_empty() {
                    work.gathers |= !waited && entry.progress.has_due(now);
                    return None;
                }
                Some((entry.site(), loads))
            });
            work.loads.extend(loads);
        }
        // One that is due and was not taken waits for room, which settling tells of.
        work.next_due = probe_at.into_iter().chain(state.entries.next_due(now)).min();
        for place in state.entries.own() {
            let read = state.entries.try_at(place, |entry| {
                entry.progress.memory_is_short(short_of_memory);
                let from = entry.reads_from().filter(|_| entry.progress.has_room())?;
                Some((entry.site(), from))
            });
            work.reads.extend(read);
        }
        Some(work)
    }

    /// Whether it reads that partition by itself, with room for more or without, and nobody stopped it.
    pub(crate) fn reads_itself(&self, site: &Site) -> bool {
        let state = self.state.lock();
        state.paused.is_none() && state.entry_at(site.as_ref()).is_some_and(|entry| entry.reads_from().is_some())
    }
}
