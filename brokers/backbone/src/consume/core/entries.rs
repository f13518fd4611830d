//! The partitions of one subscription, found by their place, by their name, and by what there is to do: who asks for the next
//! delivery, or for what there is to read, looks at the partitions that have some, however many rest.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tidegate_routing::partition::KeyFrom;

use super::{Feed, Partition, Site};
use crate::consume::marks::Mark;
use crate::consume::owned::Owned;
use crate::consume::progress::{Choice, Progress};
use crate::log::Position;

/// A partition of a subscription.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) partition: Partition,
    /// The ownership that it belongs to.
    pub(super) owned: Arc<Owned>,
    pub(super) mark: Arc<Mark>,
    /// Told apart by this from what stood at its place before.
    pub(super) ticket: u64,
    pub(super) key_from: KeyFrom,
    pub(super) progress: Progress,
    pub(super) feed: Feed,
    /// Nothing was read yet, and it begins with the first event that is there then.
    pub(super) first: bool,
    /// A dead-letter topic, of which only single events are read that were asked for.
    pub(super) redrive_only: bool,
}

impl Entry {
    /// What a checkpoint says of it may have changed. To be called under the lock of the state.
    pub(super) fn mark(&self) {
        self.owned.marks.set(&self.mark);
    }

    pub(super) fn site(&self) -> Site {
        Site { partition: self.partition.clone(), ticket: self.ticket }
    }

    /// Where its subscription reads it by itself, where it does.
    pub(super) fn reads_from(&self) -> Option<Position> {
        match self.feed {
            Feed::Own(position) if !self.redrive_only => Some(position),
            _ => None,
        }
    }

    fn work(&self) -> Work {
        Work {
            is_ready: self.progress.has_ready(),
            may_be_new: self.progress.may_have_new(),
            may_be_retry: self.progress.may_have_retry(),
            is_own: self.reads_from().is_some(),
            due: self.progress.next_due(),
        }
    }
}

/// What there is to do for a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    is_ready: bool,
    may_be_new: bool,
    may_be_retry: bool,
    is_own: bool,
    due: Option<u64>,
}

#[derive(Debug)]
struct Placed {
    entry: Entry,
    /// What the sets below say of it.
    noted: Work,
}

/// A walk over the places from one on, and round to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    turn: usize,
    next: usize,
    /// It has come to the last place and begun anew at the first.
    is_second_half: bool,
}

impl From<usize> for Round {
    fn from(turn: usize) -> Self {
        Self { turn, next: turn, is_second_half: false }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// By their place; a place is taken again when its partition has gone.
    places: Vec<Option<Placed>>,
    by_partition: HashMap<Partition, usize>,
    /// Places that are free.
    free: Vec<usize>,
    tickets: u64,
    /// Those with an event that may go out.
    ready: BTreeSet<usize>,
    /// Those of them that may have one which has not failed before.
    new: BTreeSet<usize>,
    /// Those of them that may have one which has.
    retry: BTreeSet<usize>,
    /// Those that are read by the subscription itself.
    own: BTreeSet<usize>,
    /// Those with lanes that wait, by when the first of them is due.
    due: BTreeSet<(u64, usize)>,
}

impl Entries {
    /// Puts a partition in that is not there, with a ticket that is its own; the entry is made of that.
    pub(super) fn insert(&mut self, make: impl FnOnce(u64) -> Entry) {
        self.tickets += 1;
        let entry = make(self.tickets);
        let partition = entry.partition.clone();
        entry.mark();
        let placed = Some(Placed { entry, noted: Work::default() });
        let place = if let Some(place) = self.free.pop() {
            self.places[place] = placed;
            place
        } else {
            self.places.push(placed);
            self.places.len() - 1
        };
        self.by_partition.insert(partition, place);
        self.note(place);
    }

    pub(super) fn contains(&self, partition: &Partition) -> bool {
        self.by_partition.contains_key(partition)
    }

    pub(super) fn get(&self, partition: &Partition) -> Option<&Entry> {
        self.at(*self.by_partition.get(partition)?)
    }

    /// The place of a partition, where it is still the one with that ticket.
    pub(super) fn place_of(&self, (partition, ticket): (&Partition, u64)) -> Option<usize> {
        let place = *self.by_partition.get(partition)?;
        self.at(place).filter(|entry| entry.ticket == ticket).map(|_| place)
    }

    pub(super) fn at(&self, place: usize) -> Option<&Entry> {
        Some(&self.places.get(place)?.as_ref()?.entry)
    }

    /// Changes a partition, which is marked for the next checkpoint.
    pub(super) fn change<T>(&mut self, partition: &Partition, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.change_at(*self.by_partition.get(partition)?, change)
    }

    /// The same of the partition at a place.
    pub(super) fn change_at<T>(&mut self, place: usize, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.try_at(place, |entry| {
            entry.mark();
            Some(change(entry))
        })
    }

    /// What changes nothing that a checkpoint says where it gives nothing; else the partition is to be marked by it.
    pub(super) fn try_at<T>(&mut self, place: usize, change: impl FnOnce(&mut Entry) -> Option<T>) -> Option<T> {
        let placed = self.places.get_mut(place)?.as_mut()?;
        let result = change(&mut placed.entry);
        self.note(place);
        result
    }

    /// Removes those that are gone.
    pub(super) fn forget(&mut self, gone: impl Fn(&Entry) -> bool) {
        for place in 0..self.places.len() {
            if let Some(Placed { entry, noted }) = self.places[place].take_if(|placed| gone(&placed.entry)) {
                self.by_partition.remove(&entry.partition);
                self.free.push(place);
                self.renote(place, noted, Work::default());
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().flatten().map(|placed| &placed.entry)
    }

    /// The next place of a round with an event that may be of that choice.
    pub(super) fn next_ready(&self, round: &mut Round, choice: Choice) -> Option<usize> {
        let set = if choice == Choice::New { &self.new } else { &self.ready };
        let found = match round.is_second_half {
            false => set.range(round.next..).next(),
            true => set.range(round.next..round.turn).next(),
        };
        if let Some(place) = found {
            round.next = place + 1;
            return Some(*place);
        }
        if round.is_second_half {
            return None;
        }
        (round.next, round.is_second_half) = (0, true);
        self.next_ready(round, choice)
    }

    /// Whether anything may go out.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether an event is ready that has failed before.
    pub(super) fn has_retry(&self) -> bool {
        self.retry.iter().any(|place| self.at(*place).is_some_and(|entry| entry.progress.has_retry()))
    }

    /// The places with lanes that are due, the longest due first.
    pub(super) fn due(&self, now: u64) -> Vec<usize> {
        self.due.range(..=(now, usize::MAX)).map(|(_, place)| *place).collect()
    }

    /// When the next lane is due that is not yet.
    pub(super) fn next_due(&self, now: u64) -> Option<u64> {
        self.due.range((Bound::Excluded((now, usize::MAX)), Bound::Unbounded)).next().map(|(due, _)| *due)
    }

    /// The places that are read by the subscription itself.
    pub(super) fn own(&self) -> Vec<usize> {
        self.own.iter().copied().collect()
    }

    fn note(&mut self, place: usize) {
        let Some(placed) = self.places[place].as_mut() else { return };
        let (before, now) = (placed.noted, placed.entry.work());
        placed.noted = now;
        self.renote(place, before, now);
    }

    fn renote(&mut self, place: usize, before: Work, now: Work) {
        if before == now {
            return;
        }
        let sets = [
            (&mut self.ready, before.is_ready, now.is_ready),
            (&mut self.new, before.may_be_new, now.may_be_new),
            (&mut self.retry, before.may_be_retry, now.may_be_retry),
            (&mut self.own, before.is_own, now.is_own),
        ];
        for (set, was, is) in sets {
            if is && !was {
                set.insert(place);
            } else if was && !is {
                set.remove(&place);
            }
        }
        if before.due != now.due {
            if let Some(due) = before.due {
                self.due.remove(&(due, place));
            }
            if let Some(due) = now.due {
                self.due.insert((due, place));
            }
        }
    }
}

#[cfg(test)]
impl Entries {
    /// The sets say what a look at every partition says.
    pub(super) fn assert_true(&self) {
        let of = |has: fn(&Work) -> bool| -> BTreeSet<usize> {
            let places = self.places.iter().enumerate();
            places
                .filter(|(_, placed)| placed.as_ref().is_some_and(|placed| has(&placed.entry.work())))
                .map(|(place, _)| place)
                .collect()
        };
        assert_eq!(self.ready, of(|work| work.is_ready));
        assert_eq!(self.new, of(|work| work.may_be_new));
        assert_eq!(self.retry, of(|work| work.may_be_retry));
        assert_eq!(self.own, of(|work| work.is_own));
        let due = self.places.iter().enumerate();
        let due = due.filter_map(|(place, placed)| Some((placed.as_ref()?.entry.progress.next_due()?, place)));
        assert_eq!(self.due, due.collect());
        let places = self.places.iter().flatten().count();
        assert_eq!((self.by_partition.len(), self.places.len() - self.free.len()), (places, places));
    }
}
