//! One subscription at run time: its progress in every topic partition, what of it is ready to go out, and whether it
//! may go out now.

mod find;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tidegate_routing::TopicName;
use tidegate_routing::filter::matches_all;
use tidegate_routing::partition::{KeyFrom, key_of};
use tidegate_schemas::Event;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_128;

pub(crate) use find::Found;

use super::progress::{Checkpoint, LaneKey, Load, Offered, Progress, Queued, Taken};
use crate::budget::{Account, Budget};
use crate::catalogue::{Order, Subscription, Topic};
use crate::log::{LogId, Position};

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

/// Where the events of a partition come from at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// The partition's router hands them in as it reads, from that position on: this subscription needs none before.
    Router(Position),
    /// This subscription reads by itself, next from that position, until it meets the router.
    Own(Position),
}

#[derive(Debug)]
struct Entry {
    partition: Partition,
    key_from: KeyFrom,
    progress: Progress,
    feed: Feed,
    /// A dead-letter topic, of which only single events are read that were asked for.
    redrive_only: bool,
}

/// Whether deliveries may go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// They may.
    Open,
    /// Somebody or an answer stopped them, for that reason, until somebody resumes.
    Paused(String),
    /// The sink cannot be reached: one goes out as a probe when its time (milliseconds since 1970) has come.
    Unreachable { probe_at: u64, probing: bool },
}

#[derive(Debug)]
struct State {
    subscription: Arc<Subscription>,
    entries: Vec<Entry>,
    by_partition: HashMap<Partition, usize>,
    /// The entry that is asked first for the next delivery, so that no partition waits for another.
    turn: usize,
    in_flight: u32,
    gate: Gate,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    /// Its number in the matching index of this process.
    pub(crate) number: u32,
    pub(crate) uid: u64,
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
    pub(crate) loads: Vec<(Partition, Load)>,
    /// Partitions to read on by itself, and from where.
    pub(crate) reads: Vec<(Partition, Position)>,
    /// Partitions that are its own to read, with room or without.
    pub(crate) own: Vec<Partition>,
    /// When the next lane is due, in milliseconds since 1970.
    pub(crate) next_due: Option<u64>,
}

/// An event to go out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) entry: usize,
    pub(crate) partition: Partition,
    pub(crate) taken: Taken,
    pub(crate) redriven: bool,
    /// It finds out whether the sink can be reached again.
    pub(crate) probe: bool,
}

/// What a checkpoint says of one partition.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) partition: Partition,
    /// How far it was read, where that is not as far as it was routed.
    pub(crate) read: Option<Position>,
    pub(crate) routed: Position,
    pub(crate) progress: Checkpoint,
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
    pub(crate) fn new(number: u32, subscription: Arc<Subscription>, memory: Budget) -> Self {
        let gate = subscription.paused.clone().map_or(Gate::Open, Gate::Paused);
        Self {
            number,
            uid: subscription.uid,
            memory,
            state: Mutex::new(State {
                subscription,
                entries: Vec::new(),
                by_partition: HashMap::new(),
                turn: 0,
                in_flight: 0,
                gate,
                closed: false,
            }),
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
        let entry = &state.entries[*state.by_partition.get(partition)?];
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

    /// Whether its filters pass an event of a topic that it reads.
    pub(crate) fn wants(&self, event: &Event) -> bool {
        matches_all(&self.subscription().spec.filters, event)
    }

    /// Adds a partition, to be read from where its checkpoint says. Gives whether it was not there.
    pub(crate) fn add(&self, partition: Partition, key_from: KeyFrom, read: Position, checkpoint: Checkpoint) -> bool {
        let from = Progress::resume_from(read, &checkpoint);
        self.insert(partition, key_from, Progress::restore(read, checkpoint), Feed::Own(from), false)
    }

    /// Whether it has every partition of a topic.
    pub(crate) fn has(&self, topic: &Topic) -> bool {
        let state = self.state.lock();
        let name = &topic.spec.name;
        (0..topic.spec.partitions)
            .all(|number| state.by_partition.contains_key(&Partition { topic: name.clone(), number }))
    }

    /// Adds a partition of a dead-letter topic, of which nothing is read but what is redriven.
    pub(crate) fn add_redrive(&self, partition: Partition, checkpoint: Checkpoint) -> bool {
        self.insert(
            partition,
            KeyFrom::PartitionKey,
            Progress::restore(Position::ZERO, checkpoint),
            Feed::Router(Position::ZERO),
            true,
        )
    }

    fn insert(
        &self,
        partition: Partition,
        key_from: KeyFrom,
        progress: Progress,
        feed: Feed,
        redrive_only: bool,
    ) -> bool {
        let mut state = self.state.lock();
        if state.by_partition.contains_key(&partition) {
            return false;
        }
        let index = state.entries.len();
        state.by_partition.insert(partition.clone(), index);
        state.entries.push(Entry { partition, key_from, progress, feed, redrive_only });
        drop(state);
        self.feed.notify_one();
        true
    }

    /// Takes an event in from the router or from the own reader. `Full` from the router ends its feeding.
    pub(crate) fn offer(
        &self,
        partition: &Partition,
        (position, appended_at): (Position, u64),
        event: &Arc<Event>,
        feed: Feed,
    ) -> Offered {
        let mut state = self.state.lock();
        let order = state.subscription.spec.order;
        let Some(&index) = state.by_partition.get(partition) else { return Offered::Passed };
        let entry = &mut state.entries[index];
        let lane = lane_of(order, entry.key_from, position, event);
        entry.progress.memory_is_short(!self.memory.has_room(Account::Reads));
        let offered = entry.progress.offer(lane, position, appended_at, event);
        match offered {
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
    pub(crate) fn read_to(&self, partition: &Partition, position: Position) {
        self.with(partition, |entry| {
            entry.progress.reached(position);
            entry.feed = Feed::Own(position);
        });
    }

    /// The router feeds the partition from now on; not where the subscription has ended or the topic is gone.
    pub(crate) fn joined(&self, partition: &Partition, position: Position) -> bool {
        let mut state = self.state.lock();
        let Some(&index) = state.by_partition.get(partition).filter(|_| !state.closed) else { return false };
        let entry = &mut state.entries[index];
        entry.progress.reached(position);
        entry.feed = Feed::Router(position);
        true
    }

    pub(crate) fn loaded(&self, partition: &Partition, lane: LaneKey, events: Vec<Queued>, scanned: Position) {
        self.with(partition, |entry| entry.progress.loaded(lane, events, scanned));
        self.ready.notify_one();
        self.feed.notify_one();
    }

    pub(crate) fn not_loaded(&self, partition: &Partition, lane: LaneKey, due: u64) {
        self.with(partition, |entry| entry.progress.not_loaded(lane, due));
    }

    /// Puts single events of a dead-letter partition on their way again, each once it is due.
    pub(crate) fn redrive(&self, partition: &Partition, positions: &[(Position, u64)]) {
        self.with(partition, |entry| {
            for (position, due) in positions {
                entry.progress.park(*position, *due);
            }
        });
        self.feed.notify_one();
    }

    fn with<T>(&self, partition: &Partition, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let index = *state.by_partition.get(partition)?;
        Some(change(&mut state.entries[index]))
    }

    /// What there is to read. Loading is kept to about what can go out soon.
    pub(crate) fn work(&self, now: u64) -> Option<Work> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let mut work = Work::default();
        match state.gate {
            Gate::Paused(_) => return Some(work),
            Gate::Unreachable { probe_at, probing: false } if probe_at <= now => self.ready.notify_one(),
            Gate::Unreachable { probe_at, probing: false } => work.next_due = Some(probe_at),
            Gate::Unreachable { .. } | Gate::Open => {}
        }
        // Twice what can be out at once keeps the lanes busy while the next are loaded.
        let active_max = state.subscription.spec.max_in_flight as usize * 2;
        let short_of_memory = !self.memory.has_room(Account::Reads);
        for entry in &mut state.entries {
            entry.progress.memory_is_short(short_of_memory);
            for load in entry.progress.due(now, active_max) {
                work.loads.push((entry.partition.clone(), load));
            }
            // One that is due and was not taken waits for room, which settling tells of.
            if let Some(due) = entry.progress.next_due().filter(|due| *due > now) {
                work.next_due = Some(work.next_due.map_or(due, |next: u64| next.min(due)));
            }
            if let Feed::Own(position) = entry.feed
                && !entry.redrive_only
            {
                work.own.push(entry.partition.clone());
                if entry.progress.has_room() {
                    work.reads.push((entry.partition.clone(), position));
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
        match state.gate {
            Gate::Open => {}
            Gate::Paused(_) | Gate::Unreachable { probing: true, .. } => return Take::Wait(None),
            Gate::Unreachable { probe_at, .. } if probe_at > now => return Take::Wait(Some(probe_at)),
            Gate::Unreachable { .. } => {}
        }
        if state.in_flight >= state.subscription.spec.max_in_flight {
            return Take::Wait(None);
        }
        let probe = matches!(state.gate, Gate::Unreachable { .. });
        let count = state.entries.len();
        for step in 0..count {
            let index = (state.turn + step) % count;
            let entry = &mut state.entries[index];
            let Some(taken) = entry.progress.take() else { continue };
            let room = matches!(entry.feed, Feed::Own(_)) && entry.progress.has_room() || entry.progress.has_due(now);
            let outgoing = Outgoing {
                entry: index,
                partition: entry.partition.clone(),
                taken,
                redriven: entry.redrive_only,
                probe,
            };
            state.turn = (index + 1) % count;
            state.in_flight += 1;
            if let Gate::Unreachable { probing, .. } = &mut state.gate {
                *probing = true;
            }
            // One permit stands for any number of events that became ready while nobody waited: whoever took one wakes
            // the next.
            let more = state.gate == Gate::Open
                && state.in_flight < state.subscription.spec.max_in_flight
                && state.entries.iter().any(|entry| entry.progress.has_ready());
            drop(state);
            if more {
                self.ready.notify_one();
            }
            if room {
                self.feed.notify_one();
            }
            return Take::Now(Box::new(outgoing));
        }
        Take::Wait(None)
    }

    /// Settles an event that went out, and opens the gate if its sink had been out of reach and `reached` is true.
    pub(crate) fn settle(&self, outgoing: Outgoing, reached: bool, change: impl FnOnce(&mut Progress, Taken)) {
        let mut state = self.state.lock();
        state.in_flight -= 1;
        change(&mut state.entries[outgoing.entry].progress, outgoing.taken);
        match &mut state.gate {
            gate @ Gate::Unreachable { .. } if reached => *gate = Gate::Open,
            // However it ended, the next probe does not wait for this one any more.
            Gate::Unreachable { probing, .. } if outgoing.probe => *probing = false,
            _ => {}
        }
        drop(state);
        self.ready.notify_one();
        self.feed.notify_one();
    }

    /// The sink cannot be reached: nothing goes out but a probe after each interval.
    pub(crate) fn unreachable(&self, probe_at: u64) {
        let mut state = self.state.lock();
        match &mut state.gate {
            Gate::Paused(_) => {}
            // Others that were out when the sink went away come back while a probe is out, which goes on.
            Gate::Unreachable { probe_at: next, .. } => *next = probe_at,
            gate @ Gate::Open => *gate = Gate::Unreachable { probe_at, probing: false },
        }
        drop(state);
        // The feeder keeps the time of the probe.
        self.feed.notify_one();
    }

    /// Replaces the declaration, and stops or resumes deliveries by its `paused`.
    pub(crate) fn update(&self, subscription: Arc<Subscription>) {
        let mut state = self.state.lock();
        state.gate = match (&subscription.paused, &state.gate) {
            (Some(reason), _) => Gate::Paused(reason.clone()),
            (None, Gate::Paused(_)) => Gate::Open,
            (None, gate) => gate.clone(),
        };
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

    /// Each partition with how far it was read and what must outlive the process. `routed` says how far a partition was
    /// routed, asked before this is called.
    pub(crate) fn checkpoint(&self, now: u64, routed: impl Fn(&Partition) -> Position) -> Vec<Standing> {
        let state = self.state.lock();
        let standing = |entry: &Entry| {
            let routed = routed(&entry.partition);
            let read = match entry.feed {
                Feed::Own(position) => position,
                Feed::Router(from) => from.max(routed),
            };
            let read = entry.progress.read(read);
            let mut progress = entry.progress.checkpoint(now);
            if entry.redrive_only {
                progress.open.clear();
            }
            Standing {
                partition: entry.partition.clone(),
                read: Some(read).filter(|read| *read != routed && !entry.redrive_only),
                routed,
                progress,
            }
        };
        let known = |(index, entry): &(usize, &Entry)| state.by_partition.get(&entry.partition) == Some(index);
        state.entries.iter().enumerate().filter(known).map(|(_, entry)| standing(entry)).collect()
    }

    /// How it stands: events waiting in memory, keys waiting for a retry, deliveries out, and its gate.
    pub(crate) fn depth(&self) -> (usize, usize, u32, Gate) {
        let state = self.state.lock();
        let (mut queued, mut parked) = (0, 0);
        for entry in &state.entries {
            let (events, keys) = entry.progress.depth();
            queued += events;
            parked += keys;
        }
        (queued, parked, state.in_flight, state.gate.clone())
    }

    /// Dead letters that were sent again and are not settled.
    pub(crate) fn redriving(&self) -> usize {
        let state = self.state.lock();
        state.entries.iter().filter(|entry| entry.redrive_only).map(|entry| entry.progress.depth().1).sum()
    }

    /// The partitions that are its own to read, with where it is in them.
    pub(crate) fn behind(&self) -> Vec<(Partition, Position)> {
        let state = self.state.lock();
        state
            .entries
            .iter()
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
        let reads = state.entries.iter().filter(|entry| !entry.redrive_only);
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

    /// Whether an event is of that lane. A key that waits for a retry keeps its lane when the subscription gives up the
    /// order of keys, so this does not ask for the order.
    pub(crate) fn is_of(&self, lane: LaneKey, partition: &Partition, position: Position, event: &Event) -> bool {
        let state = self.state.lock();
        let Some(&index) = state.by_partition.get(partition) else { return false };
        let order = if matches!(lane, LaneKey::Key(_)) { Order::Key } else { Order::None };
        lane_of(order, state.entries[index].key_from, position, event) == lane
    }

    /// Forgets the partitions of a topic that is gone.
    pub(crate) fn forget_topic(&self, topic: &str) {
        let mut state = self.state.lock();
        let gone: Vec<Partition> =
            state.by_partition.keys().filter(|partition| partition.topic.as_str() == topic).cloned().collect();
        for partition in gone {
            if let Some(index) = state.by_partition.remove(&partition) {
                // The place stays, so that deliveries that are out still settle where they came from.
                state.entries[index].progress = Progress::default();
                state.entries[index].redrive_only = true;
            }
        }
    }
}

fn lane_of(order: Order, key_from: KeyFrom, position: Position, event: &Event) -> LaneKey {
    match (order, key_of(event, key_from)) {
        (Order::Key, Some(key)) => LaneKey::Key(xxh3_128(key.as_bytes())),
        _ => LaneKey::Single(position),
    }
}
