//! Many partitions: where a subscription begins in each of them, what is stored of that, and that what rests asks the broker
//! for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_routing::TopicName;

use super::checkpoint::{self, Starts};
use super::core::Partition;
use super::tests::{Early, earliest, log_of, subscription, topic};
use super::{Consume, Moment, Silent, Start};
use crate::catalogue::{Catalogue, ChangeError, SubscriptionSpec, Topic, write};
use crate::environment::Environment;
use crate::log::{PartitionLog, Position, Record};
use crate::slot::{Command, Expect, Journal, Options};
use crate::testing::{Fault, MemoryBroker, MemoryLog, SeededRandom};

const PARTITIONS: u32 = 4;

/// A process that has its broker for itself.
struct Process {
    broker: MemoryBroker,
    log: Arc<MemoryLog>,
    /// Appends to any log.
    appends: Arc<AtomicUsize>,
    journal: Journal,
    consume: Arc<Consume>,
}

impl Process {
    async fn start() -> Self {
        let broker = MemoryBroker::default();
        let appends = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&appends);
        let log = broker.faulty(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            Fault::None
        });
        let environment = Environment::new(Arc::new(Early), Arc::new(SeededRandom::new(5)));
        let journal =
            Journal::open(Arc::clone(&log) as Arc<dyn PartitionLog>, 0, environment.clone(), Options::default())
                .await
                .unwrap();
        let catalogue = Catalogue::open(Arc::clone(&log) as _, Arc::new(journal.clone()), &environment).await.unwrap();
        let consume =
            Consume::start(Arc::clone(&log) as _, catalogue, 1, environment.child(), Arc::new(Silent)).await.unwrap();
        consume.acquire(journal.clone()).await.unwrap();
        Self { broker, log, appends, journal, consume }
    }

    async fn topics(&self, count: usize) {
        let specs = (0..count).map(|number| topic(&name(number), PARTITIONS)).collect();
        for created in self.consume.create_topics(specs).await {
            assert!(created.unwrap().1, "it was there");
        }
    }

    fn publish(&self, topic: usize, partition: u32, count: usize) {
        for id in 0..count {
            let event = tidegate_schemas::Event::builder(id.to_string(), "/s", "t").build().unwrap();
            self.broker.insert(&log_of(&name(topic), partition), Record::Event(event));
        }
    }

    fn keys(&self, prefix: &str) -> usize {
        self.journal.scan(prefix.as_bytes()).len()
    }

    /// Waits until all that was routed is written down, and nothing is left of a subscription that has read everything.
    async fn settled(&self, count: usize) {
        let partitions = count * PARTITIONS as usize;
        while self.keys("delivery/routed/") < partitions || self.keys("delivery/exception/") > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn name(number: usize) -> String {
    format!("many.t{number}")
}

fn from(start: Start, spec: SubscriptionSpec) -> SubscriptionSpec {
    SubscriptionSpec { from: start, ..spec }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_to_thousands_of_partitions_begins_in_each_where_it_says() {
    const TOPICS: usize = 1_000;
    let process = Process::start().await;
    process.topics(TOPICS).await;
    let events = |topic: usize, partition: u32| (topic + partition as usize) % 3;
    let all = || (0..TOPICS).flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)));
    for (topic, partition) in all() {
        process.publish(topic, partition, events(topic, partition));
    }
    // The broker counts a millisecond for each event, so that half of all are older than this.
    let time = process.broker.records(&log_of(&name(TOPICS / 2), 0)).last().map_or(0, |stored| stored.appended_at);
    assert!(time > 0);
    let mut moment = Moment::default();
    let mut begun = Vec::new();
    let before = process.log.questions();
    for (subscription_name, start) in
        [("first", Start::Earliest), ("latest", Start::Latest), ("time", Start::Time(time)), ("again", Start::Latest)]
    {
        let spec = from(start, subscription(subscription_name, "many.*"));
        begun.push(process.consume.create_subscription_at(spec, &mut moment).await.unwrap());
    }
    let asked = process.log.questions() - before;
    // Where each begins and ends, for the routers; again for those that begin at the end, together; and for the time.
    // Routers read from there, and where there is something, so do those that begin before the end.
    let partitions = TOPICS * PARTITIONS as usize;
    assert!(asked >= 3 * partitions, "{asked} questions about {partitions} partitions");
    assert_eq!(process.keys("delivery/starts/"), 4 * TOPICS, "one entry for each topic");
    for (topic, partition) in all() {
        let end = events(topic, partition) as u64;
        let since = process.broker.records(&log_of(&name(topic), partition));
        let since = since.iter().filter(|stored| stored.appended_at < time).count() as u64;
        let starts = begun.iter().map(|subscription| {
            let partition = Partition { topic: TopicName::parse(name(topic)).unwrap(), number: partition };
            checkpoint::start(&process.journal, subscription.uid, &partition).unwrap().0
        });
        assert_eq!(starts.collect::<Vec<_>>(), [0, end, since, end], "{topic} {partition}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_begin_together_ask_once() {
    const TOPICS: usize = 50;
    let process = Process::start().await;
    process.topics(TOPICS).await;
    process.consume.create_subscription(subscription("before", "many.*")).await.unwrap();
    process.settled(TOPICS).await;
    let partitions = TOPICS * PARTITIONS as usize;
    let questions = async |start: Start, moment: &mut Moment, name: &str| {
        let before = process.log.questions();
        process.consume.create_subscription_at(from(start, subscription(name, "many.*")), moment).await.unwrap();
        process.log.questions() - before
    };
    let mut moment = Moment::default();
    assert_eq!(questions(Start::Earliest, &mut moment, "earliest").await, 0, "nothing needs an answer");
    assert_eq!(questions(Start::Latest, &mut moment, "latest").await, partitions);
    assert_eq!(questions(Start::Latest, &mut moment, "another").await, 0, "it is known by now");
    assert_eq!(questions(Start::Latest, &mut Moment::default(), "later").await, partitions, "another moment");
}

#[tokio::test]
async fn starts_that_early_versions_wrote_are_read() {
    let process = Process::start().await;
    let (uid, partition) = (7_u64, Partition { topic: TopicName::parse("t").unwrap(), number: 2 });
    let put = async |key: &str, value: &'static str| {
        process.journal.commit(Command::new().put(key.to_owned(), Expect::Any, value)).await.unwrap().revision
    };
    let load = |only_slot| {
        let starts = Starts { slot0: &process.journal, only_slot };
        let loaded = checkpoint::load(&process.journal, starts, uid, &partition).unwrap();
        (loaded.read.map(|position| position.0), loaded.first, loaded.progress.open.len())
    };
    // As the only slot was written: a start, and what was read since.
    put("delivery/start/0000000000000007/t/2", r#"{"v":1,"position":5}"#).await;
    put("delivery/exception/0000000000000007/t/2", r#"{"v":1,"read":9,"open":[[6,7]]}"#).await;
    assert_eq!(checkpoint::start(&process.journal, uid, &partition).unwrap(), Position(5));
    assert_eq!(load(true), (Some(9), false, 2), "the exception has the last word in the only slot");
    assert_eq!(load(false), (Some(5), false, 0), "the start has, where its slot has not followed so far");
    // A change that brings the subscription to the topic anew writes as this version does.
    let revision = put("delivery/starts/0000000000000007/t", r#"{"v":1,"positions":[0,0,11]}"#).await;
    assert_eq!((load(true), load(false)), ((Some(11), false, 0), (Some(11), false, 0)));
    assert_eq!(checkpoint::start(&process.journal, uid, &partition).unwrap(), Position(11));
    put("delivery/starts/0000000000000007/t", r#"{"v":1}"#).await;
    assert_eq!(load(true), (Some(0), true, 0), "with the first event");
    let followed = format!(r#"{{"v":1,"revision":{}}}"#, revision + 1);
    process.journal.commit(Command::new().put("delivery/catalogue", Expect::Any, followed)).await.unwrap();
    assert_eq!((load(true), load(false)), ((Some(9), false, 2), (Some(9), false, 2)), "the slot has followed");
    put("delivery/starts/0000000000000007/t", r#"{"v":1,"positions":[0]}"#).await;
    let starts = Starts { slot0: &process.journal, only_slot: true };
    assert!(checkpoint::load(&process.journal, starts, uid, &partition).is_err(), "a partition is missing");
    assert_eq!(checkpoint::keys_of_topic(&process.journal, "t").len(), 3, "starts, start and exception go with it");
    assert!(checkpoint::keys_of_topic(&process.journal, "").is_empty());
    assert_eq!(checkpoint::keys_of_subscription(&process.journal, uid).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_trimmed_before_a_subscription_first_reads_is_no_loss_to_it() {
    let process = Process::start().await;
    process.topics(1).await;
    // Somebody else reads, so that the partition is known from its first event on.
    process.consume.create_subscription(subscription("other", "many.*")).await.unwrap();
    process.publish(0, 0, 10);
    process.log.trim(&log_of(&name(0), 0), Position(4)).await.unwrap();
    let lost = async |spec: SubscriptionSpec| {
        let uid = process.consume.create_subscription(spec).await.unwrap().uid;
        let consumer = process.consume.consumer(uid).unwrap();
        for _ in 4..10 {
            consumer.next().await.unwrap().done(&super::Attempt::default());
        }
        process.consume.status(uid).unwrap().trimmed
    };
    assert_eq!(lost(earliest(subscription("s", "many.*"))).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_whose_starts_do_not_fit_leaves_nothing_behind() {
    const TOPICS: usize = 2_600;
    const COMMIT: usize = 400;
    let process = Process::start().await;
    let long = |number: usize| format!("{}.{number:0>150}", if number < 100 { "few" } else { "more" });
    for numbers in (0..TOPICS).collect::<Vec<_>>().chunks(COMMIT) {
        let put = |command: Command, number: &usize| {
            let topic = Topic::new(*number as u64, topic(&long(*number), 1), 1);
            command.put(format!("catalogue/topic/{}", long(*number)), Expect::Absent, write(&topic))
        };
        process.journal.commit(numbers.iter().fold(Command::new(), put)).await.unwrap();
    }
    while process.consume.catalogue().view().topics.len() < TOPICS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = process.consume.create_subscription(earliest(subscription("s", "**"))).await;
    match refused {
        Err(ChangeError::TooManyTopics { topics: TOPICS, bytes, limit_bytes, .. }) => assert!(bytes > limit_bytes),
        other => panic!("{other:?}"),
    }
    assert!(process.consume.catalogue().subscription("s").is_none());
    assert_eq!(process.keys("delivery/starts/") + process.keys("catalogue/subscription/"), 0);
    // The control: one that reads fewer of them.
    process.consume.create_subscription(earliest(subscription("s", "few.*"))).await.unwrap();
    assert_eq!(process.keys("delivery/starts/"), 100);
}

/// What a process asks and writes in so long, once it has come to rest.
async fn at_rest(topics: usize, rest: Duration) -> (usize, usize) {
    let process = Process::start().await;
    process.topics(topics).await;
    process.publish(0, 0, 3);
    for number in 0..5 {
        process.consume.create_subscription(subscription(&format!("s{number}"), "many.*")).await.unwrap();
    }
    process.settled(topics).await;
    // Every partition is looked at once for what is to go.
    tokio::time::sleep(Duration::from_secs(150)).await;
    let before = (process.log.questions(), process.appends.load(Ordering::SeqCst));
    tokio::time::sleep(rest).await;
    let after = (process.log.questions(), process.appends.load(Ordering::SeqCst));
    // The control: what looks at every partition is counted.
    process.consume.retain().await;
    assert!(process.log.questions() - after.0 >= topics * PARTITIONS as usize);
    (after.0 - before.0, after.1 - before.1)
}

#[tokio::test(start_paused = true)]
async fn partitions_at_rest_ask_and_write_nothing() {
    let rest = Duration::from_secs(600);
    let few = at_rest(5, rest).await;
    let many = at_rest(50, rest).await;
    // What is done now and then falls once more or less into that time.
    assert!(many.0 <= few.0 + 10, "{few:?} and {many:?}: it grows with the number of partitions");
    assert_eq!((few.1, many.1), (0, 0), "something is written though nothing happens");
    // The outcomes of deliveries, which nobody has written yet, are looked at now and then.
    assert!(many.0 <= 60, "{} questions in ten minutes", many.0);
}
