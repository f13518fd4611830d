//! How far delivery has come, taken out of the slots of one backbone and written into those of another: the partitions are
//! spread anew over the slots, and every position becomes that of the same event there.
//!
//! What is read is what the next owner of each slot would begin with (`checkpoint`), and so is what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tidegate_routing::TopicName;

use super::checkpoint::{self, Begun, Draft, Handled, Loaded, Starts};
use super::core::{Partition, Standing};
use super::progress::{LaneKey, Parked};
use crate::catalogue::View;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Position;
use crate::slot::placement::{delivery_slots, slot_of};
use crate::slot::{Command, CommitError, SlotHandle};

/// Where an event is on the other backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The first event there that is not before the one that was asked for.
    pub(crate) position: Position,
    /// Whether it is that one; otherwise its topic keeps it no longer.
    pub(crate) exact: bool,
}

/// What delivery knows of one partition.
#[derive(Debug, Default)]
struct Place {
    routed: Option<Position>,
    standings: BTreeMap<u64, Loaded>,
    handled: BTreeMap<u64, Handled>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Carried {
    places: BTreeMap<Partition, Place>,
    /// Where each subscription began in each topic, by the keys of slot 0.
    starts: BTreeMap<Bytes, (TopicName, Begun)>,
    /// What was left out because its topic keeps it no longer.
    pub(crate) trimmed: u64,
}

/// Takes out of all slots, in the order of their numbers, what they hold of the topics and subscriptions of a catalogue.
///
/// # Errors
/// [`ErrorKind::DataLoss`] where an entry cannot be read.
pub(crate) fn gather(slots: &[Arc<dyn SlotHandle>], view: &View) -> Result<Carried> {
    let slot0 =
        slots.first().ok_or_else(|| Error::new(ErrorKind::Misconfigured, "a backbone has at least one slot"))?;
    let starts = Starts { slot0: slot0.as_ref(), only_slot: slots.len() == 1 };
    let alive: BTreeSet<u64> = view.subscriptions.values().map(|subscription| subscription.uid).collect();
    let slot_for = |partition: &Partition| {
        // As many as there were numbers for them.
        slots[slot_of(partition.topic.as_str(), partition.number, slots.len() as u32) as usize].as_ref()
    };
    let mut asked: BTreeSet<(u64, Partition)> = BTreeSet::new();
    for slot in slots {
        asked.extend(checkpoint::places(slot.as_ref())?);
    }
    let mut begun = BTreeMap::new();
    for (key, uid, topic, start) in checkpoint::starts(slot0.as_ref())? {
        let Some(entry) = view.topics.get(topic.as_byte_string()).filter(|_| alive.contains(&uid)) else { continue };
        asked.extend((0..entry.spec.partitions).map(|number| (uid, Partition { topic: topic.clone(), number })));
        begun.insert(key, (topic, start));
    }
    let mut places: BTreeMap<Partition, Place> = BTreeMap::new();
    for topic in view.topics.values() {
        for number in 0..topic.spec.partitions {
            let partition = Partition { topic: topic.spec.name.clone(), number };
            let routed = checkpoint::routed(slot_for(&partition), &partition)?;
            places.insert(partition, Place { routed, ..Place::default() });
        }
    }
    for (uid, partition) in asked {
        // What is kept of a topic or a subscription that is gone is of no use to anybody.
        let Some(place) = places.get_mut(&partition).filter(|_| alive.contains(&uid)) else { continue };
        let slot = slot_for(&partition);
        place.standings.insert(uid, checkpoint::load(slot, starts, uid, &partition)?);
        let handled = checkpoint::handled(slot, uid, &partition)?;
        if !handled.is_empty() {
            place.handled.insert(uid, handled);
        }
    }
    Ok(Carried { places, starts: begun, trimmed: 0 })
}

/// What slot 0 says already of where subscriptions began.
pub(crate) fn starts_of(slot0: &dyn SlotHandle) -> Vec<(Bytes, Bytes)> {
    checkpoint::start_entries(slot0)
}

impl Carried {
    /// Every position that is spoken of, by partition.
    pub(crate) fn positions(&self) -> BTreeMap<Partition, BTreeSet<Position>> {
        let mut all: BTreeMap<Partition, BTreeSet<Position>> = BTreeMap::new();
        for (partition, place) in &self.places {
            let positions = all.entry(partition.clone()).or_default();
            positions.extend(place.routed);
            for standing in place.standings.values() {
                positions.extend(standing.read);
                positions.extend(&standing.progress.open);
                for parked in &standing.progress.parked {
                    positions.insert(parked.head);
                    if let LaneKey::Single(position) = parked.lane {
                        positions.insert(position);
                    }
                }
            }
            for handled in place.handled.values() {
                positions.extend(handled.ends());
            }
        }
        for (topic, begun) in self.starts.values() {
            for (number, position) in begun.positions() {
                all.entry(Partition { topic: topic.clone(), number }).or_default().insert(position);
            }
        }
        all.retain(|_, positions| !positions.is_empty());
        all
    }

    /// Puts the positions of the other backbone in place of these, of partitions for which `found` knows them.
    pub(crate) fn translate(&mut self, found: &impl Fn(&Partition, Position) -> Option<Found>) {
        let mut trimmed = 0;
        for (partition, place) in &mut self.places {
            let at = |position: Position| found(partition, position).map_or(position, |found| found.position);
            let is_there = |position: Position| found(partition, position).is_none_or(|found| found.exact);
            place.routed = place.routed.map(at);
            for standing in place.standings.values_mut() {
                standing.read = standing.read.map(at);
                let open = std::mem::take(&mut standing.progress.open);
                let (kept, lost): (Vec<Position>, Vec<Position>) = open.into_iter().partition(|open| is_there(*open));
                trimmed += lost.len() as u64;
                standing.progress.open = kept.into_iter().map(at).collect();
                let parked = std::mem::take(&mut standing.progress.parked);
                standing.progress.parked = parked
                    .into_iter()
                    .filter_map(|parked| match parked.lane {
                        LaneKey::Single(position) if !is_there(position) => {
                            trimmed += 1;
                            None
                        }
                        LaneKey::Single(position) => {
                            Some(Parked { lane: LaneKey::Single(at(position)), head: at(parked.head), ..parked })
                        }
                        LaneKey::Key(_) => Some(Parked { head: at(parked.head), ..parked }),
                    })
                    .collect();
            }
            for handled in place.handled.values_mut() {
                handled.translate(at);
            }
        }
        for (topic, begun) in self.starts.values_mut() {
            begun.translate(|number, position| {
                let partition = Partition { topic: topic.clone(), number };
                found(&partition, position).map_or(position, |found| found.position)
            });
        }
        self.trimmed += trimmed;
    }

    /// What slot 0 is to hold of it besides the catalogue.
    pub(crate) fn starts(&self) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
        self.starts.iter().map(|(key, (_, begun))| (key.clone(), crate::catalogue::write(begun)))
    }

    /// Writes it into the slots of the other backbone, whose catalogue has the topics and subscriptions of `view` up to a
    /// revision. What an earlier attempt left there goes.
    pub(crate) async fn write(
        &self,
        slots: &[Arc<dyn SlotHandle>],
        view: &View,
        revision: u64,
    ) -> std::result::Result<(), CommitError> {
        // As many as there were numbers for them.
        let count = slots.len() as u32;
        for number in delivery_slots(count) {
            let slot = slots[number as usize].as_ref();
            let mut draft = Draft::new(true, view.subscriptions.values().map(|subscription| subscription.uid));
            let mut handled = Command::new();
            let here = |partition: &&Partition| slot_of(partition.topic.as_str(), partition.number, count) == number;
            for partition in self.places.keys().filter(here) {
                let place = &self.places[partition];
                if let Some(routed) = place.routed {
                    draft.routed(partition, routed);
                }
                for (uid, Loaded { read, first, progress }) in &place.standings {
                    let standing = Standing {
                        partition: partition.clone(),
                        read: *read,
                        first: *first,
                        routed: place.routed.unwrap_or_default(),
                        progress: progress.clone(),
                    };
                    draft.subscription(*uid, &standing);
                }
                for (uid, some) in &place.handled {
                    handled = checkpoint::put_handled(handled, *uid, partition, some);
                }
                let topic = view.topics.get(partition.topic.as_byte_string()).filter(|_| count > 1);
                if let Some(topic) = topic.filter(|_| place.routed.is_some() || !place.standings.is_empty()) {
                    draft.incarnation((partition.topic.as_str(), topic.uid));
                }
            }
            for some in checkpoint::split(handled) {
                slot.commit(some).await?;
            }
            draft.followed(revision);
            checkpoint::commit(slot, &draft).await?;
        }
        Ok(())
    }
}
