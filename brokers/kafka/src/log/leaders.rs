//! What the leaders of partitions answer to a question for offsets, sorted by partition. The one place that tells what passes.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use tidegate_backbone::ErrorKind;
use tidegate_schemas::limits;

use super::ends::Place;
use super::topics::{There, look};
use crate::context::Context;
use crate::error::{code_of, is_retriable, kind_of};

/// What is asked of the broker.
pub(crate) trait Leaders {
    /// Offsets of those partitions. What one of them is refused with, the whole question is refused with.
    fn offsets(&self, places: &[Place], which: Offset) -> std::result::Result<Vec<(Place, Offset)>, KafkaError>;

    /// Whether a topic is there, and who leads its partitions.
    fn look(&self, topic: &str) -> std::result::Result<Option<There>, KafkaError>;
}

impl Leaders for Arc<BaseConsumer<Context>> {
    fn offsets(&self, places: &[Place], which: Offset) -> std::result::Result<Vec<(Place, Offset)>, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (topic, partition) in places {
            list.add_partition_offset(topic, *partition, which)?;
        }
        let list = self.offsets_for_times(list, limits::KAFKA_ASK_TIMEOUT)?;
        self.context().health.up();
        let told = places.iter().filter_map(|place| {
            let element = list.find_partition(&place.0, place.1)?;
            Some(element.error().map(|()| (place.clone(), element.offset())))
        });
        told.collect()
    }

    fn look(&self, topic: &str) -> std::result::Result<Option<There>, KafkaError> {
        look(self, topic)
    }
}

/// What is known of one partition.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// Its leader has answered.
    At(u64),
    /// The broker says that it is not there.
    Gone,
    /// Its leader is not ready, or not known.
    NotYet(KafkaError),
    /// This will not pass by itself.
    Refused(KafkaError),
}

/// Asks for an offset of each partition, once. Where it is known that some have no leader, the broker is asked first who
/// leads: the client would wait for all of them.
pub(crate) fn tell(client: &impl Leaders, places: &[Place], which: Offset, known: bool) -> BTreeMap<Place, Told> {
    let mut told = BTreeMap::new();
    if known {
        for (_, led) in by_leader(client, places, &mut told) {
            ask(client, &led, which, true, &mut told);
        }
    } else {
        ask(client, places, which, false, &mut told);
    }
    told
}

fn ask(client: &impl Leaders, places: &[Place], which: Offset, of_one_leader: bool, told: &mut BTreeMap<Place, Told>) {
    if places.is_empty() {
        return;
    }
    let error = match client.offsets(places, which) {
        Ok(answers) => {
            for (place, offset) in answers {
                let offset = match offset {
                    Offset::Offset(offset) => u64::try_from(offset).unwrap_or_default(),
                    // No record is of that time.
                    Offset::End if matches!(which, Offset::Offset(_)) => u64::MAX,
                    _ => continue,
                };
                told.insert(place, Told::At(offset));
            }
            // The client knows of no leader for these, or of no such partition.
            let left: Vec<Place> = places.iter().filter(|place| !told.contains_key(*place)).cloned().collect();
            for place in by_leader(client, &left, told).into_values().flatten() {
                told.insert(place, Told::NotYet(KafkaError::OffsetFetch(Code::LeaderNotAvailable)));
            }
            return;
        }
        Err(error) => error,
    };
    let code = code_of(&error);
    // Which leaders do not answer is not told: each is asked by itself.
    let silent = code.is_some_and(is_silence);
    if silent && !of_one_leader {
        let leaders = by_leader(client, places, told);
        let all_led = leaders.values().map(Vec::len).sum::<usize>() == places.len();
        if leaders.len() != 1 || !all_led {
            for led in leaders.into_values() {
                ask(client, &led, which, true, told);
            }
            return;
        }
    }
    // Nor which partition was refused. Halves find it soon.
    if !silent && places.len() > 1 {
        let (some, others) = places.split_at(places.len() / 2);
        ask(client, some, which, of_one_leader, told);
        ask(client, others, which, of_one_leader, told);
        return;
    }
    for place in places {
        let passes = match code {
            // The broker has the last word on what is gone, and the client hears of new leaders by the same question.
            Some(code) if is_retriable(code) || kind_of(code) == ErrorKind::NotFound => {
                by_leader(client, std::slice::from_ref(place), told);
                true
            }
            _ => false,
        };
        told.entry(place.clone())
            .or_insert_with(|| if passes { Told::NotYet(error.clone()) } else { Told::Refused(error.clone()) });
    }
}

/// Whether nobody answered.
fn is_silence(code: Code) -> bool {
    matches!(
        code,
        Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::BrokerTransportFailure
            | Code::NetworkException
            | Code::AllBrokersDown
    )
}

/// Partitions by their leaders, as the broker names them. Of those that are gone, or have no leader, it is told.
fn by_leader(client: &impl Leaders, places: &[Place], told: &mut BTreeMap<Place, Told>) -> BTreeMap<i32, Vec<Place>> {
    let mut topics: BTreeMap<&str, Option<There>> = BTreeMap::new();
    let mut leaders: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
    for (at, place) in places.iter().enumerate() {
        if !topics.contains_key(&*place.0) {
            let there = match client.look(&place.0) {
                Ok(there) => there,
                // A broker that does not answer is not asked for every topic.
                Err(error) if code_of(&error).is_none_or(is_silence) => {
                    for place in &places[at..] {
                        told.insert(place.clone(), Told::Refused(error.clone()));
                    }
                    return leaders;
                }
                Err(error) => {
                    let passes = code_of(&error).is_some_and(is_retriable);
                    told.insert(place.clone(), if passes { Told::NotYet(error) } else { Told::Refused(error) });
                    continue;
                }
            };
            topics.insert(&place.0, there);
        }
        let there = topics.get(&*place.0).and_then(Option::as_ref);
        let leader = there.and_then(|there| there.leaders.get(usize::try_from(place.1).ok()?));
        match leader {
            None => {
                told.insert(place.clone(), Told::Gone);
            }
            Some(leader) if *leader < 0 => {
                told.insert(place.clone(), Told::NotYet(KafkaError::OffsetFetch(Code::LeaderNotAvailable)));
            }
            Some(leader) => leaders.entry(*leader).or_default().push(place.clone()),
        }
    }
    leaders
}
