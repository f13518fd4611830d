//! Reads the events of lanes again that fell behind: one pass over a partition for all lanes that are due in it.
//!
//! A pass begins at the first position that one of its lanes wants, and hands every event to the lane that it is of, until
//! each lane has its share, or the last that was seen of it lies behind, or there is no more room. Where no lane wants what
//! comes next it goes on further behind. What a pass does not come to is due again at once.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_routing::filter::matches_all;
use tidegate_routing::partition::KeyFrom;
use tidegate_schemas::limits;
use tracing::warn;

use super::{RETRY_DELAY, Shared, trimmed};
use crate::catalogue::{Order, Subscription};
use crate::consume::core::{Core, Site, lane_of};
use crate::consume::progress::{LOAD_BYTES, LaneKey, Load, Loads, Queued};
use crate::consume::router::{READ_BYTES, Router};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{Position, Record, Stored, Tail};

/// Reads of one pass at most, so that lanes which become due meanwhile do not wait for one that has much behind it.
const READS: usize = 2 * limits::RETRY_QUEUE_BYTES / READ_BYTES;
/// Positions that are read although no lane wants them: further on it is cheaper to begin there anew.
const GAP: u64 = 1_000;

/// A lane while its events are read.
struct Lane {
    load: Load,
    events: Vec<Queued>,
    bytes: usize,
}

struct Pass<'a> {
    shared: &'a Shared,
    core: &'a Core,
    site: &'a Site,
    subscription: Arc<Subscription>,
    key_from: KeyFrom,
    router: Option<Arc<Router>>,
    lanes: HashMap<LaneKey, Lane>,
    /// What a lane may have, and what all of them may still have.
    share: usize,
    events: usize,
    bytes: usize,
    /// Everything that the lanes want before this was looked at.
    at: Position,
}

/// Brings the next events of lanes into memory. Gives whether the log could be read.
pub(super) async fn run(shared: &Shared, core: &Core, site: &Site, wanted: Loads) -> bool {
    // Without the partition nobody waits for them any more.
    let Some(key_from) = core.key_from(site) else { return true };
    let lanes = wanted.lanes.into_iter().map(|load| (load.lane, Lane { load, events: Vec::new(), bytes: 0 }));
    let mut pass = Pass {
        shared,
        core,
        site,
        subscription: core.subscription(),
        key_from,
        router: shared.router(&site.partition),
        lanes: lanes.collect(),
        share: wanted.share,
        events: wanted.events,
        bytes: wanted.bytes,
        at: Position::ZERO,
    };
    let outcome = pass.read().await;
    pass.end(outcome.err())
}

impl Pass<'_> {
    async fn read(&mut self) -> Result<()> {
        let keyed = self.lanes.values().filter(|lane| matches!(lane.load.lane, LaneKey::Key(_)));
        if let (Some(router), Some(from)) = (&self.router, keyed.map(|lane| lane.load.from).min()) {
            router.know(self.shared.log.as_ref(), from).await?;
        }
        let id = self.site.partition.log();
        let mut open: Option<Box<dyn Tail>> = None;
        for _ in 0..READS {
            if self.has_no_room() {
                break;
            }
            let Some(next) = self.lanes.values().map(|lane| lane.load.from.max(self.at)).min() else { break };
            let near = |at: Position| at <= next && next.0 - at.0 <= GAP;
            let mut tail = match open.take().filter(|tail| near(tail.position())) {
                Some(tail) => tail,
                None => self.shared.log.tail(&id, next).await?,
            };
            let batch = tail.next(if self.is_alone(next) { 1 } else { READ_BYTES }).await?;
            let whole = batch.records.into_iter().all(|stored| self.take(stored));
            if whole {
                // Where positions have gaps the last one may be that of no record.
                self.at = self.at.max(tail.position());
            }
            self.finish_passed();
            open = Some(tail);
        }
        Ok(())
    }

    fn has_no_room(&self) -> bool {
        self.events == 0 || self.bytes == 0
    }

    /// Whether a single event is wanted there and nothing near behind it.
    fn is_alone(&self, next: Position) -> bool {
        let mut near = self.lanes.values().filter(|lane| lane.load.from.0 <= next.0.saturating_add(GAP));
        near.next().is_some_and(|lane| matches!(lane.load.lane, LaneKey::Single(_))) && near.next().is_none()
    }

    /// Hands a record to whom it is of; false where there is no room for it.
    fn take(&mut self, Stored { position, appended_at, record }: Stored) -> bool {
        if self.has_no_room() {
            return false;
        }
        self.at = position.next();
        let Record::Event(event) = record else { return true };
        let mut key = LaneKey::Single(position);
        if !self.lanes.contains_key(&key) {
            // A key that waits keeps its lane when the subscription gives up the order of keys.
            key = lane_of(Order::Key, self.key_from, position, &event);
        }
        let Some(lane) = self.lanes.get_mut(&key) else { return true };
        if !(lane.load.from..=lane.load.last).contains(&position) {
            return true;
        }
        if let LaneKey::Key(_) = key {
            let Some(router) = &self.router else { return true };
            if router.is_duplicate(position) == Some(true)
                || router.moves(&event)
                || !matches_all(&self.subscription.spec.filters, &event)
            {
                return true;
            }
        }
        let bytes = event.bytes();
        lane.bytes += bytes;
        lane.events.push(Queued::new(position, appended_at, Arc::new(event)));
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        let full = lane.events.len() >= self.share || lane.bytes >= LOAD_BYTES;
        if (full || matches!(key, LaneKey::Single(_)))
            && let Some(lane) = self.lanes.remove(&key)
        {
            self.give(lane);
        }
        true
    }

    /// Gives lanes up whose last event that was seen lies behind.
    fn finish_passed(&mut self) {
        let at = self.at;
        let passed: Vec<LaneKey> =
            self.lanes.values().filter(|lane| lane.load.last < at).map(|lane| lane.load.lane).collect();
        for key in passed {
            if let Some(lane) = self.lanes.remove(&key) {
                self.give(lane);
            }
        }
    }

    /// What comes behind the last event that was seen of a lane is handed in by whoever reads on.
    fn give(&self, Lane { load, events, .. }: Lane) {
        let scanned = self.at.max(load.from).min(load.last.next());
        self.core.loaded(self.site, load.lane, events, scanned);
    }

    /// Gives back what is left. Gives whether there was no fault.
    fn end(mut self, error: Option<Error>) -> bool {
        let left: Vec<Lane> = self.lanes.drain().map(|(_, lane)| lane).collect();
        let (reached, others): (Vec<Lane>, Vec<Lane>) = left.into_iter().partition(|lane| lane.load.from < self.at);
        reached.into_iter().for_each(|lane| self.give(lane));
        let (site, core) = (self.site, self.core);
        let Some(error) = error else {
            others.iter().for_each(|lane| core.not_reached(site, lane.load.lane));
            return true;
        };
        let again = self.shared.environment.clock.unix_milliseconds() + RETRY_DELAY.as_millis() as u64;
        let mut told = false;
        for Lane { load, .. } in others {
            let until = match error.kind() {
                ErrorKind::PositionLost { earliest } if load.from < *earliest => (*earliest).min(load.last.next()),
                ErrorKind::PositionLost { .. } => {
                    core.not_reached(site, load.lane);
                    continue;
                }
                ErrorKind::NotFound => load.last.next(),
                _ => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(subscription = %self.subscription.spec.name, topic = %site.partition.topic, %error,
                            "cannot read; trying again");
                    }
                    core.not_loaded(site, load.lane, again);
                    continue;
                }
            };
            self.lose(load, until, &error);
        }
        false
    }

    /// The event that a lane stands at is gone.
    fn lose(&self, load: Load, until: Position, error: &Error) {
        let partition = &self.site.partition;
        let range = (load.from, load.from.next());
        trimmed(self.shared, self.core, partition, range, "it was trimmed while it waited for its next attempt");
        warn!(subscription = %self.subscription.spec.name, topic = %partition.topic, position = %load.from, %until, %error,
            "an event that waited for a retry was trimmed and is lost to this subscription");
        // How many of its lane were behind it nobody knows any more.
        self.shared.tell_trimmed(self.core, partition, 1);
        // What follows of its lane may still be there.
        self.core.loaded(self.site, load.lane, Vec::new(), until);
    }
}
