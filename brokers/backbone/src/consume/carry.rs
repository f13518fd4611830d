//! How far delivery has come, taken out of the slots of one backbone and written into those of another: the partitions are
//! spread anew over the slots, and every position becomes that of the same event there.
//!
//! What is read is what the next owner of each slot would begin with (`checkpoint`), and so is what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tidegate_routing::TopicName;

pub(crate) use super::checkpoint::start_entries;
use super::checkpoint::{self, Begun, Draft, Handled, Loaded, Starts};
use super::core::{Partition, Standing};
use super::progress::{LaneKey, Parked};
use crate::catalogue::View;
use crate::error::{Error, ErrorKind, Result};
use crate::log::Position;
use crate::queues::bound;
use crate::slot::placement::{delivery_slots, slot_of};
use crate::slot::{Command, CommitError, Expect, SlotHandle};

/// What slots hold that is carried, by the beginning of its keys: the catalogue by its own reader, progress by this module; and
/// what every backbone has for itself.
const KNOWN: [&str; 6] = ["catalogue/", "delivery/", "cluster/", "passports/", "migration/", bound::PREFIX];

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
    /// By which keys the queues of readers are bound, by the readers' names: they are on brokers that stay where they are.
    bound: BTreeMap<String, Bytes>,
    /// What was left out because its topic keeps it no longer.
    pub(crate) trimmed: u64,
}

/// Takes out of all slots, in the order of their numbers, what they hold of the topics and subscriptions of a catalogue.
///
/// # Errors
/// [`ErrorKind::DataLoss`] where an entry cannot be read; [`ErrorKind::Misconfigured`] where a slot holds what is not known
/// here, and would be left behind.
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
    let mut readers = BTreeMap::new();
    for slot in slots {
        let is_known = |key: &Bytes| KNOWN.iter().any(|prefix| key.starts_with(prefix.as_bytes()));
        if let Some((key, _, _)) = slot.scan(b"").into_iter().find(|(key, _, _)| !is_known(key)) {
            let context = format!(
                "slot {} holds {}, which this version cannot take along; a newer one may have written it",
                slot.slot(),
                String::from_utf8_lossy(&key)
            );
            return Err(Error::new(ErrorKind::Misconfigured, context));
        }
        asked.extend(checkpoint::places(slot.as_ref())?);
        readers.extend(
            slot.scan(bound::PREFIX.as_bytes())
                .into_iter()
                .map(|(key, _, value)| (String::from_utf8_lossy(&key[bound::PREFIX.len()..]).into_owned(), value)),
        );
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
    Ok(Carried { places, starts: begun, bound: readers, trimmed: 0 })
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
            for (reader, value) in
                self.bound.iter().filter(|(reader, _)| bound::slot_of_reader(reader, count) == number)
            {
                let key = format!("{}{reader}", bound::PREFIX);
                slot.commit(Command::new().put(key, Expect::Any, value.clone())).await?;
            }
            draft.followed(revision);
            checkpoint::commit(slot, &draft).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::log::PartitionLog;
    use crate::slot::{Journal, Options};
    use crate::testing::{MemoryBroker, environment};

    /// A backbone of one slot.
    async fn backbone(seed: u64) -> (Arc<Catalogue>, Vec<Arc<dyn SlotHandle>>) {
        let log: Arc<dyn PartitionLog> = MemoryBroker::default().client();
        let environment = environment(seed);
        let journal = Journal::open(Arc::clone(&log), 0, environment.clone(), Options::default()).await.unwrap();
        let slot: Arc<dyn SlotHandle> = Arc::new(journal);
        let catalogue = Catalogue::open(log, Arc::clone(&slot), &environment).await.unwrap();
        (catalogue, vec![slot])
    }

    async fn put(slot: &Arc<dyn SlotHandle>, entries: &[(&str, &str)]) {
        for (key, value) in entries {
            let command = Command::new().put((*key).to_owned(), Expect::Any, (*value).to_owned());
            slot.commit(command).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn everything_that_is_known_of_a_partition_is_written_with_its_positions_there() {
        use super::super::tests::{subscription, topic};
        let (catalogue, slots) = backbone(1).await;
        catalogue.create_topic(topic("orders", 2), 0, Command::new()).await.unwrap();
        catalogue.create_topic(topic("gone", 1), 0, Command::new()).await.unwrap();
        let entry = crate::catalogue::Subscription::new(7, subscription("copy", "orders"));
        catalogue.put_subscription(entry, Expect::Absent, Command::new()).await.unwrap();
        let uid = "0000000000000007";
        put(
            &slots[0],
            &[
                (&format!("delivery/starts/{uid}/orders"), r#"{"v":1,"positions":[5,6]}"#),
                ("delivery/routed/orders/0", r#"{"v":1,"position":30}"#),
                ("delivery/routed/orders/1", r#"{"v":1,"position":40}"#),
                (&format!("delivery/exception/{uid}/orders/0"), r#"{"v":1,"read":20,"open":[[10,12],[15,15]]}"#),
                (&format!("delivery/parked/{uid}/orders/0/s12"), r#"{"v":1,"head":12,"attempts":2,"first":1,"due":9}"#),
                (
                    &format!("delivery/parked/{uid}/orders/0/k{:032x}", 99),
                    r#"{"v":1,"head":15,"attempts":1,"first":1,"due":9,"paused":true}"#,
                ),
                (&format!("delivery/dead/{uid}/orders/1"), r#"{"v":1,"handled":[[3,4],[8,8]]}"#),
                ("delivery/exception/00000000000000ff/orders/0", r#"{"v":1,"read":1,"open":[]}"#),
                ("delivery/catalogue", r#"{"v":1,"revision":1000}"#),
                ("bindings/bound/in", r#"{"v":1,"broker":"legacy","bound":[]}"#),
            ],
        )
        .await;
        let view = catalogue.view().clone();
        let mut carried = gather(&slots, &view).unwrap();
        let spoken: BTreeMap<String, Vec<u64>> = carried
            .positions()
            .into_iter()
            .map(|(partition, some)| {
                (partition.number.to_string(), some.into_iter().map(|position| position.0).collect())
            })
            .collect();
        assert_eq!(spoken["0"], [5, 10, 11, 12, 15, 20, 30]);
        assert_eq!(spoken["1"], [3, 4, 6, 8, 40]);
        // Everything is a hundred further there, and what stood at 11 is kept no longer.
        carried.translate(&|_, position| Some(Found { position: Position(position.0 + 100), exact: position.0 != 11 }));
        assert_eq!(carried.trimmed, 1);

        let (other, there) = backbone(2).await;
        carried.write(&there, &view, 77).await.unwrap();
        let starts: Vec<(Bytes, Bytes)> = carried.starts().collect();
        assert_eq!(starts[0].1, r#"{"v":1,"positions":[105,106]}"#.as_bytes());
        let text = |key: &str| {
            let head = there[0].get(key.as_bytes()).unwrap_or_else(|| panic!("{key} is missing"));
            String::from_utf8(head.value.to_vec()).unwrap()
        };
        assert_eq!(text("delivery/routed/orders/0"), r#"{"v":1,"position":130}"#);
        assert_eq!(text("delivery/routed/orders/1"), r#"{"v":1,"position":140}"#);
        assert_eq!(
            text(&format!("delivery/exception/{uid}/orders/0")),
            r#"{"v":1,"read":120,"open":[[110,110],[112,112],[115,115]]}"#
        );
        assert_eq!(
            text(&format!("delivery/parked/{uid}/orders/0/s112")),
            r#"{"v":1,"head":112,"attempts":2,"first":1,"due":9}"#
        );
        assert!(text(&format!("delivery/parked/{uid}/orders/0/k{:032x}", 99)).contains(r#""head":115"#));
        assert_eq!(text(&format!("delivery/dead/{uid}/orders/1")), r#"{"v":1,"handled":[[103,104],[108,108]]}"#);
        assert_eq!(text("delivery/catalogue"), r#"{"v":1,"revision":77}"#);
        assert_eq!(text("bindings/bound/in"), r#"{"v":1,"broker":"legacy","bound":[]}"#);
        assert_eq!(there[0].scan(b"delivery/exception/").len(), 1, "nobody wants what a gone subscription had");
        // A second attempt leaves nothing of the first.
        put(&slots[0], &[(&format!("delivery/exception/{uid}/orders/0"), r#"{"v":1,"read":20,"open":[]}"#)]).await;
        let key = format!("delivery/parked/{uid}/orders/0/s12");
        slots[0].commit(Command::new().delete(key, Expect::Any)).await.unwrap();
        gather(&slots, &view).unwrap().write(&there, &view, 78).await.unwrap();
        assert_eq!(there[0].scan(b"delivery/parked/").len(), 1);
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_known_is_not_left_behind_in_silence() {
        let (catalogue, slots) = backbone(1).await;
        put(&slots[0], &[("state/orders/1", "{}")]).await;
        let error = gather(&slots, &catalogue.view()).unwrap_err();
        assert!(error.to_string().contains("slot 0 holds state/orders/1"), "{error}");
    }
}
