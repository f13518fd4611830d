//! One subscription at run time: its progress in every topic partition, what of it is ready to go out, and whether it
//! may go out now.

mod find;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tidegate_routing::breaker::{self, Breaker, Permit};
use tidegate_routing::filter::matches_all;
use tidegate_routing::partition::{KeyFrom, key_of};
use tidegate_routing::{RetryBudget, TopicName, schedule};
use tidegate_schemas::{Event, limits};
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_128;

use super::marks::{Mark, Marked};
use super::owned::Owned;
use super::progress::{Checkpoint, Choice, LaneKey, Loads, Offered, Progress, Queued, Taken};
use crate::budget::{Account, Budget};
use crate::catalogue::{Order, Subscription};
use crate::environment::{Clock, Environment};
use crate::log::{LogId, Position};

/// How often it is looked whether a lease that was not renewed in time is held again.
const LEASE_POLL_MILLISECONDS: u64 = 20;
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

#[derive(Debug)]
struct Entry {
    partition: Partition,
    /// The ownership that it belongs to.
    owned: Arc<Owned>,
    mark: Arc<Mark>,
    /// Told apart by this from what stood at its place before.
    ticket: u64,
    key_from: KeyFrom,
    progress: Progress,
    feed: Feed,
    /// Nothing was read yet, and it begins with the first event that is there then.
    first: bool,
    /// A dead-letter topic, of which only single events are read that were asked for.
    redrive_only: bool,
}

/// What an entry is besides one of a partition.
#[derive(Clone, Copy)]
struct Kind {
    first: bool,
    redrive_only: bool,
}

/// Whether deliveries may go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They may.
    Open,
    /// Somebody or an answer stopped them, for that reason, until somebody resumes.
    Paused(String),
    /// The sink is at fault, and only probes go out.
    Breaker(breaker::Open),
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

#[derive(Debug)]
struct State {
    subscription: Arc<Subscription>,
    /// Partitions by their place; a place is taken again when its partition has gone.
    entries: Vec<Option<Entry>>,
    by_partition: HashMap<Partition, usize>,
    /// Places that are free.
    free: Vec<usize>,
    tickets: u64,
    /// The entry that is asked first for the next delivery, so that no partition waits for another.
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

/// What the feeder is to do next.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Lanes to load, with their partitions.
    pub(crate) loads: Vec<(Site, Loads)>,
    /// Lanes are due that others are waited for.
    pub(crate) gathers: bool,
    /// Partitions to read on by itself, and from where.
    pub(crate) reads: Vec<(Site, Position)>,
    /// Partitions that are its own to read, with room or without.
    pub(crate) own: Vec<Site>,
    /// When the next lane is due, in milliseconds since 1970.
    pub(crate) next_due: Option<u64>,
}

/// An event to go out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) entry: usize,
    ticket: u64,
    pub(crate) partition: Partition,
    /// The ownership that it goes out under.
    pub(crate) owned: Arc<Owned>,
    pub(crate) taken: Taken,
    pub(crate) redriven: bool,
    /// It finds out whether the sink is well again, which was found at fault for that cause.
    pub(crate) probe: Option<breaker::Cause>,
}

/// What a checkpoint says of one partition.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) partition: Partition,
    /// How far it was read, where that is not as far as it was routed.
    pub(crate) read: Option<Position>,
    /// Nothing was read, and it begins with the first event.
    pub(crate) first: bool,
    pub(crate) routed: Position,
    pub(crate) progress: Checkpoint,
}

/// How a subscription stands in memory.
#[derive(Debug)]
pub(crate) struct Depth {
    /// Events that wait.
    pub(crate) queued: usize,
    /// Keys that wait for their time.
    pub(crate) parked: usize,
    /// Keys that wait for somebody who resumes them.
    pub(crate) paused_keys: usize,
    /// Deliveries that are out.
    pub(crate) in_flight: u32,
    pub(crate) gate: Gate,
}

/// A key that stands still.
#[derive(Clone, Debug)]
pub(crate) struct PausedLane {
    pub(crate) partition: Partition,
    pub(crate) key_from: KeyFrom,
    pub(crate) lane: LaneKey,
    /// Where it stands.
    pub(crate) position: Position,
    pub(crate) attempts: u32,
    pub(crate) since: u64,
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
    pub(crate) fn new(number: u32, subscription: Arc<Subscription>, environment: &Environment) -> Self {
        let paused = subscription.paused.clone();
        let (clock, memory) = (Arc::clone(&environment.clock), environment.memory.clone());
        Self {
            number,
            uid: subscription.uid,
            memory,
            state: Mutex::new(State {
                subscription,
                entries: Vec::new(),
                by_partition: HashMap::new(),
                free: Vec::new(),
                tickets: 0,
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

    /// How far it has read a partition that is routed up to `routed`; nothing where it does not read it.
    pub(crate) fn read_of(&self, partition: &Partition, routed: Position) -> Option<Position> {
        let state = self.state.lock();
        let entry = state.entry(partition)?;
        match entry.feed {
            _ if entry.redrive_only => None,
            Feed::Own(position) => Some(entry.progress.read(position)),
            Feed::Router(from) => Some(from.max(routed)),
        }
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
        self.state.lock().by_partition.contains_key(partition)
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
        if state.by_partition.contains_key(&partition) {
            return false;
        }
        state.tickets += 1;
        let (owned, ticket, mark) = (Arc::clone(owned), state.tickets, owned.marks.of(&partition));
        let entry =
            Entry { partition: partition.clone(), owned, mark, ticket, key_from, progress, feed, first, redrive_only };
        entry.mark();
        let index = if let Some(index) = state.free.pop() {
            state.entries[index] = Some(entry);
            index
        } else {
            state.entries.push(Some(entry));
            state.entries.len() - 1
        };
        state.by_partition.insert(partition, index);
        true
    }

    /// Partitions were added: there may be something to read, and to go out. Told once for all of them, because whoever hears
    /// it looks at every partition.
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
        let Some(entry) = state.entry_at(site) else { return Offered::Passed };
        let now = self.clock.unix_milliseconds();
        let delayed = schedule::deliver_at(event).filter(|due| *due > now);
        entry.progress.memory_is_short(!self.memory.has_room(Account::Reads));
        let offered = match delayed {
            // Nobody may be made to wait for what a client of the broker wrote without asking here.
            Some(due) => entry.progress.delay(position, due.min(now.saturating_add(DELAY_MAX_MILLISECONDS))),
            None => entry.progress.offer(lane_of(order, entry.key_from, position, event), position, appended_at, event),
        };
        match offered {
            Offered::Passed if delayed.is_some() => {
                drop(state);
                // The feeder keeps its time.
                self.feed.notify_one();
            }
            Offered::Queued => {
                drop(state);
                self.ready.notify_one();
            }
            Offered::Full if matches!(feed, Feed::Router(_)) => {
                entry.feed = Feed::Own(position);
                drop(state);
                self.feed.notify_one();
            }
            _ => {}
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
        self.state.lock().entry(partition).is_some_and(|entry| entry.first)
    }

    /// The router feeds the partition from now on; not where the subscription has ended or the topic is gone.
    pub(crate) fn joined(&self, site: (&Partition, u64), position: Position) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        let Some(entry) = state.entry_at(site) else { return false };
        entry.progress.reached(position);
        entry.feed = Feed::Router(position);
        entry.first = false;
        true
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
        self.with(site.as_ref(), |entry| entry.key_from)
    }

    /// Puts single events of a dead-letter partition on their way again, each once it is due.
    pub(crate) fn redrive(&self, partition: &Partition, positions: &[(Position, u64)]) {
        if let Some(entry) = self.state.lock().entry_mut(partition) {
            for (position, due) in positions {
                entry.progress.park(*position, *due);
            }
        }
        self.feed.notify_one();
    }

    fn with<T>(&self, site: (&Partition, u64), change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.state.lock().entry_at(site).map(change)
    }

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
        match state.breaker.permit(now) {
            Permit::Probe(_) => self.ready.notify_one(),
            Permit::Wait(probe_at) => work.next_due = probe_at,
            Permit::All => {}
        }
        // Twice what can be out at once keeps the lanes busy while the next are loaded.
        let active_max = state.subscription.spec.max_in_flight as usize * 2;
        let short_of_memory = !self.memory.has_room(Account::Reads);
        for entry in state.entries.iter_mut().flatten() {
            entry.progress.memory_is_short(short_of_memory);
            let loads = entry.progress.due(now, active_max, waited);
            if !loads.lanes.is_empty() {
                work.loads.push((entry.site(), loads));
            } else if !waited {
                work.gathers |= entry.progress.has_due(now);
            }
            // One that is due and was not taken waits for room, which settling tells of.
            if let Some(due) = entry.progress.next_due().filter(|due| *due > now) {
                work.next_due = Some(work.next_due.map_or(due, |next: u64| next.min(due)));
            }
            if let Feed::Own(position) = entry.feed
                && !entry.redrive_only
            {
                work.own.push(entry.site());
                if entry.progress.has_room() {
                    work.reads.push((entry.site(), position));
                }
            }
        }
        Some(work)
    }

    /// The next event to go out.
    pub(crate) fn take(&self, now: u64) -> Take {
        let mut state = self.state.lock();
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
        if state.in_flight >= state.subscription.spec.max_in_flight {
            return Take::Wait(None);
        }
        let retries = state.budget.ready_at(now);
        let choice = match (probe, &retries) {
            (Some(_), _) => Choice::Probe,
            (None, Ok(_)) => Choice::RetriesFirst,
            (None, Err(_)) => Choice::New,
        };
        let count = state.entries.len();
        let mut without_lease = false;
        for step in 0..count {
            let index = (state.turn + step) % count;
            let Some(entry) = state.entries[index].as_mut().filter(|entry| entry.progress.has_ready()) else {
                continue;
            };
            if entry.owned.is_closing() {
                continue;
            }
            if !entry.owned.holds() {
                without_lease = true;
                continue;
            }
            let Some(taken) = entry.progress.take(choice) else { continue };
            entry.mark();
            let is_retry = taken.attempts > 0;
            let room = matches!(entry.feed, Feed::Own(_)) && entry.progress.has_room() || entry.progress.has_due(now);
            entry.owned.goes_out();
            let outgoing = Outgoing {
                entry: index,
                ticket: entry.ticket,
                partition: entry.partition.clone(),
                owned: Arc::clone(&entry.owned),
                taken,
                redriven: entry.redrive_only,
                probe,
            };
            state.turn = (index + 1) % count;
            state.in_flight += 1;
            if is_retry {
                state.budget.retry();
            } else {
                state.budget.first();
            }
            if probe.is_some() {
                state.breaker.probe();
            }
            // One permit stands for any number of events that became ready while nobody waited: whoever took one wakes
            // the next.
            let more = probe.is_none()
                && state.in_flight < state.subscription.spec.max_in_flight
                && state.entries.iter().flatten().any(|entry| entry.progress.has_ready());
            drop(state);
            if more {
                self.ready.notify_one();
            }
            if room {
                self.feed.notify_one();
            }
            return Take::Now(Box::new(outgoing));
        }
        let waits_for_budget = state.entries.iter().flatten().any(|entry| entry.progress.has_retry());
        let budget = retries.err().filter(|_| waits_for_budget);
        let lease = without_lease.then(|| now.saturating_add(LEASE_POLL_MILLISECONDS));
        Take::Wait(budget.into_iter().chain(lease).min())
    }

    /// Settles an event that went out.
    pub(crate) fn settle(&self, outgoing: Outgoing, heard: Heard, now: u64, change: impl FnOnce(&mut Progress, Taken)) {
        let mut state = self.state.lock();
        state.in_flight -= 1;
        let key = match outgoing.taken.lane {
            LaneKey::Key(hash) => hash,
            LaneKey::Single(position) => (outgoing.entry as u128 + 1) << 64 | u128::from(position.0),
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
        if let Some(entry) = state.entries[outgoing.entry].as_mut().filter(|entry| entry.ticket == outgoing.ticket) {
            change(&mut entry.progress, outgoing.taken);
            entry.mark();
        }
        drop(state);
        outgoing.owned.came_back();
        self.ready.notify_one();
        // It also keeps the time of the next probe.
        self.feed.notify_one();
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

    /// Each partition of an ownership, or each of those that are `marked`, with how far it was read and what must outlive the
    /// process. `routed` says how far a partition was routed, asked before this is called.
    pub(crate) fn checkpoint(
        &self,
        owned: &Arc<Owned>,
        marked: &Marked,
        routed: impl Fn(&Partition) -> Position,
    ) -> Vec<Standing> {
        let state = self.state.lock();
        let standing = |entry: &Entry| {
            let routed = routed(&entry.partition);
            let read = match entry.feed {
                Feed::Own(position) => position,
                Feed::Router(from) => from.max(routed),
            };
            let read = entry.progress.read(read);
            let mut progress = entry.progress.checkpoint();
            if entry.redrive_only {
                progress.open.clear();
            }
            Standing {
                partition: entry.partition.clone(),
                read: Some(read).filter(|read| *read != routed && !entry.redrive_only),
                first: entry.first,
                routed,
                progress,
            }
        };
        let belongs = |entry: &&Entry| Arc::ptr_eq(&entry.owned, owned);
        if marked.whole {
            return state.entries.iter().flatten().filter(belongs).map(standing).collect();
        }
        marked.partitions().filter_map(|partition| state.entry(partition)).filter(belongs).map(standing).collect()
    }

    /// How it stands.
    pub(crate) fn depth(&self) -> Depth {
        let state = self.state.lock();
        let gate = match (&state.paused, state.breaker.as_open()) {
            (Some(reason), _) => Gate::Paused(reason.clone()),
            (None, Some(open)) => Gate::Breaker(open),
            (None, None) => Gate::Open,
        };
        let mut depth = Depth { queued: 0, parked: 0, paused_keys: 0, in_flight: state.in_flight, gate };
        for entry in state.entries.iter().flatten() {
            let (events, keys, paused) = entry.progress.depth();
            depth.queued += events;
            depth.parked += keys;
            depth.paused_keys += paused;
        }
        depth
    }

    /// The keys that are paused.
    pub(crate) fn paused_lanes(&self) -> Vec<PausedLane> {
        let state = self.state.lock();
        let lanes = state.entries.iter().flatten().flat_map(|entry| {
            entry.progress.paused().map(|(lane, position, attempts, since)| PausedLane {
                partition: entry.partition.clone(),
                key_from: entry.key_from,
                lane,
                position,
                attempts,
                since,
            })
        });
        lanes.collect()
    }

    /// Lets a paused key go on, with the event that it stands at, or behind it. Gives whether it did.
    pub(crate) fn resume_lane(&self, lane: &PausedLane, skip: bool) -> bool {
        let now = self.clock.unix_milliseconds();
        let resumed = self.state.lock().entry_mut(&lane.partition).is_some_and(|entry| {
            if skip { entry.progress.skip(lane.lane, lane.position) } else { entry.progress.resume(lane.lane, now) }
        });
        self.feed.notify_one();
        resumed
    }

    /// Dead letters that were sent again and are not settled.
    pub(crate) fn redriving(&self) -> usize {
        let state = self.state.lock();
        state.entries.iter().flatten().filter(|entry| entry.redrive_only).map(|entry| entry.progress.depth().1).sum()
    }

    /// The partitions that are its own to read, with where it is in them.
    pub(crate) fn behind(&self) -> Vec<(Partition, Position)> {
        let state = self.state.lock();
        state
            .entries
            .iter()
            .flatten()
            .filter_map(|entry| match entry.feed {
                Feed::Own(position) if !entry.redrive_only => Some((entry.partition.clone(), position)),
                _ => None,
            })
            .collect()
    }

    /// Each partition that it reads, with the first position that is not settled. `routed` says how far a partition was
    /// routed.
    pub(crate) fn oldest(&self, routed: impl Fn(&Partition) -> Position) -> Vec<(Partition, Position)> {
        let state = self.state.lock();
        let reads = state.entries.iter().flatten().filter(|entry| !entry.redrive_only);
        reads
            .map(|entry| {
                let read = match entry.feed {
                    Feed::Own(position) => position,
                    Feed::Router(from) => from.max(routed(&entry.partition)),
                };
                let oldest = entry.progress.oldest().map_or(read, |oldest| oldest.min(read));
                (entry.partition.clone(), oldest)
            })
            .collect()
    }

    /// Forgets the partitions of a topic that is gone.
    pub(crate) fn forget_topic(&self, topic: &str) {
        self.forget(|entry| entry.partition.topic.as_str() == topic);
    }

    /// Forgets the partitions of an ownership that is over.
    pub(crate) fn forget_owned(&self, owned: &Arc<Owned>) {
        self.forget(|entry| Arc::ptr_eq(&entry.owned, owned));
    }

    /// Deliveries of forgotten partitions that are out settle without effect.
    fn forget(&self, gone: impl Fn(&Entry) -> bool) {
        let mut state = self.state.lock();
        let state = &mut *state;
        for (index, place) in state.entries.iter_mut().enumerate() {
            if let Some(entry) = place.take_if(|entry| gone(entry)) {
                state.by_partition.remove(&entry.partition);
                state.free.push(index);
            }
        }
    }
}

impl Entry {
    /// What a checkpoint says of it may have changed. To be called under the lock of the state.
    fn mark(&self) {
        self.owned.marks.set(&self.mark);
    }

    fn site(&self) -> Site {
        Site { partition: self.partition.clone(), ticket: self.ticket }
    }
}

impl Site {
    pub(crate) fn as_ref(&self) -> (&Partition, u64) {
        (&self.partition, self.ticket)
    }
}

impl State {
    fn entry_at(&mut self, (partition, ticket): (&Partition, u64)) -> Option<&mut Entry> {
        self.entry_mut(partition).filter(|entry| entry.ticket == ticket)
    }

    fn entry(&self, partition: &Partition) -> Option<&Entry> {
        self.entries[*self.by_partition.get(partition)?].as_ref()
    }

    fn entry_mut(&mut self, partition: &Partition) -> Option<&mut Entry> {
        let index = *self.by_partition.get(partition)?;
        let entry = self.entries[index].as_mut();
        // Whoever asks for it changes it.
        entry.iter().for_each(|entry| entry.mark());
        entry
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
