//! How a subscription stands in its partitions, for checkpoints and for whoever asks.

use std::sync::Arc;

use tidegate_routing::breaker;
use tidegate_routing::partition::KeyFrom;

use super::entries::Entry;
use super::{Core, Feed, Partition};
use crate::consume::marks::Marked;
use crate::consume::owned::Owned;
use crate::consume::progress::{Checkpoint, LaneKey};
use crate::log::Position;

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

impl Entry {
    /// How far its subscription has come, where the partition is routed up to `routed`.
    fn read(&self, routed: Position) -> Position {
        match self.feed {
            Feed::Own(position) => position,
            Feed::Router(from) => from.max(routed),
        }
    }
}

impl Core {
    /// How far it has read a partition that is routed up to `routed`; nothing where it does not read it.
    pub(crate) fn read_of(&self, partition: &Partition, routed: Position) -> Option<Position> {
        let state = self.state.lock();
        let entry = state.entries.get(partition).filter(|entry| !entry.redrive_only)?;
        Some(match entry.feed {
            Feed::Own(position) => entry.progress.read(position),
            Feed::Router(_) => entry.read(routed),
        })
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
            let read = entry.progress.read(entry.read(routed));
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
            return state.entries.iter().filter(belongs).map(standing).collect();
        }
        marked.partitions().filter_map(|partition| state.entries.get(partition)).filter(belongs).map(standing).collect()
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
        for entry in state.entries.iter() {
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
        let lanes = state.entries.iter().flat_map(|entry| {
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

    /// Dead letters that were sent again and are not settled.
    pub(crate) fn redriving(&self) -> usize {
        let state = self.state.lock();
        state.entries.iter().filter(|entry| entry.redrive_only).map(|entry| entry.progress.depth().1).sum()
    }

    /// The partitions that are its own to read, with where it is in them.
    pub(crate) fn behind(&self) -> Vec<(Partition, Position)> {
        let state = self.state.lock();
        let own = state.entries.own().into_iter().filter_map(|place| state.entries.at(place));
        own.filter_map(|entry| Some((entry.partition.clone(), entry.reads_from()?))).collect()
    }

    /// Each partition that it reads, with the first position that is not settled. `routed` says how far a partition was
    /// routed.
    pub(crate) fn oldest(&self, routed: impl Fn(&Partition) -> Position) -> Vec<(Partition, Position)> {
        let state = self.state.lock();
        let reads = state.entries.iter().filter(|entry| !entry.redrive_only);
        reads
            .map(|entry| {
                // How far it was routed counts for those alone whose reader does not say it.
                let read = match entry.feed {
                    Feed::Own(position) => position,
                    Feed::Router(_) => entry.read(routed(&entry.partition)),
                };
                let oldest = entry.progress.oldest().map_or(read, |oldest| oldest.min(read));
                (entry.partition.clone(), oldest)
            })
            .collect()
    }
}
