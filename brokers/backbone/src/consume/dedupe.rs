//! Which events of a partition are duplicates: a function of the partition's log alone, so that every reader that begins
//! a window earlier comes to the same answer.
//!
//! An event is a duplicate when one of the same (`source`, `id`) was appended not longer than the window before it and
//! is among the [`limits::DEDUPE_EVENTS`] events right before it. A duplicate counts like any other event for the ones
//! after it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tidegate_schemas::{Event, limits};
use xxhash_rust::xxh3::Xxh3;

use crate::log::Position;

/// The identity of an event: 128 bits of hash over (`source`, `id`), parted so that no two pairs run together.
pub(crate) fn identity(event: &Event) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&(event.source().len() as u64).to_le_bytes());
    hasher.update(event.source().as_bytes());
    hasher.update(event.id().as_bytes());
    hasher.digest128()
}

/// The events that a duplicate is looked for among. Memory is bounded by [`limits::DEDUPE_EVENTS`] entries.
#[derive(Debug)]
pub(crate) struct Window {
    length_milliseconds: u64,
    recent: VecDeque<(u128, u64)>,
    /// When the identity was last appended, and how often it stands in `recent`.
    last: HashMap<u128, (u64, u32)>,
}

impl Window {
    /// An empty window of that length; zero finds no duplicates.
    pub(crate) fn new(length: Duration) -> Self {
        Self {
            length_milliseconds: u64::try_from(length.as_millis()).unwrap_or(u64::MAX),
            recent: VecDeque::new(),
            last: HashMap::new(),
        }
    }

    /// Whether the next event of the log is a duplicate.
    pub(crate) fn observe(&mut self, identity: u128, appended_at: u64) -> bool {
        if self.length_milliseconds == 0 {
            return false;
        }
        while self.recent.len() >= limits::DEDUPE_EVENTS
            || self.recent.front().is_some_and(|(_, at)| appended_at.saturating_sub(*at) > self.length_milliseconds)
        {
            let Some((oldest, _)) = self.recent.pop_front() else { break };
            if let Some((_, count)) = self.last.get_mut(&oldest) {
                *count -= 1;
                if *count == 0 {
                    self.last.remove(&oldest);
                }
            }
        }
        self.recent.push_back((identity, appended_at));
        match self.last.entry(identity) {
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let (at, count) = entry.get_mut();
                *at = appended_at;
                *count += 1;
                true
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert((appended_at, 1));
                false
            }
        }
    }

    /// How far before an event that was appended at that time reading must begin to judge it.
    pub(crate) fn begins(&self, appended_at: u64) -> u64 {
        appended_at.saturating_sub(self.length_milliseconds)
    }
}

/// The duplicates that a partition's router has found, for readers that go over the same ground later.
#[derive(Debug)]
pub(crate) struct Found {
    known_from: Position,
    positions: BTreeSet<Position>,
}

impl Found {
    /// Nothing found yet, from that position on.
    pub(crate) fn from(known_from: Position) -> Self {
        Self { known_from, positions: BTreeSet::new() }
    }

    /// Notes a duplicate. Beyond [`limits::DEDUPE_EVENTS`] of them the oldest are forgotten.
    pub(crate) fn insert(&mut self, position: Position) {
        self.positions.insert(position);
        if self.positions.len() > limits::DEDUPE_EVENTS
            && let Some(forgotten) = self.positions.pop_first()
        {
            self.known_from = forgotten.next();
        }
    }

    /// Whether it is a duplicate; `None` where that is not known here.
    pub(crate) fn is_duplicate(&self, position: Position) -> Option<bool> {
        (position >= self.known_from).then(|| self.positions.contains(&position))
    }

    /// Adds what was found from `known_from` up to where this knew the answer already.
    pub(crate) fn extend(&mut self, known_from: Position, positions: impl IntoIterator<Item = Position>) {
        if known_from < self.known_from {
            self.known_from = known_from;
            positions.into_iter().for_each(|position| self.insert(position));
        }
    }

    /// From where on this knows the answer.
    pub(crate) fn known_from(&self) -> Position {
        self.known_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_by_age_and_by_count_and_is_a_function_of_the_log() {
        let mut window = Window::new(Duration::from_millis(100));
        assert!(!window.observe(1, 1_000));
        assert!(window.observe(1, 1_100), "at the edge of the window");
        assert!(window.observe(1, 1_200), "a duplicate counts for those behind it");
        assert!(!window.observe(1, 1_301), "behind the window");
        assert!(!window.observe(2, 1_301));

        let events: Vec<(u128, u64)> = (0..3_000_u64).map(|n| (u128::from(n * n % 37), n * 3 + n % 2)).collect();
        let judged = |from: usize| -> Vec<bool> {
            let mut window = Window::new(Duration::from_millis(40));
            events[from..].iter().map(|(id, at)| window.observe(*id, *at)).collect()
        };
        let whole = judged(0);
        assert!(whole.iter().any(|duplicate| *duplicate) && whole.iter().any(|duplicate| !duplicate));
        for start in [100, 1_000, 2_900] {
            let begin = events.iter().position(|(_, at)| *at >= events[start].1.saturating_sub(40)).unwrap();
            assert_eq!(whole[start..], judged(begin)[start - begin..], "from {start}");
        }
    }

    #[test]
    fn an_off_window_finds_nothing() {
        let mut window = Window::new(Duration::ZERO);
        assert!(!window.observe(1, 1));
        assert!(!window.observe(1, 1));
    }

    #[test]
    fn pairs_that_run_together_differ() {
        let event = |source: &'static str, id: &'static str| Event::builder(id, source, "t").build().unwrap();
        assert_ne!(identity(&event("/ab", "c")), identity(&event("/a", "bc")));
        assert_eq!(identity(&event("/a", "1")), identity(&event("/a", "1")));
    }
}
