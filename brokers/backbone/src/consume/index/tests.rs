//! The index against a log in memory: everything is found, whoever told of it, after a kill, and until it is trimmed.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_routing::TopicName;
use tidegate_schemas::Event;

use super::*;
use crate::catalogue::{Origin, TopicSpec};
use crate::consume::outcomes::{Ending, encode};
use crate::environment::Clock;
use crate::slot;
use crate::testing::{MemoryBroker, SeededRandom};

const RUN: usize = 500;

/// Long ago, so that nothing in a log is older than passports are kept.
#[derive(Debug)]
struct Early;

impl Clock for Early {
    fn unix_milliseconds(&self) -> u64 {
        1_000
    }

    fn since_boot(&self) -> Duration {
        Duration::ZERO
    }
}

/// An index over a broker, as a process opens it.
async fn open(broker: &MemoryBroker, seed: u64) -> Index {
    let log: Arc<dyn PartitionLog> = broker.client();
    let environment = Environment::new(Arc::new(Early), Arc::new(SeededRandom::new(seed)));
    let options = slot::Options::default();
    let journal = Journal::open(Arc::clone(&log), 0, environment.clone(), options).await.unwrap();
    let catalogue = Catalogue::open(Arc::clone(&log), Arc::new(journal.clone()), &environment).await.unwrap();
    let id = LogId::Outcomes { slot: 0 };
    log.create(crate::LogSpec::from(id)).await.unwrap();
    Index { run_entries: RUN, ..Index::new(log, journal, catalogue, 1, environment) }
}

fn event(id: &str) -> Event {
    Event::builder(id.to_owned(), "/s", "t").build().unwrap()
}

async fn topic(index: &Index, name: &str, created_at: u64) -> Partition {
    let topic = TopicName::parse(name.to_owned()).unwrap();
    let spec = TopicSpec::new(topic.clone(), 1, Origin::Api);
    index.catalogue.create_topic(spec, created_at, crate::slot::Command::new()).await.unwrap();
    Partition { topic, number: 0 }
}

async fn append(index: &Index, partition: &Partition, ids: std::ops::Range<usize>) {
    for id in ids {
        index.log.append(&partition.log(), Record::Event(event(&id.to_string()))).await.unwrap();
    }
}

/// Where the index says that an event stands; everything that it finds besides would be another event of the same hash.
async fn places(index: &Index, id: usize) -> (BTreeSet<(String, u64)>, bool) {
    let found = index.search(&id.to_string(), Some("/s")).await;
    assert_eq!(found.events, index.search(&id.to_string(), None).await.events);
    let places = found.events.iter().map(|(partition, position)| (partition.topic.to_string(), position.0));
    (places.collect(), found.complete)
}

fn at(places: &[(&str, usize)]) -> BTreeSet<(String, u64)> {
    places.iter().map(|(topic, position)| ((*topic).to_owned(), *position as u64)).collect()
}

#[tokio::test]
async fn events_are_found_whoever_told_of_them_and_after_a_kill() {
    let broker = MemoryBroker::default();
    let index = open(&broker, 1).await;
    let (routed, unread) = (topic(&index, "routed", 5).await, topic(&index, "unread", 6).await);
    append(&index, &routed, 0..3_000).await;
    append(&index, &unread, 2_000..4_200).await;
    // A router of this process began in the middle, and tells of what it reads.
    let number = index.number(&routed, 5);
    for from in (1_000..3_000).step_by(250) {
        let events = (from..from + 250).map(|id| (Hash::of("/s", &id.to_string()), Position(id as u64)));
        index.note(number, (Position(from as u64), Position(from as u64 + 250)), events, 1);
        if from == 1_500 {
            assert!(!places(&index, 1).await.1, "an index that was not filled says so");
            index.fill().await.unwrap();
        }
    }
    index.fill().await.unwrap();
    let (held, runs) = index.sizes();
    assert!(held < RUN && runs >= 3, "{held} entries in memory, {runs} runs");
    let check = async |index: &Index| {
        for (id, expected) in
            [(0, at(&[("routed", 0)])), (999, at(&[("routed", 999)])), (1_000, at(&[("routed", 1_000)]))]
                .into_iter()
                .chain([(2_999, at(&[("routed", 2_999), ("unread", 999)])), (4_199, at(&[("unread", 2_199)]))])
                .chain([(4_200, at(&[]))])
        {
            assert_eq!(places(index, id).await, (expected, true), "{id}");
        }
    };
    check(&index).await;
    drop(index);

    // Killed: what was in memory is read again, and what came meanwhile is read at all.
    let index = open(&broker, 2).await;
    append(&index, &unread, 4_200..4_300).await;
    assert!(!places(&index, 4_250).await.1);
    index.fill().await.unwrap();
    let (held, runs_now) = index.sizes();
    assert!(runs_now >= runs && held < 2 * RUN, "{held} entries were read again");
    assert_eq!(places(&index, 4_250).await, (at(&[("unread", 2_250)]), true));
    assert_eq!(places(&index, 2_100).await, (at(&[("routed", 2_100), ("unread", 100)]), true));
    assert_eq!(places(&index, 4_299).await, (at(&[("unread", 2_299)]), true));
}

#[tokio::test]
async fn a_topic_of_the_same_name_that_came_later_is_another() {
    let broker = MemoryBroker::default();
    let index = open(&broker, 1).await;
    let old = topic(&index, "t", 5).await;
    append(&index, &old, 0..1_200).await;
    index.fill().await.unwrap();
    assert_eq!(places(&index, 7).await.0, at(&[("t", 7)]));
    index.catalogue.delete_topic(&old.topic, crate::slot::Command::new()).await.unwrap();
    let new = topic(&index, "t", 9).await;
    append(&index, &new, 5_000..5_010).await;
    index.fill().await.unwrap();
    for index in [index, open(&broker, 2).await] {
        index.fill().await.unwrap();
        assert_eq!(places(&index, 7).await, (at(&[]), true));
        assert_eq!(places(&index, 5_003).await, (at(&[("t", 3)]), true), "the new one is read from its start");
    }
}

#[tokio::test]
async fn frames_of_outcomes_are_found_and_trimmed_with_their_runs() {
    let broker = MemoryBroker::default();
    let index = open(&broker, 1).await;
    let outcomes = |from: usize| -> Vec<Outcome> {
        (from..from + 100)
            .map(|id| Outcome {
                epoch: 1,
                at: 1,
                took: 1,
                subscription: "s".into(),
                uid: Some(1),
                topic: "t".into(),
                partition: 0,
                position: id as u64,
                source: "/s".into(),
                id: id.to_string(),
                attempt: 1,
                ending: Ending::Done,
                status: Some(204),
                detail: String::new(),
            })
            .collect()
    };
    index.fill().await.unwrap();
    let mut frames = Vec::new();
    for from in (0..2_000).step_by(100) {
        let some = outcomes(from);
        let appended = index.log.append(&index.outcomes, Record::Frame(encode(&some))).await.unwrap();
        // Every third is not told, as if the answer of the broker had been lost.
        let told = appended.position.filter(|_| from % 300 != 0);
        index.note_outcomes(told, &some, 1);
        frames.push(appended.position.unwrap());
        index.fill().await.unwrap();
    }
    let find = async |index: &Index, id: usize| index.search(&id.to_string(), Some("/s")).await;
    for id in [0, 99, 100, 350, 1_999] {
        let found = find(&index, id).await;
        assert_eq!((found.frames, found.complete), (vec![frames[id / 100]], true), "{id}");
    }
    let (_, runs) = index.sizes();
    assert!(runs >= 3, "{runs}");

    // By age, the older half goes; what is left is found, what is gone is not, and nothing is amiss.
    let half = frames[12];
    index.log.trim(&index.outcomes, half).await.unwrap();
    for index in [index, open(&broker, 2).await] {
        index.fill().await.unwrap();
        for (id, there) in [(1_250, true), (1_999, true), (3, false)] {
            let found = find(&index, id).await;
            assert_eq!((found.frames.contains(&frames[id / 100]), found.complete), (there, true), "{id}");
        }
    }
}

#[tokio::test]
async fn a_run_that_cannot_be_written_is_written_later_and_memory_stays_bounded() {
    let broker = MemoryBroker::default();
    let index = open(&broker, 1).await;
    let partition = topic(&index, "t", 5).await;
    append(&index, &partition, 0..5_000).await;
    drop(index);
    let refusing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let script = Arc::clone(&refusing);
    let log: Arc<dyn PartitionLog> = broker.faulty(move |id, _| {
        let refuse = matches!(id, LogId::Outcomes { .. }) && script.load(std::sync::atomic::Ordering::SeqCst);
        if refuse { crate::testing::Fault::Refused } else { crate::testing::Fault::None }
    });
    let index = Index { log, ..open(&broker, 2).await };
    let number = index.number(&partition, 5);
    for from in (0..5_000).step_by(100) {
        let events = (from..from + 100).map(|id| (Hash::of("/s", &id.to_string()), Position(id as u64)));
        index.note(number, (Position(from as u64), Position(from as u64 + 100)), events, 1);
    }
    assert!(index.sizes().0 <= 2 * RUN + 100, "{:?}", index.sizes());
    for _ in 0..3 {
        assert!(index.fill().await.is_err());
    }
    // Given up in the middle, as a question does that has waited long enough.
    index.begin_run();
    refusing.store(false, std::sync::atomic::Ordering::SeqCst);
    index.fill().await.unwrap();
    for id in [0, 600, 2_500, 4_999] {
        assert_eq!(places(&index, id).await, (at(&[("t", id)]), true));
    }
}
