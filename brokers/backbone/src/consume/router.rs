//! The reader of one topic partition: reads it once for all subscriptions, drops duplicates, matches, and hands events
//! to those subscriptions that keep up. One that does not is left to read for itself until it has caught up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tidegate_routing::{Matcher, SubscriptionId};
use tracing::{info, warn};

use super::core::{Core, Feed, Partition};
use super::dedupe::{Found, Window, identity};
use super::index::{Hash, Index};
use super::observe::Observer;
use super::progress::Offered;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{PartitionLog, Position, Record, Stored, Tail};

/// What one read asks the log for.
pub(super) const READ_BYTES: usize = 256 * 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// All subscriptions as one index, with their run-time parts by number.
#[derive(Debug, Default)]
pub(super) struct Routing {
    pub(super) matcher: Matcher,
    pub(super) cores: HashMap<u32, Arc<Core>>,
}

#[derive(Debug)]
struct State {
    /// From which position on each subscription is fed.
    fed: HashMap<u32, Position>,
    found: Found,
    /// Its topic was deleted.
    retired: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) partition: Partition,
    /// Where the next event will be routed; written under the lock of `state`.
    position: AtomicU64,
    state: Mutex<State>,
    knowing: tokio::sync::Mutex<()>,
    window: Duration,
    /// Told of every event, with the number that it knows this partition by.
    index: (Arc<Index>, u32),
}

impl Router {
    pub(super) fn new(partition: Partition, start: Position, window: Duration, index: (Arc<Index>, u32)) -> Self {
        Self {
            partition,
            position: AtomicU64::new(start.0),
            state: Mutex::new(State { fed: HashMap::new(), found: Found::from(start), retired: false }),
            knowing: tokio::sync::Mutex::new(()),
            window,
            index,
        }
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

    /// Feeds a subscription that has read up to `position` by itself. Refused where there is more between.
    pub(super) fn join(&self, core: &Core, position: Position) -> bool {
        let mut state = self.state.lock();
        if state.retired || position < self.peek() || !core.joined(&self.partition, position) {
            return false;
        }
        state.fed.insert(core.number, position);
        true
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
        if let Some(from) = state.fed.remove(&core.number) {
            core.read_to(&self.partition, self.peek().max(from));
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

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Reads until told to stop. An unreachable broker is waited for; loss of data ends the routing of this partition
    /// and is told.
    pub(super) async fn run(
        self: Arc<Self>,
        log: Arc<dyn PartitionLog>,
        routing: Arc<ArcSwap<Routing>>,
        environment: Environment,
        observer: Arc<dyn Observer>,
    ) {
        let mut backoff = BACKOFF_MIN;
        let stopping = environment.stopping().clone();
        loop {
            let outcome = tokio::select! {
                () = stopping.cancelled() => return,
                outcome = self.read(&log, &routing, &observer, &mut backoff) => outcome,
            };
            let Err(error) = outcome;
            match error.kind() {
                ErrorKind::PositionLost { earliest } => {
                    warn!(topic = %self.partition.topic, partition = self.partition.number, from = %self.peek(), to = %earliest,
                        "events were trimmed before they were routed");
                    let _lock = self.state.lock();
                    self.position.store(earliest.0, Ordering::Release);
                }
                ErrorKind::NotFound | ErrorKind::Closed => {
                    info!(topic = %self.partition.topic, partition = self.partition.number, %error, "routing of a partition ended");
                    return;
                }
                ErrorKind::DataLoss => {
                    tracing::error!(topic = %self.partition.topic, partition = self.partition.number, %error,
                        "a partition lost data; nothing of it is delivered until it is mended");
                    observer.partition_failed(self.partition.topic.as_str(), self.partition.number, &error);
                    return;
                }
                _ => {
                    warn!(topic = %self.partition.topic, partition = self.partition.number, %error, "a partition cannot be read; trying again");
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = tokio::time::sleep(backoff) => {}
                    }
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn read(
        &self,
        log: &Arc<dyn PartitionLog>,
        routing: &ArcSwap<Routing>,
        observer: &Arc<dyn Observer>,
        backoff: &mut Duration,
    ) -> std::result::Result<std::convert::Infallible, Error> {
        let start = self.peek();
        let (mut window, mut tail) = open_judged(log.as_ref(), &self.partition, start, self.window).await?;
        loop {
            let batch = tail.next(READ_BYTES).await?;
            *backoff = BACKOFF_MIN;
            self.route(batch.records, tail.position(), &mut window, routing, observer.as_ref());
        }
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
            matched.clear();
            routing.matcher.matches(&self.partition.topic, &event, &mut matched);
            let partition = (self.partition.topic.as_str(), self.partition.number);
            observer.routed(partition, stored.appended_at, &event, matched.len());
            if matched.is_empty() {
                continue;
            }
            let event = Arc::new(event);
            for id in &matched {
                if state.fed.get(&id.0).is_none_or(|from| stored.position < *from) {
                    continue;
                }
                let Some(core) = routing.cores.get(&id.0) else { continue };
                if core.offer(&self.partition, (stored.position, stored.appended_at), &event, Feed::Router(end))
                    == Offered::Full
                {
                    state.fed.remove(&id.0);
                }
            }
        }
        self.position.store(end.0, Ordering::Release);
        drop(state);
        let (index, number) = &self.index;
        index.note(*number, (begin, end), hashes, bytes);
    }
}

/// A tail at `start` with a window that has seen what lies before it.
pub(super) async fn open_judged(
    log: &dyn PartitionLog,
    partition: &Partition,
    start: Position,
    length: Duration,
) -> Result<(Window, Box<dyn Tail>)> {
    let id = partition.log();
    let mut window = Window::new(length);
    let info = log.info(&id).await?;
    if length.is_zero() || start <= info.begin {
        return Ok((window, log.tail(&id, start).await?));
    }
    // When the event at `start` was appended is known only by reading it; the one before it is not later.
    let before = Position(start.0 - 1).max(info.begin);
    let mut probe = log.tail(&id, before).await?;
    let Some(first) = probe.next(1).await?.records.into_iter().next() else {
        return Ok((window, log.tail(&id, start).await?));
    };
    let from = log.lookup(&id, window.begins(first.appended_at)).await?.max(info.begin).min(before);
    let from = from.max(Position(start.0.saturating_sub(tidegate_schemas::limits::DEDUPE_EVENTS as u64)));
    let mut tail = log.tail(&id, from).await?;
    while tail.position() < start && tail.position() < info.end {
        for stored in tail.next(READ_BYTES).await?.records {
            if stored.position >= start {
                break;
            }
            if let Record::Event(event) = &stored.record {
                window.observe(identity(event), stored.appended_at);
            }
        }
    }
    if tail.position() != start {
        tail = log.tail(&id, start).await?;
    }
    Ok((window, tail))
}
