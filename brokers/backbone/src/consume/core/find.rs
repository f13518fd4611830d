//! How one event stands with one subscription, for whoever asks after it.

use tidegate_schemas::Event;

use super::{Core, Feed, Order, Partition, lane_of};
use crate::consume::progress::{LaneKey, Whereabouts};
use crate::log::Position;

/// How an event stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it is, if it was handed in and is not settled.
    pub(crate) whereabouts: Option<Whereabouts>,
    /// Where the events of its partition come from.
    pub(crate) feed: Feed,
}

impl Core {
    /// How the event at that place stands; nothing where the subscription does not read that partition.
    pub(crate) fn find(&self, partition: &Partition, position: Position, event: Option<&Event>) -> Option<Found> {
        let state = self.state.lock();
        let entry = state.entries.get(partition)?;
        // A lane keeps its kind when the subscription changes its order, so both are asked.
        let of_key = event.map(|event| lane_of(Order::Key, entry.key_from, position, event));
        let lanes = of_key.into_iter().chain([LaneKey::Single(position)]);
        let whereabouts = lanes.filter_map(|lane| entry.progress.find(lane, position)).next();
        Some(Found { whereabouts, feed: entry.feed })
    }
}
