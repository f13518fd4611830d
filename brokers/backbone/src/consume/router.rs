//! The reader of one topic partition: reads it once for all subscriptions, drops duplicates, matches, and hands events
//! to those subscriptions that keep up. One that does not is left to read for itself until it has caught up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidegate_routing::{Matcher, SubscriptionId};
use tidegate_schemas::Event;
use tidegate_schemas::foreign::is_foreign;
use tidegate_schemas::limits::DEDUPE_EVENTS;
use tracing::{info, warn};

use super::Shared;
use super::core::{Core, Feed, Partition};
use super::dedupe::{Found, Window, identity};
use super::index::Hash;
use super::marks::Mark;
use super::observe::Observer;
use super::owned::Owned;
use super::progress::Offered;
use crate::catalogue::{Foreign, Topic};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogId, LogInfo, PartitionLog, Position, Record, Stored, Tail};

/// What one read asks the log for.
pub(super) const READ_BYTES: usize = 256 * 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How often in a row a log may end before what was read of it, as a node of the broker may tell it that is behind.
const LOOKS: u32 = 10;

/// All subscriptions as one index, with their run-time parts by number.
#[derive(Debug, Default)]
pub(super) struct Routing {
    pub(super) matcher: Matcher,
    pub(super) cores: HashMap<u32, Arc<Core>>,
}

/// What became of a subscription that asked a router to feed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    /// It is fed from now on.
    Joined,
    /// The router has passed records that it has not read.
    Behind,
    /// Its partition, or the router, is another one by now: the slot moved, or the topic was created again.
    Gone,
}

#[derive(Debug)]
struct State {
    /// From which position on each subscription is fed, and what it knows this partition by.
    fed: HashMap<u32, (Position, u64)>,
    found: Found,
    /// Its topic was deleted.
    retired: bool,
    /// The log was not found, and nothing was read of it since.
    vanished: bool,
    /// How often in a row the log ended before what was read of it.
    short: u32,
    /// What was lost, so that nothing more is read.
    damage: Option<String>,
}

impl State {
    fn from(start: Position) -> Self {
        let found = Found::from(start);
        Self { fed: HashMap::new(), found, retired: false, vanished: false, short: 0, damage: None }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) partition: Partition,
    /// Where the next event will be routed; written under the lock of `state`.
    position: AtomicU64,
    state: Mutex<State>,
    knowing: tokio::sync::Mutex<()>,
    /// Where the log began before the router did.
    begin: Position,
    /// What was known of the log then, for the first read.
    known: Mutex<Option<LogInfo>>,
    window: Duration,
    /// Whether records that are no events go to a topic of their own.
    moves_foreign: AtomicBool,
    /// The ownership that it reads for.
    pub(super) owned: Arc<Owned>,
    mark: Arc<Mark>,
    /// By which number the index of passports, which is told of every event, knows this partition.
    number: u32,
}

impl Router {
    /// A router of a partition of that topic, which begins to read at `start`. What is known of the log was asked for a moment
    /// ago; where nothing is, the log is asked when it can be.
    pub(super) fn new(
        owned: Arc<Owned>,
        partition: Partition,
        topic: &Topic,
        start: Position,
        info: Option<LogInfo>,
    ) -> Self {
        let begin = info.as_ref().map_or(Position::ZERO, |info| info.begin);
        Self {
            number: owned.index.follow(&partition, topic.created_at, (begin, start)),
            begin,
            known: Mutex::new(info),
            moves_foreign: AtomicBool::new(topic.spec.foreign == Foreign::DeadLetter),
            mark: owned.marks.of(&partition),
            owned,
            partition,
            position: AtomicU64::new(start.0),
            state: Mutex::new(State::from(start)),
            knowing: tokio::sync::Mutex::new(()),
            window: topic.spec.dedupe_window,
        }
    }

    /// What a checkpoint says of it is to be written.
    pub(super) fn mark(&self) {
        self.owned.marks.set(&self.mark);
    }

    /// Where the log began when it was last asked before the router.
    pub(super) fn begin(&self) -> Position {
        self.begin
    }

    /// Everything before this was handed to each subscription that is fed.
    pub(super) fn position(&self) -> Position {
        let _whole_batches_only = self.state.lock();
        self.peek()
    }

    /// As [`Router::position`], though a batch may be half routed.
    pub(super) fn peek(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// Feeds a subscription that has read up to `position` by itself, unless there is more between.
    pub(super) fn join(&self, core: &Core, ticket: u64, position: Position) -> Joining {
        let mut state = self.state.lock();
        if state.retired {
            return Joining::Gone;
        }
        if position < self.peek() {
            return Joining::Behind;
        }
        if !core.joined((&self.partition, ticket), position) {
            return Joining::Gone;
        }
        state.fed.insert(core.number, (position, ticket));
        Joining::Joined
    }

    /// Feeds nobody any more: a topic that is created again under the same name has a router of its own.
    pub(super) fn retire(&self) {
        let mut state = self.state.lock();
        state.retired = true;
        state.fed.clear();
    }

    /// Feeds a subscription no more; from here on it would have to read for itself.
    pub(super) fn leave(&self, core: &Core) {
        let mut state = self.state.lock();
        if let Some((from, ticket)) = state.fed.remove(&core.number) {
            core.read_to((&self.partition, ticket), self.peek().max(from));
        }
    }

    /// Whether the event at a position before [`Router::peek`] is a duplicate, where that is still known.
    pub(super) fn is_duplicate(&self, position: Position) -> Option<bool> {
        self.state.lock().found.is_duplicate(position)
    }

    /// Makes [`Router::is_duplicate`] know the answer from that position on: lanes that a process before this one parked
    /// begin before this router did. The log is read for it once, whichever lanes need it.
    pub(super) async fn know(&self, log: &dyn PartitionLog, from: Position) -> Result<()> {
        let _one_at_a_time = self.knowing.lock().await;
        let until = self.known_from();
        if from >= until {
            return Ok(());
        }
        let (mut window, mut tail) = open_judged(log, &self.partition, from, self.window).await?;
        let mut duplicates = Vec::new();
        'reading: while tail.position() < until {
            for stored in tail.next(READ_BYTES).await?.records {
                if stored.position >= until {
                    break 'reading;
                }
                if let Record::Event(event) = &stored.record
                    && window.observe(identity(event), stored.appended_at)
                {
                    duplicates.push(stored.position);
                }
            }
        }
        self.state.lock().found.extend(from, duplicates);
        Ok(())
    }

    /// From where on [`Router::is_duplicate`] knows the answer.
    pub(super) fn known_from(&self) -> Position {
        self.state.lock().found.known_from()
    }

    /// What becomes of records that are no events, from now on.
    pub(super) fn set_foreign(&self, foreign: Foreign) {
        self.moves_foreign.store(foreign == Foreign::DeadLetter, Ordering::Release);
    }

    /// Whether an event goes to a topic of its own instead of to subscriptions.
    pub(super) fn moves(&self, event: &Event) -> bool {
        self.moves_foreign.load(Ordering::Acquire) && is_foreign(event)
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Reads until told to stop, or until the topic is gone. An unreachable broker is waited for; loss of data ends the
    /// routing of this partition and is told.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let observer = &shared.observer;
        let mut backoff = BACKOFF_MIN;
        let stopping = self.owned.over().clone();
        loop {
            let outcome = tokio::select! {
                () = stopping.cancelled() => return,
                outcome = self.read(&shared, &mut backoff) => outcome,
            };
            let Err(error) = outcome;
            let delay = match error.kind() {
                ErrorKind::PositionLost { earliest } => {
                    warn!(topic = %self.partition.topic, partition = self.partition.number, from = %self.peek(), to = %earliest,
                        "events were trimmed before they were routed");
                    let _lock = self.state.lock();
                    self.position.store(earliest.0, Ordering::Release);
                    self.mark();
                    continue;
                }
                // While its topic is there, nobody has deleted it: brokers say so as well of what they cannot find for now.
                ErrorKind::NotFound if !self.state.lock().retired => {
                    self.state.lock().vanished = true;
                    warn!(topic = %self.partition.topic, partition = self.partition.number, %error,
                        "a partition of a topic that is there is not found; trying again");
                    BACKOFF_MAX
                }
                ErrorKind::NotFound | ErrorKind::Closed => {
                    info!(topic = %self.partition.topic, partition = self.partition.number, %error, "routing of a partition ended");
                    return;
                }
                ErrorKind::DataLoss => {
                    tracing::error!(topic = %self.partition.topic, partition = self.partition.number, %error,
                        "a partition lost data; nothing of it is delivered until it is mended");
                    self.state.lock().damage = Some(error.to_string());
                    observer.partition_failed(self.partition.topic.as_str(), self.partition.number, &error);
                    return;
                }
                _ => {
                    warn!(topic = %self.partition.topic, partition = self.partition.number, %error, "a partition cannot be read; trying again");
                    let delay = backoff;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    delay
                }
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Checks that a log holds what was read of it. One that was deleted and made anew is another one; of one that a node of the
    /// broker tells late, the rest is told soon.
    fn reaches(&self, info: &LogInfo, start: Position) -> Result<()> {
        let mut state = self.state.lock();
        if start <= info.end {
            state.short = 0;
            return Ok(());
        }
        state.short += 1;
        let kind = if state.vanished || state.short > LOOKS { ErrorKind::DataLoss } else { ErrorKind::Unavailable };
        let context = format!(
            "{} ends at {} but was read up to {start}; if it was deleted and made anew, delete the topic here and attach it again",
            info.id, info.end
        );
        Err(Error::new(kind, context))
    }

    /// What was lost of the partition, where nothing more is read for that.
    pub(super) fn damage(&self) -> Option<String> {
        self.state.lock().damage.clone()
    }

    async fn read(
        &self,
        shared: &Shared,
        backoff: &mut Duration,
    ) -> std::result::Result<std::convert::Infallible, Error> {
        let start = self.peek();
        let known = self.known.lock().take();
        let log = shared.log.as_ref();
        let info = match known {
            Some(info) => info,
            None => log.info(&self.partition.log()).await?,
        };
        self.reaches(&info, start)?;
        let (mut window, mut tail) = open_known(log, &info, start, self.window).await?;
        loop {
            let batch = tail.next(READ_BYTES).await?;
            self.move_foreign(shared, &batch.records).await?;
            *backoff = BACKOFF_MIN;
            self.state.lock().vanished = false;
            self.route(batch.records, tail.position(), &mut window, &shared.routing, shared.observer.as_ref());
        }
    }

    /// Writes events that are to go to a topic of their own there, before their place is passed: a crash between the two
    /// writes them again, as repeats.
    async fn move_foreign(&self, shared: &Shared, records: &[Stored]) -> Result<()> {
        for stored in records {
            let Record::Event(event) = &stored.record else { continue };
            if !self.moves(event) {
                continue;
            }
            let id = shared.foreign_log(&self.partition.topic, event).await.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "the topic of records that are no events cannot be had")
                    .with_source(error)
            })?;
            if !self.owned.holds() {
                let context = format!("{} is not known to be owned here", self.partition.log());
                return Err(Error::new(ErrorKind::Unavailable, context));
            }
            shared.log.append(&id, Record::Event(event.clone())).await?;
        }
        Ok(())
    }

    fn route(
        &self,
        records: Vec<Stored>,
        end: Position,
        window: &mut Window,
        routing: &ArcSwap<Routing>,
        observer: &dyn Observer,
    ) {
        let mut matched: Vec<SubscriptionId> = Vec::new();
        let mut hashes = Vec::with_capacity(records.len());
        let mut bytes = 0;
        let mut state = self.state.lock();
        let begin = self.peek();
        // Under the lock: a subscription is in the index before it joins, and joins under this lock, so that an index
        // read now names every subscription that is fed. One read before could lack it, and skip its events.
        let routing = routing.load();
        for stored in records {
            let Record::Event(event) = stored.record else { continue };
            hashes.push((Hash::of(event.source(), event.id()), stored.position));
            bytes += event.bytes() as u64;
            if window.observe(identity(&event), stored.appended_at) {
                state.found.insert(stored.position);
                observer.duplicate(self.partition.topic.as_str(), self.partition.number, stored.position, &event);
                continue;
            }
            if self.moves(&event) {
                continue;
            }
            matched.clear();
            routing.matcher.matches(&self.partition.topic, &event, &mut matched);
            let partition = (self.partition.topic.as_str(), self.partition.number);
            observer.routed(partition, stored.appended_at, &event, matched.len());
            if matched.is_empty() {
                continue;
            }
            let event = Arc::new(event);
            for id in &matched {
                let Some((_, ticket)) = state.fed.get(&id.0).filter(|(from, _)| stored.position >= *from) else {
                    continue;
                };
                let Some(core) = routing.cores.get(&id.0) else { continue };
                let site = (&self.partition, *ticket);
                let at = (stored.position, stored.appended_at);
                if core.offer(site, at, &event, Feed::Router(end)) == Offered::Full {
                    state.fed.remove(&id.0);
                }
            }
        }
        self.position.store(end.0, Ordering::Release);
        self.mark();
        drop(state);
        self.owned.index.note(self.number, (begin, end), hashes, bytes);
    }
}

/// A tail at `start` with a window that has seen what lies before it.
pub(super) async fn open_judged(
    log: &dyn PartitionLog,
    partition: &Partition,
    start: Position,
    length: Duration,
) -> Result<(Window, Box<dyn Tail>)> {
    open_known(log, &log.info(&partition.log()).await?, start, length).await
}

/// The same of a log that was asked for a moment ago where it begins and ends.
async fn open_known(
    log: &dyn PartitionLog,
    info: &LogInfo,
    start: Position,
    length: Duration,
) -> Result<(Window, Box<dyn Tail>)> {
    let id = &info.id;
    let until = start.min(info.end);
    if length.is_zero() || until <= info.begin {
        return Ok((Window::new(length), log.tail(id, start).await?));
    }
    let Some((before, appended_at)) = last_before(log, id, info.begin, until).await? else {
        return Ok((Window::new(length), log.tail(id, start).await?));
    };
    let window = Window::new(length);
    let first = log.lookup(id, window.begins(appended_at)).await?.clamp(info.begin, before);
    // As many events are looked at as a window holds. Where positions have gaps, they lie further back than their number.
    let mut span = DEDUPE_EVENTS as u64;
    loop {
        let from = Position(until.0.saturating_sub(span)).max(first);
        let (window, mut tail, seen) = judge(log, id, (from, until), length).await?;
        if from == first || seen >= DEDUPE_EVENTS {
            if tail.position() != start {
                tail = log.tail(id, start).await?;
            }
            return Ok((window, tail));
        }
        span = span.saturating_mul(2);
    }
}

/// A window that has seen what lies between two positions, with its tail and how many events that were.
async fn judge(
    log: &dyn PartitionLog,
    id: &LogId,
    (from, until): (Position, Position),
    length: Duration,
) -> Result<(Window, Box<dyn Tail>, usize)> {
    let mut window = Window::new(length);
    let mut tail = log.tail(id, from).await?;
    let mut seen = 0;
    while tail.position() < until {
        for stored in tail.next(READ_BYTES).await?.records {
            if stored.position >= until {
                break;
            }
            if let Record::Event(event) = &stored.record {
                window.observe(identity(event), stored.appended_at);
                seen += 1;
            }
        }
    }
    Ok((window, tail, seen))
}

/// The last record before a position, and when it was appended. What stands at the position itself was appended no
/// earlier, and is known only when it is there.
async fn last_before(
    log: &dyn PartitionLog,
    id: &LogId,
    begin: Position,
    until: Position,
) -> Result<Option<(Position, u64)>> {
    // Nearly always the position right before is that of a record; on brokers whose positions have gaps it may be none.
    let mut span = 1;
    loop {
        let from = Position(until.0.saturating_sub(span)).max(begin);
        let mut tail = log.tail(id, from).await?;
        let mut last = None;
        while tail.position() < until {
            for stored in tail.next(READ_BYTES).await?.records {
                if stored.position < until {
                    last = Some((stored.position, stored.appended_at));
                }
            }
        }
        if last.is_some() || from == begin {
            return Ok(last);
        }
        span = span.saturating_mul(64);
    }
}
