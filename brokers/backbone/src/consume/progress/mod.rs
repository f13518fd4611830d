//! How far one subscription is in one topic partition: a state machine without I/O.
//!
//! Events come in the order of the log ([`Progress::offer`]) and are handed out ([`Progress::take`]) in *lanes*. Events
//! of one lane are out one at a time and in order; lanes do not wait for each other. A lane is a key, or one event
//! alone where there is no key or no order is asked for.
//!
//! A lane is **live** while everything of it that is not settled is in memory. When its head has to be tried again
//! later it falls **behind**: only the head's position is kept, what follows of its key is dropped from memory and read
//! again from the log when the lane's turn comes. So a poisoned key costs one small entry however many events pile up
//! behind it, and the reader goes on for all others.

mod find;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tidegate_schemas::{Event, limits};

pub(crate) use find::Whereabouts;

use crate::log::Position;

/// Which events wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LaneKey {
    /// The events of one key, by the key's 128-bit hash.
    Key(u128),
    /// One event that waits for no other.
    Single(Position),
}

/// An event in memory, waiting for its turn.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    /// Where it stands in its partition.
    pub(crate) position: Position,
    /// When it was stored, in milliseconds since 1970.
    pub(crate) appended_at: u64,
    /// The event.
    pub(crate) event: Arc<Event>,
    bytes: usize,
}

impl Queued {
    /// An event with the bytes that it counts for.
    pub(crate) fn new(position: Position, appended_at: u64, event: Arc<Event>) -> Self {
        let bytes = event.bytes();
        Self { position, appended_at, event, bytes }
    }
}

/// What became of an offered event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is in memory and will be handed out.
    Queued,
    /// Nothing is to be done for it now: it was settled before, or its lane will read it again.
    Passed,
    /// There is no room; it must be offered again.
    Full,
}

/// Which event goes out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// One that failed before, and where there is none one that did not.
    RetriesFirst,
    /// One that did not fail before.
    New,
    /// Either in turn, and none again before every other lane that is ready had its turn: if only those that failed before
    /// were tried on a sink that fails, or some more often than others, a few events that never succeed would keep all
    /// others from showing that it is well.
    Probe,
}

/// An event handed out.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// Its lane, which is busy until the event is settled.
    pub(crate) lane: LaneKey,
    /// Where it stands.
    pub(crate) position: Position,
    /// When it was stored, in milliseconds since 1970.
    pub(crate) appended_at: u64,
    /// The event.
    pub(crate) event: Arc<Event>,
    /// Attempts before this one that counted.
    pub(crate) attempts: u32,
    /// When the first attempt began, in milliseconds since 1970; `None` where this is the first.
    pub(crate) first_attempt_at: Option<u64>,
}

/// A lane that fell behind, as it is journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parked {
    /// The lane.
    pub(crate) lane: LaneKey,
    /// The first event of the lane that is not settled.
    pub(crate) head: Position,
    /// Attempts that the head had.
    pub(crate) attempts: u32,
    /// When the head's first attempt began, in milliseconds since 1970; `None` where there was none.
    pub(crate) first_attempt_at: Option<u64>,
    /// Not to be tried before, in milliseconds since 1970; of a paused lane, since when it is.
    pub(crate) due: u64,
    /// It stands still until somebody resumes it.
    pub(crate) paused: bool,
}

/// Events of a lane that are wanted from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    /// The lane.
    pub(crate) lane: LaneKey,
    /// The first position to look at.
    pub(crate) from: Position,
    /// The last position to look at.
    pub(crate) last: Position,
}

/// Lanes whose events are wanted from the log, to be read in one go: what lies between the events of one lane is mostly those
/// of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loads {
    /// The lanes.
    pub(crate) lanes: Vec<Load>,
    /// The most events that are taken of one lane.
    pub(crate) share: usize,
    /// The most events that are taken of all of them.
    pub(crate) events: usize,
    /// Their bytes, which may be exceeded by one event.
    pub(crate) bytes: usize,
}

/// What a checkpoint keeps of a [`Progress`]: everything before `read` is settled, but for `open` and the parked lanes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Positions before `read` that are handed in and not settled.
    pub(crate) open: Vec<Position>,
    /// Lanes that fell behind.
    pub(crate) parked: Vec<Parked>,
}

#[derive(Debug)]
enum Lane {
    Live { queue: VecDeque<Queued>, busy: bool },
    Behind(Behind),
}

#[derive(Debug)]
struct Behind {
    head: Position,
    attempts: u32,
    first_attempt_at: Option<u64>,
    due: u64,
    stage: Stage,
    /// Where the next look into the log begins.
    scan: Position,
    /// The last event of the lane that was seen and dropped: the lane has caught up when `scan` is beyond it.
    seen: Position,
    queue: VecDeque<Queued>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// For its time.
    Waiting,
    /// For somebody who resumes it.
    Paused,
    Loading,
    Ready,
    Busy,
}

/// What is held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    events: usize,
    bytes: usize,
}

impl Held {
    fn add(&mut self, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.events -= 1;
        self.bytes -= bytes;
    }
}

/// What one load brings into memory of one lane at most; the bytes may be exceeded by one event.
pub(crate) const LOAD_EVENTS: usize = 16;
pub(crate) const LOAD_BYTES: usize = limits::RETRY_QUEUE_BYTES / 4;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    lanes: HashMap<LaneKey, Lane>,
    /// Lanes whose next event has not failed before.
    ready: VecDeque<LaneKey>,
    /// Lanes whose next event has.
    again: VecDeque<LaneKey>,
    /// Lanes that were probed and wait for all others to be, each with whether its next event has failed before.
    probed: VecDeque<(LaneKey, bool)>,
    waiting: BTreeSet<(u64, LaneKey)>,
    open: BTreeSet<Position>,
    behind: usize,
    /// Those of them that are paused.
    paused: BTreeSet<LaneKey>,
    /// Events of live lanes in memory, and their bytes.
    queued: Held,
    /// The same of lanes that fell behind. Counted apart, so that neither keeps the other out.
    loaded: Held,
    /// Lanes whose events are being loaded.
    loading: usize,
    /// There is no memory for more than one event.
    short_of_memory: bool,
    /// Whether the last probe was an event that has not failed before.
    probed_new: bool,
    /// From the checkpoint: positions before `.0` are settled but for those in `.1`.
    settled: Option<(Position, BTreeSet<Position>)>,
}

impl Progress {
    /// Goes on from a checkpoint whose reader had come to `read`.
    pub(crate) fn restore(read: Position, checkpoint: Checkpoint) -> Self {
        let mut progress = Self::default();
        for parked in checkpoint.parked {
            let seen = Position(read.0.saturating_sub(1)).max(parked.head);
            let stage = if parked.paused {
                progress.paused.insert(parked.lane);
                Stage::Paused
            } else {
                progress.waiting.insert((parked.due, parked.lane));
                Stage::Waiting
            };
            progress.behind += 1;
            progress.lanes.insert(
                parked.lane,
                Lane::Behind(Behind {
                    head: parked.head,
                    attempts: parked.attempts,
                    first_attempt_at: parked.first_attempt_at,
                    due: parked.due,
                    stage,
                    scan: parked.head,
                    seen,
                    queue: VecDeque::new(),
                }),
            );
        }
        if !checkpoint.open.is_empty() {
            progress.settled = Some((read, checkpoint.open.into_iter().collect()));
        }
        progress
    }

    /// Where reading must begin so that nothing is missed, for a checkpoint whose reader had come to `read`.
    pub(crate) fn resume_from(read: Position, checkpoint: &Checkpoint) -> Position {
        checkpoint.open.iter().copied().min().map_or(read, |open| open.min(read))
    }

    /// Takes an event in, in the order of the log.
    pub(crate) fn offer(&mut self, lane: LaneKey, position: Position, appended_at: u64, event: &Arc<Event>) -> Offered {
        self.reached(position);
        if self.settled.as_ref().is_some_and(|(_, open)| !open.contains(&position)) {
            return Offered::Passed;
        }
        if let Some(Lane::Behind(behind)) = self.lanes.get_mut(&lane) {
            behind.seen = behind.seen.max(position);
            self.taken_over(position);
            return Offered::Passed;
        }
        if self.is_full() {
            return Offered::Full;
        }
        self.taken_over(position);
        let queued = Queued::new(position, appended_at, Arc::clone(event));
        self.queued.add(queued.bytes);
        self.open.insert(position);
        match self.lanes.get_mut(&lane) {
            Some(Lane::Live { queue, .. }) => queue.push_back(queued),
            _ => {
                self.lanes.insert(lane, Lane::Live { queue: VecDeque::from([queued]), busy: false });
                self.ready.push_back(lane);
            }
        }
        Offered::Queued
    }

    /// Everything before `read` was offered. Once that is beyond what the checkpoint spoke of, it has had its use.
    pub(crate) fn reached(&mut self, read: Position) {
        if self.settled.as_ref().is_some_and(|(until, _)| read >= *until) {
            self.settled = None;
        }
    }

    /// Before which everything that [`Progress::checkpoint`] does not name is settled, for a reader that has come to
    /// `position`: a reader that goes over old ground for a few open events has more behind it than it has read.
    pub(crate) fn read(&self, position: Position) -> Position {
        self.settled.as_ref().map_or(position, |(until, _)| position.max(*until))
    }

    /// Whether no further event can be taken in for now.
    pub(crate) fn is_full(&self) -> bool {
        self.queued.events >= limits::DELIVERY_QUEUE_EVENTS
            || self.queued.bytes >= limits::DELIVERY_QUEUE_BYTES
            || self.behind >= limits::PARKED_KEYS
            || self.is_short()
    }

    /// Whether nothing more is to be read into memory because the process has none left. What holds nothing takes one
    /// event all the same, so that nobody stands still because of others.
    fn is_short(&self) -> bool {
        self.short_of_memory && self.queued.events + self.loaded.events + self.loading > 0
    }

    /// Tells whether the process has memory for what is read.
    pub(crate) fn memory_is_short(&mut self, short: bool) {
        self.short_of_memory = short;
    }

    /// Whether there is room enough again that reading on is worth the while.
    pub(crate) fn has_room(&self) -> bool {
        self.queued.events * 2 <= limits::DELIVERY_QUEUE_EVENTS
            && self.queued.bytes * 2 <= limits::DELIVERY_QUEUE_BYTES
            && self.behind < limits::PARKED_KEYS
            && !self.is_short()
    }

    /// Whether [`Progress::take`] is worth a call.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.again.is_empty() || !self.probed.is_empty()
    }

    /// Whether an event may be ready that has not failed before. What was probed may be either.
    pub(crate) fn may_have_new(&self) -> bool {
        !self.ready.is_empty() || !self.probed.is_empty()
    }

    /// Whether an event may be ready that has failed before.
    pub(crate) fn may_have_retry(&self) -> bool {
        !self.again.is_empty() || !self.probed.is_empty()
    }

    /// Whether an event is ready that has failed before.
    pub(crate) fn has_retry(&self) -> bool {
        !self.again.is_empty() || self.probed.iter().any(|(_, failed)| *failed)
    }

    /// Hands out the next event of that choice, if there is one.
    pub(crate) fn take(&mut self, choice: Choice) -> Option<Taken> {
        while let Some(key) = self.next_ready(choice) {
            let (queued, attempts, first_attempt_at) = match self.lanes.get_mut(&key) {
                Some(Lane::Live { queue, busy }) if !*busy => {
                    let Some(queued) = queue.pop_front() else { continue };
                    *busy = true;
                    self.queued.remove(queued.bytes);
                    (queued, 0, None)
                }
                Some(Lane::Behind(behind)) if behind.stage == Stage::Ready => {
                    let Some(queued) = behind.queue.pop_front() else { continue };
                    behind.stage = Stage::Busy;
                    self.loaded.remove(queued.bytes);
                    if queued.position == behind.head {
                        (queued, behind.attempts, behind.first_attempt_at)
                    } else {
                        behind.head = queued.position;
                        behind.attempts = 0;
                        behind.first_attempt_at = None;
                        (queued, 0, None)
                    }
                }
                _ => continue,
            };
            return Some(Taken {
                lane: key,
                position: queued.position,
                appended_at: queued.appended_at,
                event: queued.event,
                attempts,
                first_attempt_at,
            });
        }
        None
    }

    fn next_ready(&mut self, choice: Choice) -> Option<LaneKey> {
        if choice != Choice::Probe {
            for (key, failed) in std::mem::take(&mut self.probed) {
                if failed { &mut self.again } else { &mut self.ready }.push_back(key);
            }
        }
        match choice {
            Choice::RetriesFirst => self.again.pop_front().or_else(|| self.ready.pop_front()),
            Choice::New => self.ready.pop_front(),
            Choice::Probe => {
                self.probed_new = !self.probed_new;
                let next = if self.probed_new {
                    self.ready.pop_front().or_else(|| self.again.pop_front())
                } else {
                    self.again.pop_front().or_else(|| self.ready.pop_front())
                };
                next.or_else(|| self.probed.pop_front().map(|(key, _)| key))
            }
        }
    }

    /// The event that was taken from the lane is settled for good.
    pub(crate) fn done(&mut self, key: LaneKey, position: Position) {
        let finished = match self.lanes.get_mut(&key) {
            Some(Lane::Live { queue, busy }) => {
                *busy = false;
                self.open.remove(&position);
                if queue.is_empty() {
                    true
                } else {
                    self.ready.push_back(key);
                    false
                }
            }
            Some(Lane::Behind(behind)) => {
                behind.attempts = 0;
                behind.first_attempt_at = None;
                if let Some(next) = behind.queue.front() {
                    behind.head = next.position;
                    behind.stage = Stage::Ready;
                    self.ready.push_back(key);
                    false
                } else {
                    behind.head = behind.scan;
                    Self::advance(key, behind, &mut self.waiting)
                }
            }
            None => false,
        };
        if finished {
            self.remove(key);
        }
    }

    /// The event that was taken is to be tried again, not before `due`; the lane falls behind.
    pub(crate) fn retry(&mut self, key: LaneKey, taken: &Taken, now: u64, due: u64) {
        if self.fall_behind(key, taken, now, due, Stage::Waiting) {
            self.waiting.insert((due, key));
        }
    }

    /// The event that was taken has failed for good, and its lane stands still until somebody resumes it.
    pub(crate) fn pause(&mut self, key: LaneKey, taken: &Taken, began_at: u64, now: u64) {
        if self.fall_behind(key, taken, began_at, now, Stage::Paused) {
            self.paused.insert(key);
        }
    }

    fn fall_behind(&mut self, key: LaneKey, taken: &Taken, now: u64, due: u64, stage: Stage) -> bool {
        let attempts = taken.attempts + 1;
        let first_attempt_at = Some(taken.first_attempt_at.unwrap_or(now));
        let seen = match self.lanes.get_mut(&key) {
            Some(Lane::Live { queue, .. }) => {
                self.open.remove(&taken.position);
                self.behind += 1;
                for dropped in queue.iter() {
                    self.open.remove(&dropped.position);
                    self.queued.remove(dropped.bytes);
                }
                queue.back().map_or(taken.position, |last| last.position)
            }
            Some(Lane::Behind(behind)) => {
                for dropped in &behind.queue {
                    self.loaded.remove(dropped.bytes);
                }
                behind.seen
            }
            None => return false,
        };
        self.lanes.insert(
            key,
            Lane::Behind(Behind {
                head: taken.position,
                attempts,
                first_attempt_at,
                due,
                stage,
                scan: taken.position,
                seen,
                queue: VecDeque::new(),
            }),
        );
        true
    }

    /// The lanes that are paused, each with its head, the attempts that it had, and since when.
    pub(crate) fn paused(&self) -> impl Iterator<Item = (LaneKey, Position, u32, u64)> + '_ {
        self.paused.iter().filter_map(|key| match self.lanes.get(key) {
            Some(Lane::Behind(behind)) => Some((*key, behind.head, behind.attempts, behind.due)),
            _ => None,
        })
    }

    /// A paused lane goes on with the event that it stands at, of which nothing counts that was before. Gives whether
    /// it was paused.
    pub(crate) fn resume(&mut self, key: LaneKey, now: u64) -> bool {
        let Some(Lane::Behind(behind)) = self.lanes.get_mut(&key).filter(|_| self.paused.remove(&key)) else {
            return false;
        };
        behind.attempts = 0;
        behind.first_attempt_at = None;
        behind.due = now;
        behind.stage = Stage::Waiting;
        self.waiting.insert((now, key));
        true
    }

    /// A paused lane goes on behind the event that it stands at, where that is still `head`. Gives whether it did.
    pub(crate) fn skip(&mut self, key: LaneKey, head: Position) -> bool {
        let Some(Lane::Behind(behind)) = self.lanes.get_mut(&key).filter(|_| self.paused.contains(&key)) else {
            return false;
        };
        if behind.head != head {
            return false;
        }
        self.paused.remove(&key);
        behind.attempts = 0;
        behind.first_attempt_at = None;
        behind.scan = head.next();
        behind.head = behind.scan;
        if Self::advance(key, behind, &mut self.waiting) {
            self.remove(key);
        }
        true
    }

    /// The event that was taken was not tried after all, and is handed out again first.
    pub(crate) fn release(&mut self, key: LaneKey, taken: Taken) {
        let queue = if taken.attempts > 0 { &mut self.again } else { &mut self.ready };
        queue.push_front(key);
        self.put_back(key, taken);
    }

    /// The event that was taken as a probe is handed out again as it was, after those of all other lanes that are ready.
    pub(crate) fn release_last(&mut self, key: LaneKey, taken: Taken) {
        self.probed.push_back((key, taken.attempts > 0));
        self.put_back(key, taken);
    }

    fn put_back(&mut self, key: LaneKey, taken: Taken) {
        let queued = Queued::new(taken.position, taken.appended_at, taken.event);
        let bytes = queued.bytes;
        match self.lanes.get_mut(&key) {
            Some(Lane::Live { queue, busy }) => {
                *busy = false;
                queue.push_front(queued);
                self.queued.add(bytes);
            }
            Some(Lane::Behind(behind)) => {
                behind.head = queued.position;
                behind.attempts = taken.attempts;
                behind.first_attempt_at = taken.first_attempt_at;
                behind.stage = Stage::Ready;
                behind.queue.push_front(queued);
                self.loaded.add(bytes);
            }
            // The topic is gone; what was made ready finds no lane.
            None => {}
        }
    }

    /// Puts an event of the log into a lane of its own, to be read and handed out when it is due.
    pub(crate) fn park(&mut self, position: Position, due: u64) {
        let lane = LaneKey::Single(position);
        if self.lanes.contains_key(&lane) {
            return;
        }
        self.behind += 1;
        self.waiting.insert((due, lane));
        self.lanes.insert(
            lane,
            Lane::Behind(Behind {
                head: position,
                attempts: 0,
                first_attempt_at: None,
                due,
                stage: Stage::Waiting,
                scan: position,
                seen: position,
                queue: VecDeque::new(),
            }),
        );
    }

    /// Takes an event in that is not to be handed out before its time: nothing of it is kept in memory but where it
    /// stands. It waits for no other and no other for it.
    pub(crate) fn delay(&mut self, position: Position, due: u64) -> Offered {
        self.reached(position);
        if self.settled.as_ref().is_some_and(|(_, open)| !open.contains(&position)) {
            return Offered::Passed;
        }
        if !self.lanes.contains_key(&LaneKey::Single(position)) {
            if self.behind >= limits::PARKED_KEYS {
                return Offered::Full;
            }
            self.park(position, due);
        }
        self.taken_over(position);
        Offered::Passed
    }

    /// Takes lanes whose time has come; each of them is to be given back by [`Progress::loaded`], [`Progress::not_loaded`] or
    /// [`Progress::not_reached`] before there are others. At most `active_max` lanes that fell behind are loading, in memory
    /// or out at once.
    ///
    /// Each time costs a read of the log, so lanes are gathered: where others are in memory there are none as long as they
    /// are few, unless it is not to be `waited` for more of them.
    pub(crate) fn due(&mut self, now: u64, active_max: usize, waited: bool) -> Loads {
        if !self.has_due(now) {
            return Loads::default();
        }
        let events = if self.short_of_memory { 1 } else { limits::RETRY_QUEUE_EVENTS - self.loaded.events };
        let active = self.behind - self.waiting.len() - self.paused.len();
        let most = active_max.saturating_sub(active).min(events);
        let count = self.waiting.iter().take(most).take_while(|(due, _)| *due <= now).count();
        let many = count >= active && self.loaded.events * 2 <= limits::RETRY_QUEUE_EVENTS;
        if count == 0 || !(waited || many || self.loaded.events == 0) {
            return Loads::default();
        }
        let mut lanes = Vec::with_capacity(count);
        while lanes.len() < count
            && let Some((_, key)) = self.waiting.pop_first()
        {
            if let Some(Lane::Behind(behind)) = self.lanes.get_mut(&key) {
                behind.stage = Stage::Loading;
                self.loading += 1;
                lanes.push(Load { lane: key, from: behind.scan, last: behind.seen });
            }
        }
        let share = (events / count).clamp(1, LOAD_EVENTS);
        Loads { lanes, share, events, bytes: limits::RETRY_QUEUE_BYTES - self.loaded.bytes }
    }

    /// Whether a lane is due and there is room to load it.
    pub(crate) fn has_due(&self, now: u64) -> bool {
        self.waiting.first().is_some_and(|(due, _)| *due <= now) && self.has_room_for_load()
    }

    /// Whether what is loaded leaves room for a load, and none is under way.
    fn has_room_for_load(&self) -> bool {
        self.loading == 0
            && self.loaded.events + LOAD_EVENTS <= limits::RETRY_QUEUE_EVENTS
            && self.loaded.bytes + LOAD_BYTES <= limits::RETRY_QUEUE_BYTES
            && !self.is_short()
    }

    /// When the next lane is due, in milliseconds since 1970.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Gives a lane the events that were asked for, in order; everything of the lane before `scanned` is among them.
    pub(crate) fn loaded(&mut self, key: LaneKey, events: Vec<Queued>, scanned: Position) {
        let finished = match self.lanes.get_mut(&key) {
            Some(Lane::Behind(behind)) if behind.stage == Stage::Loading => {
                self.loading -= 1;
                behind.scan = scanned;
                if let Some(first) = events.first() {
                    if first.position != behind.head {
                        behind.head = first.position;
                        behind.attempts = 0;
                        behind.first_attempt_at = None;
                    }
                    for queued in &events {
                        self.loaded.add(queued.bytes);
                        // The reader that goes over old ground may come there when this lane is done with it.
                        if let Some((_, open)) = &mut self.settled {
                            open.remove(&queued.position);
                        }
                    }
                    behind.queue = events.into();
                    behind.stage = Stage::Ready;
                    let queue = if behind.attempts > 0 { &mut self.again } else { &mut self.ready };
                    queue.push_back(key);
                    false
                } else {
                    behind.head = scanned;
                    Self::advance(key, behind, &mut self.waiting)
                }
            }
            _ => false,
        };
        if finished {
            self.remove(key);
        }
    }

    /// A load ended before it came to that lane, which stays due.
    pub(crate) fn not_reached(&mut self, key: LaneKey) {
        if let Some(Lane::Behind(behind)) = self.lanes.get(&key) {
            let due = behind.due;
            self.not_loaded(key, due);
        }
    }

    /// A load failed for now; it is asked for again at `due`.
    pub(crate) fn not_loaded(&mut self, key: LaneKey, due: u64) {
        if let Some(Lane::Behind(behind)) = self.lanes.get_mut(&key)
            && behind.stage == Stage::Loading
        {
            self.loading -= 1;
            behind.stage = Stage::Waiting;
            behind.due = due;
            self.waiting.insert((due, key));
        }
    }

    /// The first position that was taken in and is not settled.
    pub(crate) fn oldest(&self) -> Option<Position> {
        let unread = self.settled.as_ref().and_then(|(_, open)| open.first());
        let heads = self.lanes.values().filter_map(|lane| match lane {
            Lane::Behind(behind) => Some(behind.head),
            Lane::Live { .. } => None,
        });
        self.open.first().into_iter().chain(unread).copied().chain(heads).min()
    }

    /// What must outlive this process.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let mut open: BTreeSet<Position> = self.open.clone();
        if let Some((_, unread)) = &self.settled {
            open.extend(unread.iter().copied());
        }
        let parked = self
            .lanes
            .iter()
            .filter_map(|(key, lane)| match lane {
                Lane::Behind(behind) => Some(Parked {
                    lane: *key,
                    head: behind.head,
                    attempts: behind.attempts,
                    first_attempt_at: behind.first_attempt_at,
                    due: behind.due,
                    paused: behind.stage == Stage::Paused,
                }),
                Lane::Live { .. } => None,
            })
            .collect();
        Checkpoint { open: open.into_iter().collect(), parked }
    }

    /// Events in memory that wait, lanes that fell behind and wait for their time, and lanes that are paused.
    pub(crate) fn depth(&self) -> (usize, usize, usize) {
        (self.queued.events + self.loaded.events, self.behind - self.paused.len(), self.paused.len())
    }

    /// Goes on with a lane whose queue is empty; gives whether it has caught up.
    fn advance(key: LaneKey, behind: &mut Behind, waiting: &mut BTreeSet<(u64, LaneKey)>) -> bool {
        if matches!(key, LaneKey::Single(_)) || behind.scan > behind.seen {
            return true;
        }
        behind.stage = Stage::Waiting;
        behind.due = 0;
        waiting.insert((0, key));
        false
    }

    /// A position that the checkpoint named as open is in these hands now.
    fn taken_over(&mut self, position: Position) {
        if let Some((_, open)) = &mut self.settled {
            open.remove(&position);
        }
    }

    fn remove(&mut self, key: LaneKey) {
        if let Some(Lane::Behind(_)) = self.lanes.remove(&key) {
            self.behind -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
