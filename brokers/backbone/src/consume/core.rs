//! One subscription at run time: its progress in every topic partition, what of it is ready to go out, and whether it
//! may go out now.

mod entries;
mod find;
mod stand;
mod take;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tidegate_routing::breaker::Breaker;
use tidegate_routing::filter::matches_all;
use tidegate_routing::partition::{KeyFrom, key_of};
use tidegate_routing::{RetryBudget, TopicName, schedule};
use tidegate_schemas::{Event, limits};
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_128;

use self::entries::{Entries, Entry};
use super::owned::Owned;
use super::progress::{Checkpoint, LaneKey, Offered, Progress, Queued};
use crate::budget::{Account, Budget};
use crate::catalogue::{Order, Subscription};
use crate::environment::{Clock, Environment};
use crate::log::{LogId, Position};

pub(crate) use self::stand::{Depth, Gate, PausedLane, Standing};
pub(crate) use self::take::{Heard, Outgoing, Take};

const DELAY_MAX_MILLISECONDS: u64 = limits::DELAY_MAX.as_secs() * 1_000;

/// One topic partition, as everything here names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Partition {
    pub(crate) topic: TopicName,
    pub(crate) number: u32,
}

impl Partition {
    pub(crate) fn log(&self) -> LogId {
        LogId::Topic { topic: self.topic.as_byte_string().clone(), partition: self.number }
    }
}

/// A partition as it was added to a subscription: added again, it is another. What was read for the one says nothing to the
/// other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Site {
    pub(crate) partition: Partition,
    pub(crate) ticket: u64,
}

/// Where the events of a partition come from at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// The partition's router hands them in as it reads, from that position on: this subscription needs none before.
    Router(Position),
    /// This subscription reads by itself, next from that position, until it meets the router.
    Own(Position),
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// There.
    At(Position),
    /// With the first event that is there, at that position at the earliest.
    First(Position),
}

/// What an entry is besides one of a partition.
#[derive(Clone, Copy)]
struct Kind {
    first: bool,
    redrive_only: bool,
}

#[derive(Debug)]
struct State {
    subscription: Arc<Subscription>,
    entries: Entries,
    /// The place of the partition that is asked first for the next delivery, so that none waits for another.
    turn: usize,
    in_flight: u32,
    /// Why somebody stopped it, where somebody did.
    paused: Option<String>,
    breaker: Breaker,
    budget: RetryBudget,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    /// Its number in the matching index of this process.
    pub(crate) number: u32,
    pub(crate) uid: u64,
    clock: Arc<dyn Clock>,
    memory: Budget,
    state: Mutex<State>,
    /// Whether somebody takes its deliveries.
    consumed: AtomicBool,
    /// Events that it lost to the retention of their topics.
    lost: AtomicU64,
    /// Something may be ready to go out.
    pub(crate) ready: Notify,
    /// There may be something to read.
    pub(crate) feed: Notify,
}

impl Core {
    pub(crate) fn new(number: u32, subscription: Arc<Subscription>, environment: &Environment) -> Self {
        let paused = subscription.paused.clone();
        let (clock, memory) = (Arc::clone(&environment.clock), environment.memory.clone());
        Self {
            number,
            uid: subscription.uid,
            memory,
            state: Mutex::new(State {
                subscription,
                entries: Entries::default(),
                turn: 0,
                in_flight: 0,
                paused,
                breaker: Breaker::default(),
                budget: RetryBudget::new(clock.unix_milliseconds()),
                closed: false,
            }),
            clock,
            consumed: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            ready: Notify::new(),
            feed: Notify::new(),
        }
    }

    /// Notes that it has lost so many events.
    pub(crate) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How many events it has lost, since it began to run.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Gives its deliveries to one taker; false where somebody has them.
    pub(crate) fn consume(&self) -> bool {
        !self.consumed.swap(true, Ordering::AcqRel)
    }

    /// The taker is gone.
    pub(crate) fn let_go(&self) {
        self.consumed.store(false, Ordering::Release);
    }

    pub(crate) fn subscription(&self) -> Arc<Subscription> {
        Arc::clone(&self.state.lock().subscription)
    }

    /// Whether somebody stopped it.
    pub(crate) fn is_paused(&self) -> bool {
        self.state.lock().paused.is_some()
    }

    /// Whether its filters pass an event of a topic that it reads.
    pub(crate) fn wants(&self, event: &Event) -> bool {
        matches_all(&self.subscription().spec.filters, event)
    }

    /// Adds a partition, to be read from where its checkpoint says. Gives whether it was not there. [`Core::added`] is to be
    /// called afterwards.
    pub(crate) fn add(
        &self,
        owned: &Arc<Owned>,
        partition: Partition,
        key_from: KeyFrom,
        (begin, checkpoint): (Begin, Checkpoint),
    ) -> bool {
        let (read, first) = match begin {
            Begin::At(read) => (read, false),
            Begin::First(read) => (read, true),
        };
        let from = Progress::resume_from(read, &checkpoint);
        let progress = Progress::restore(read, checkpoint);
        self.insert(owned, partition, (key_from, progress, Feed::Own(from), Kind { first, redrive_only: false }))
    }

    /// Whether it has a partition.
    pub(crate) fn has(&self, partition: &Partition) -> bool {
        self.state.lock().entries.contains(partition)
    }

    /// Adds a partition of a dead-letter topic, of which nothing is read but what is redriven.
    pub(crate) fn add_redrive(&self, owned: &Arc<Owned>, partition: Partition, checkpoint: Checkpoint) -> bool {
        let progress = Progress::restore(Position::ZERO, checkpoint);
        let kind = Kind { first: false, redrive_only: true };
        self.insert(owned, partition, (KeyFrom::PartitionKey, progress, Feed::Router(Position::ZERO), kind))
    }

    fn insert(
        &self,
        owned: &Arc<Owned>,
        partition: Partition,
        (key_from, progress, feed, Kind { first, redrive_only }): (KeyFrom, Progress, Feed, Kind),
    ) -> bool {
        let mut state = self.state.lock();
        if state.entries.contains(&partition) {
            return false;
        }
        let (owned, mark) = (Arc::clone(owned), owned.marks.of(&partition));
        state.entries.insert(|ticket| Entry {
            partition,
            owned,
            mark,
            ticket,
            key_from,
            progress,
            feed,
            first,
            redrive_only,
        });
        true
    }

    /// Partitions were added: there may be something to read, and to go out. Told once for all of them, because whoever hears
    /// it looks at every partition that has something.
    pub(crate) fn added(&self) {
        self.feed.notify_one();
        self.ready.notify_one();
    }

    /// Takes an event in from the router or from the own reader. `Full` from the router ends its feeding.
    pub(crate) fn offer(
        &self,
        site: (&Partition, u64),
        (position, appended_at): (Position, u64),
        event: &Arc<Event>,
        feed: Feed,
    ) -> Offered {
        let mut state = self.state.lock();
        let order = state.subscription.spec.order;
        let Some(place) = state.entries.place_of(site) else { return Offered::Passed };
        let now = self.clock.unix_milliseconds();
        let delayed = schedule::deliver_at(event).filter(|due| *due > now);
        let is_routed = matches!(feed, Feed::Router(_));
        let short_of_memory = !self.memory.has_room(Account::Reads);
        let offered = state.entries.change_at(place, |entry| {
            entry.progress.memory_is_short(short_of_memory);
            let offered = match delayed {
                // Nobody may be made to wait for what a client of the broker wrote without asking here.
                Some(due) => entry.progress.delay(position, due.min(now.saturating_add(DELAY_MAX_MILLISECONDS))),
                None => {
                    entry.progress.offer(lane_of(order, entry.key_from, position, event), position, appended_at, event)
                }
            };
            if offered == Offered::Full && is_routed {
                entry.feed = Feed::Own(position);
            }
            offered
        });
        drop(state);
        let offered = offered.unwrap_or(Offered::Passed);
        match offered {
            Offered::Queued => self.ready.notify_one(),
            // The feeder keeps its time.
            Offered::Passed if delayed.is_some() => self.feed.notify_one(),
            Offered::Full if is_routed => self.feed.notify_one(),
            Offered::Passed | Offered::Full => {}
        }
        offered
    }

    /// The own reader has come to that position.
    pub(crate) fn read_to(&self, site: (&Partition, u64), position: Position) {
        self.with(site, |entry| {
            entry.progress.reached(position);
            entry.feed = Feed::Own(position);
            entry.first = false;
        });
    }

    /// Whether it has read nothing there yet and begins with whatever event is the first.
    pub(crate) fn begins_first(&self, partition: &Partition) -> bool {
        self.state.lock().entries.get(partition).is_some_and(|entry| entry.first)
    }

    /// The router feeds the partition from now on; not where the subscription has ended or the topic is gone.
    pub(crate) fn joined(&self, site: (&Partition, u64), position: Position) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        let joined = state.change(site, |entry| {
            entry.progress.reached(position);
            entry.feed = Feed::Router(position);
            entry.first = false;
        });
        joined.is_some()
    }

    pub(crate) fn loaded(&self, site: &Site, lane: LaneKey, events: Vec<Queued>, scanned: Position) {
        self.with(site.as_ref(), |entry| entry.progress.loaded(lane, events, scanned));
        self.ready.notify_one();
        self.feed.notify_one();
    }

    pub(crate) fn not_loaded(&self, site: &Site, lane: LaneKey, due: u64) {
        self.with(site.as_ref(), |entry| entry.progress.not_loaded(lane, due));
    }

    pub(crate) fn not_reached(&self, site: &Site, lane: LaneKey) {
        self.with(site.as_ref(), |entry| entry.progress.not_reached(lane));
    }

    /// Which attribute is the key of events there, where it has the partition.
    pub(crate) fn key_from(&self, site: &Site) -> Option<KeyFrom> {
        self.state.lock().entry_at(site.as_ref()).map(|entry| entry.key_from)
    }

    /// Puts single events of a dead-letter partition on their way again, each once it is due.
    pub(crate) fn redrive(&self, partition: &Partition, positions: &[(Position, u64)]) {
        self.state.lock().entries.change(partition, |entry| {
            for (position, due) in positions {
                entry.progress.park(*position, *due);
            }
        });
        self.feed.notify_one();
    }

    fn with<T>(&self, site: (&Partition, u64), change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.state.lock().change(site, change)
    }

    /// Replaces the declaration, and stops or resumes deliveries by its `paused`.
    pub(crate) fn update(&self, subscription: Arc<Subscription>) {
        let mut state = self.state.lock();
        if state.paused.is_some() && subscription.paused.is_none() {
            // Whoever resumes it has mended something, so the sink is not held to what it did before.
            state.breaker = Breaker::default();
        }
        state.paused = subscription.paused.clone();
        state.subscription = subscription;
        drop(state);
        self.ready.notify_one();
        self.feed.notify_one();
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.ready.notify_waiters();
        self.ready.notify_one();
        self.feed.notify_one();
    }

    /// Lets a paused key go on, with the event that it stands at, or behind it. Gives whether it did.
    pub(crate) fn resume_lane(&self, lane: &PausedLane, skip: bool) -> bool {
        let now = self.clock.unix_milliseconds();
        let resumed = self.state.lock().entries.change(&lane.partition, |entry| {
            if skip { entry.progress.skip(lane.lane, lane.position) } else { entry.progress.resume(lane.lane, now) }
        });
        self.feed.notify_one();
        resumed.unwrap_or(false)
    }

    /// Forgets the partitions of a topic that is gone. Deliveries of them that are out settle without effect.
    pub(crate) fn forget_topic(&self, topic: &str) {
        self.state.lock().entries.forget(|entry| entry.partition.topic.as_str() == topic);
    }

    /// Forgets the partitions of an ownership that is over, in the same way.
    pub(crate) fn forget_owned(&self, owned: &Arc<Owned>) {
        self.state.lock().entries.forget(|entry| Arc::ptr_eq(&entry.owned, owned));
    }
}

impl Site {
    pub(crate) fn as_ref(&self) -> (&Partition, u64) {
        (&self.partition, self.ticket)
    }
}

impl State {
    /// A partition, where it is still the one that was added with that ticket.
    fn entry_at(&self, site: (&Partition, u64)) -> Option<&Entry> {
        self.entries.at(self.entries.place_of(site)?)
    }

    fn change<T>(&mut self, site: (&Partition, u64), change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.entries.change_at(self.entries.place_of(site)?, change)
    }
}

pub(super) fn lane_of(order: Order, key_from: KeyFrom, position: Position, event: &Event) -> LaneKey {
    match (order, key_of(event, key_from)) {
        // One that is to come later must not hold up those that are to come now.
        _ if schedule::deliver_at(event).is_some() => LaneKey::Single(position),
        (Order::Key, Some(key)) => LaneKey::Key(xxh3_128(key.as_bytes())),
        _ => LaneKey::Single(position),
    }
}
