//! What one owner knows of an event, as it is told to whoever puts a passport together.

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tidegate_schemas::Event;

use crate::consume::checkpoint;
use crate::consume::core::{Feed, Partition};
use crate::consume::dead_letter::Cause;
use crate::consume::engine::{Consume, Standing};
use crate::consume::others::maybe_event_text;
use crate::consume::outcomes::Outcome;
use crate::consume::progress::Whereabouts;
use crate::error::Result;
use crate::log::Position;

/// Everything that one owner knows of the events of an id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::consume) struct Gathered {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) places: Vec<Sighted>,
    pub(super) complete: bool,
    pub(super) more: bool,
}

/// An event in a partition of that owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sighted {
    pub(super) source: ByteString,
    pub(super) topic: ByteString,
    pub(super) partition: u32,
    pub(super) position: Position,
    pub(super) appended_at: Option<u64>,
    #[serde(with = "maybe_event_text")]
    pub(super) event: Option<Event>,
    pub(super) dead_letter: Option<Cause>,
    /// How long ago a repeat may be, in milliseconds.
    pub(super) window: u64,
    /// Whether its router has found it to be a repeat, where that is still known.
    pub(super) duplicate: Option<bool>,
    /// It went to the topic of records that are no events instead of to subscriptions.
    pub(super) moved: bool,
    /// Subscriptions that read the partition, by uid.
    pub(super) sights: Vec<(u64, Sight)>,
}

/// How the event stands with one subscription.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sight {
    /// Where it is, if it was handed in and is not settled.
    pub(super) whereabouts: Option<Whereabouts>,
    /// How far the subscription has read.
    pub(super) read: Position,
    /// A dead letter that was redriven or dropped.
    pub(super) handled: bool,
    /// How the subscription stands at that owner.
    pub(super) standing: Option<Standing>,
}

impl Consume {
    /// Adds to a place what is known here of its partition and of each subscription that reads it.
    pub(super) fn sight(&self, partition: &Partition, place: &mut Sighted) -> Result<()> {
        let router = self.shared.router(partition);
        let topic = self.shared.catalogue.topic(&place.topic);
        let window = match (&router, topic) {
            (Some(router), _) => router.window(),
            (None, Some(topic)) => topic.spec.dedupe_window,
            (None, None) => std::time::Duration::ZERO,
        };
        place.window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let routed = router.as_ref().map_or(Position::ZERO, |router| router.peek());
        if let Some(router) = &router {
            place.duplicate = router.is_duplicate(place.position).filter(|_| place.position < routed);
            place.moved = place.event.as_ref().is_some_and(|event| router.moves(event));
        }
        let handled = match (self.shared.owned_of(partition), &place.dead_letter) {
            (Some(owned), Some(cause)) => match self.shared.catalogue.subscription(&cause.subscription) {
                Some(subscription) => {
                    let handled = checkpoint::handled(&owned.journal, subscription.uid, partition)?;
                    Some((subscription.uid, handled.contains(place.position)))
                }
                None => None,
            },
            _ => None,
        };
        let cores: Vec<_> = self.shared.cores.lock().values().cloned().collect();
        for core in cores {
            let found = core.find(partition, place.position, place.event.as_ref());
            let handled = handled.is_some_and(|(uid, handled)| uid == core.uid && handled);
            if found.is_none() && !handled {
                continue;
            }
            let read = match found.as_ref().map(|found| found.feed) {
                Some(Feed::Own(read)) => read,
                Some(Feed::Router(from)) => from.max(routed),
                None => Position::ZERO,
            };
            let standing = self.status(core.uid).map(|status| status.standing);
            let whereabouts = found.and_then(|found| found.whereabouts);
            place.sights.push((core.uid, Sight { whereabouts, read, handled, standing }));
        }
        Ok(())
    }
}
