//! Slots of several owners, where the suite of cases does not reach: a catalogue that is followed late, topics that come
//! again under the same name, and records of others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidegate_routing::TopicName;
use tidegate_routing::retry::RetryPolicy;
use tidegate_routing::topic::TopicPattern;
use tidegate_schemas::Event;
use tidegate_schemas::foreign::{Foreign as ForeignRecord, wrap};
use tidegate_schemas::limits;

use super::{Attempt, Consume, Delivery, Observer, Silent, Start};
use crate::catalogue::{Catalogue, Foreign, OnExhausted, Order, Origin, RequestSpec, SubscriptionSpec, TopicSpec};
use crate::environment::{Clock, Environment};
use crate::lane::NodeId;
use crate::log::{BoxFuture, LogId, LogSpec, PartitionLog, Record};
use crate::slot::journal::Identity;
use crate::slot::placement::slot_of;
use crate::slot::{Command, CommitError, Committed, Head, Journal, Options, SlotHandle, Watch};
use crate::testing::{MemoryBroker, RuntimeClock, SeededRandom};

/// Long ago, so that nothing in a log is older than passports are kept.
#[derive(Debug)]
pub(super) struct Early;

impl Clock for Early {
    fn unix_milliseconds(&self) -> u64 {
        1_000
    }

    fn since_boot(&self) -> Duration {
        Duration::ZERO
    }
}

type Entries = Vec<(Bytes, u64, Bytes)>;

/// Slot 0 as a process sees it that has followed it up to a moment, and no further until it is let.
#[derive(Debug)]
struct Late {
    journal: Journal,
    known: Mutex<Option<(u64, Entries)>>,
}

impl Late {
    fn new(journal: &Journal) -> Arc<Self> {
        Arc::new(Self { journal: journal.clone(), known: Mutex::new(None) })
    }

    fn stop(&self) {
        *self.known.lock() = Some((self.journal.revision(), self.journal.scan(b"")));
    }

    fn go_on(&self) {
        *self.known.lock() = None;
    }
}

impl SlotHandle for Late {
    fn slot(&self) -> u32 {
        0
    }

    fn get(&self, key: &[u8]) -> Option<Head> {
        match &*self.known.lock() {
            None => self.journal.get(key),
            Some((_, entries)) => entries
                .iter()
                .find(|(each, _, _)| each == key)
                .map(|(_, revision, value)| Head { revision: *revision, value: value.clone() }),
        }
    }

    fn scan(&self, prefix: &[u8]) -> Entries {
        match &*self.known.lock() {
            None => self.journal.scan(prefix),
            Some((_, entries)) => entries.iter().filter(|(key, _, _)| key.starts_with(prefix)).cloned().collect(),
        }
    }

    fn revision(&self) -> u64 {
        self.known.lock().as_ref().map_or_else(|| self.journal.revision(), |(revision, _)| *revision)
    }

    fn watch(&self, prefix: Bytes) -> Watch {
        self.journal.watch(prefix)
    }

    fn commit(&self, command: Command) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(self.journal.commit(command))
    }
}

/// A cluster of three slots, whose slot 0 one process owns for all.
pub(super) struct Cluster {
    pub(super) broker: MemoryBroker,
    pub(super) slot0: Journal,
    pub(super) environment: Environment,
}

pub(super) const SLOTS: u32 = 3;

impl Cluster {
    pub(super) async fn new() -> Self {
        let (broker, environment) =
            (MemoryBroker::with_slots(SLOTS), Environment::new(Arc::new(Early), Arc::new(SeededRandom::new(3))));
        let slot0 = Journal::open(broker.client(), 0, environment.clone(), Options::default()).await.unwrap();
        Self { broker, slot0, environment }
    }

    /// A process that owns nothing yet.
    pub(super) async fn process(&self, slot0: Arc<dyn SlotHandle>) -> Arc<Consume> {
        let log: Arc<dyn PartitionLog> = self.broker.client();
        let catalogue = Catalogue::open(Arc::clone(&log), slot0, &self.environment).await.unwrap();
        Consume::start(log, catalogue, SLOTS, self.environment.child(), Arc::new(Silent)).await.unwrap()
    }

    pub(super) async fn journals(&self) -> Vec<Journal> {
        let mut journals = Vec::new();
        for slot in 1..SLOTS {
            let open = Journal::open(self.broker.client(), slot, self.environment.clone(), Options::default());
            journals.push(open.await.unwrap());
        }
        journals
    }

    async fn own(&self, consume: &Consume) -> Vec<Journal> {
        let journals = self.journals().await;
        for journal in &journals {
            consume.acquire(journal.clone()).await.unwrap();
        }
        journals
    }

    fn publish(&self, topic: &str, partition: u32, ids: std::ops::Range<u32>) {
        for id in ids {
            let event = Event::builder(id.to_string(), "/s", "t").build().unwrap();
            self.broker.insert(&log_of(topic, partition), Record::Event(event));
        }
    }
}

pub(super) fn log_of(topic: &str, partition: u32) -> LogId {
    LogId::Topic { topic: topic.into(), partition }
}

pub(super) fn topic(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec::new(TopicName::parse(name.to_owned()).unwrap(), partitions, Origin::Api)
}

pub(super) fn subscription(name: &str, topics: &str) -> SubscriptionSpec {
    SubscriptionSpec {
        name: name.into(),
        topics: vec![TopicPattern::parse(topics).unwrap()],
        filters: Vec::new(),
        sink: "https://sink.example/".to_owned(),
        request: RequestSpec::default(),
        from: Start::Latest,
        order: Order::Key,
        max_in_flight: 100,
        timeout: Duration::from_secs(1),
        retry: RetryPolicy::default(),
        on_exhausted: OnExhausted::Continue,
        dead_letter_topic: TopicName::dead_letter_of(name).unwrap(),
        reply_to: None,
        origin: Origin::Api,
    }
}

pub(super) fn earliest(spec: SubscriptionSpec) -> SubscriptionSpec {
    SubscriptionSpec { from: Start::Earliest, ..spec }
}

/// Takes and settles that many; gives their ids.
async fn take(consume: &Consume, name: &str, count: usize) -> BTreeSet<String> {
    let uid = consume.catalogue().subscription(name).unwrap().uid;
    let consumer = loop {
        match consume.consumer(uid) {
            Some(consumer) => break consumer,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    let mut ids = BTreeSet::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(20), consumer.next()).await;
        let delivery = next.unwrap_or_else(|_| panic!("{name} got only {ids:?}")).unwrap();
        ids.insert(delivery.event().id().to_string());
        delivery.done(&Attempt::default());
    }
    let more = tokio::time::timeout(Duration::from_millis(40), consumer.next()).await;
    assert!(
        more.is_err(),
        "{name} got one too many: {:?}",
        more.map(|more| more.map(|it| it.event().id().to_string()))
    );
    ids
}

fn ids(range: std::ops::Range<u32>) -> BTreeSet<String> {
    range.map(|id| id.to_string()).collect()
}

#[tokio::test]
async fn an_owner_follows_the_catalogue_as_far_as_the_one_before_it_had() {
    let cluster = Cluster::new().await;
    let first = cluster.process(Arc::new(cluster.slot0.clone())).await;
    first.create_topic(topic("orders", 4)).await.unwrap();
    first.create_subscription(subscription("early", "orders")).await.unwrap();
    let journals = cluster.own(&first).await;
    let late = Late::new(&cluster.slot0);
    let second = cluster.process(Arc::clone(&late) as Arc<dyn SlotHandle>).await;
    // From here on the second sees nothing of what happens to the catalogue.
    late.stop();
    first.create_subscription(subscription("new", "orders")).await.unwrap();
    (0..4).for_each(|partition| cluster.publish("orders", partition, partition * 10..partition * 10 + 10));
    assert_eq!(take(&first, "early", 40).await, ids(0..40));
    assert_eq!(take(&first, "new", 40).await, ids(0..40));
    for slot in 1..SLOTS {
        first.release(slot).await;
    }
    futures_util::future::join_all(journals.iter().map(Journal::close)).await;
    (0..4).for_each(|partition| cluster.publish("orders", partition, partition * 10 + 100..partition * 10 + 110));

    let waits = Arc::new(AtomicBool::new(true));
    let owned = {
        let (second, waits) = (Arc::clone(&second), Arc::clone(&waits));
        let journals = cluster.journals().await;
        cluster.environment.spawn(async move {
            for journal in &journals {
                second.acquire(journal.clone()).await.unwrap();
                assert!(!waits.load(Ordering::SeqCst), "it did not know of a subscription that was there before it");
            }
            journals
        })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(second.slots(), Vec::<u32>::new(), "nothing is routed without the subscription that it does not know");
    waits.store(false, Ordering::SeqCst);
    late.go_on();
    let journals = owned.await.unwrap();
    // Both go on from where they were; had the new one been unknown, it would have lost what was routed without it.
    assert_eq!(take(&second, "early", 40).await, ids(100..140));
    assert_eq!(take(&second, "new", 40).await, ids(100..140));
    drop(journals);
}

#[tokio::test]
async fn a_start_that_the_checkpoint_does_not_know_has_the_last_word_and_no_other() {
    let cluster = Cluster::new().await;
    let first = cluster.process(Arc::new(cluster.slot0.clone())).await;
    first.create_topic(topic("orders", 2)).await.unwrap();
    first.create_subscription(subscription("early", "orders")).await.unwrap();
    let journals = cluster.own(&first).await;
    cluster.publish("orders", 0, 0..10);
    cluster.publish("orders", 1, 10..20);
    assert_eq!(take(&first, "early", 20).await, ids(0..20));
    first.finish().await;
    // The owner dies, and while there is none, a subscription is made that reads from the start.
    (1..SLOTS).for_each(|slot| first.lose(slot));
    first.create_subscription(earliest(subscription("new", "orders"))).await.unwrap();
    drop(journals);
    let second = cluster.process(Arc::new(cluster.slot0.clone())).await;
    cluster.own(&second).await;
    assert_eq!(take(&second, "new", 20).await, ids(0..20), "from where it was to begin");
    assert_eq!(take(&second, "early", 0).await, ids(0..0), "from where it was");
    second.finish().await;
    (1..SLOTS).for_each(|slot| second.lose(slot));
    let third = cluster.process(Arc::new(cluster.slot0.clone())).await;
    cluster.own(&third).await;
    assert_eq!(take(&third, "new", 0).await, ids(0..0), "the slot knows it now, and has the last word");
}

#[tokio::test]
async fn progress_in_a_topic_says_nothing_of_another_of_the_same_name() {
    let cluster = Cluster::new().await;
    let owner = cluster.process(Arc::new(cluster.slot0.clone())).await;
    let (first, _) = owner.create_topic(topic("orders", 2)).await.unwrap();
    owner.create_subscription(subscription("s", "orders")).await.unwrap();
    let journals = cluster.own(&owner).await;
    cluster.publish("orders", 0, 0..10);
    assert_eq!(take(&owner, "s", 10).await, ids(0..10));
    owner.finish().await;
    let routed =
        |journals: &[Journal]| journals.iter().map(|journal| journal.scan(b"delivery/routed/").len()).sum::<usize>();
    assert_eq!(routed(&journals), 2);
    (1..SLOTS).for_each(|slot| owner.lose(slot));
    // While nobody owns the slots the topic goes, and comes again.
    let other = cluster.process(Arc::new(cluster.slot0.clone())).await;
    other.delete_topic(&first.spec.name).await.unwrap();
    let (again, _) = other.create_topic(topic("orders", 2)).await.unwrap();
    assert_ne!(first.uid, again.uid);
    cluster.publish("orders", 0, 100..105);
    let next = cluster.own(&other).await;
    assert_eq!(take(&other, "s", 5).await, ids(100..105), "from the start of what came after it");
    // And while it is owned, by another process than the one that delivers it.
    owner.delete_topic(&again.spec.name).await.unwrap();
    owner.create_topic(topic("orders", 2)).await.unwrap();
    while other.catalogue().topic("orders").is_none_or(|topic| topic.uid == again.uid) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cluster.publish("orders", 0, 200..203);
    assert_eq!(take(&other, "s", 3).await, ids(200..203));
    other.delete_topic(&again.spec.name).await.unwrap();
    assert_eq!(routed(&next), 0);
}

#[tokio::test]
async fn a_partition_that_is_not_found_for_a_while_is_read_on() {
    let cluster = Cluster::new().await;
    let owner = cluster.process(Arc::new(cluster.slot0.clone())).await;
    owner.create_topic(topic("orders", 1)).await.unwrap();
    owner.create_subscription(subscription("s", "orders")).await.unwrap();
    let _journals = cluster.own(&owner).await;
    cluster.publish("orders", 0, 0..2);
    assert_eq!(take(&owner, "s", 2).await, ids(0..2));
    // As a cluster of brokers says it while a node is being replaced, of a topic that nobody has deleted.
    let kept = cluster.broker.records(&log_of("orders", 0));
    cluster.broker.remove(&log_of("orders", 0));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let log: Arc<dyn PartitionLog> = cluster.broker.client();
    log.create(LogSpec::topic("orders", 1)).await.unwrap();
    for stored in kept {
        cluster.broker.insert(&log_of("orders", 0), stored.record);
    }
    cluster.publish("orders", 0, 2..5);
    assert_eq!(take(&owner, "s", 3).await, ids(2..5), "and nothing that was delivered before comes again");
}

#[tokio::test]
async fn records_that_are_no_events_go_where_their_topic_says() {
    let cluster = Cluster::new().await;
    let owner = cluster.process(Arc::new(cluster.slot0.clone())).await;
    owner.create_topic(TopicSpec { foreign: Foreign::DeadLetter, ..topic("moved", 1) }).await.unwrap();
    owner.create_topic(topic("wrapped", 1)).await.unwrap();
    let _journals = cluster.own(&owner).await;
    for name in ["moved", "wrapped"] {
        owner.create_subscription(subscription(name, name)).await.unwrap();
    }
    owner.create_subscription(subscription("all", "**")).await.unwrap();
    owner.create_subscription(subscription("watch", "dead.foreign.moved")).await.unwrap();
    for topic in ["moved", "wrapped"] {
        cluster.publish(topic, 0, 0..2);
        let body = Bytes::from_static(b"not an event");
        let (key, content_type, reason) = (None, None, "it has no ce_id header");
        let record =
            ForeignRecord { broker: "memory", topic, partition: 0, position: 2, key, content_type, body, reason };
        cluster.broker.insert(&log_of(topic, 0), Record::Event(wrap(record)));
        cluster.publish(topic, 0, 2..3);
    }
    let with_foreign: BTreeSet<String> = ids(0..3).into_iter().chain(["0-2".to_owned()]).collect();
    assert_eq!(take(&owner, "moved", 3).await, ids(0..3));
    assert_eq!(take(&owner, "wrapped", 4).await, with_foreign);
    assert_eq!(take(&owner, "all", 7).await, with_foreign, "as wrapped, and not where it was moved to");
    assert_eq!(take(&owner, "watch", 1).await, BTreeSet::from(["0-2".to_owned()]));
    // One that reads by itself comes to the same.
    owner.create_subscription(earliest(subscription("later", "moved"))).await.unwrap();
    assert_eq!(take(&owner, "later", 3).await, ids(0..3));
}

/// Deliveries of that subscription, held.
async fn hold(consume: &Consume, name: &str, count: usize) -> Vec<Delivery> {
    let uid = consume.catalogue().subscription(name).unwrap().uid;
    let consumer = consume.consumer(uid).unwrap();
    let mut held = Vec::new();
    while held.len() < count {
        held.push(tokio::time::timeout(Duration::from_secs(20), consumer.next()).await.unwrap().unwrap());
    }
    held
}

#[tokio::test]
async fn a_slot_that_is_given_up_while_deliveries_are_out_is_written_down_in_time() {
    for waits in [true, false] {
        let cluster = Cluster::new().await;
        let first = cluster.process(Arc::new(cluster.slot0.clone())).await;
        first.create_topic(topic("orders", 1)).await.unwrap();
        first.create_subscription(subscription("s", "orders")).await.unwrap();
        let journals = cluster.own(&first).await;
        cluster.publish("orders", 0, 0..10);
        let mut held = hold(&first, "s", 10).await;
        held.drain(2..).for_each(|delivery| delivery.done(&Attempt::default()));
        // A sink takes longer than a slot that is given up is waited for; or whoever gives it up waits for nothing.
        let limit = if waits { limits::CLAIM_DRAIN_TIMEOUT } else { Duration::from_millis(1) };
        for slot in 1..SLOTS {
            let ended = tokio::time::timeout(limit, first.release(slot)).await.is_ok();
            let delivers = slot == slot_of("orders", 0, SLOTS);
            assert!(ended == waits || !delivers, "slot {slot} was given up in time: {ended}");
        }
        assert_eq!(first.slots(), Vec::<u32>::new(), "nothing is delivered, however it ended");
        assert!(held.iter().all(Delivery::is_void));
        let out: BTreeSet<String> = held.iter().map(|delivery| delivery.event().id().to_string()).collect();
        held.into_iter().for_each(|delivery| delivery.done(&Attempt::default()));
        futures_util::future::join_all(journals.iter().map(Journal::close)).await;
        let second = cluster.process(Arc::new(cluster.slot0.clone())).await;
        cluster.own(&second).await;
        if waits {
            assert_eq!(take(&second, "s", 2).await, out, "what was out, and nothing that was settled");
        } else {
            let seen: BTreeSet<String> =
                hold(&second, "s", 2).await.iter().map(|delivery| delivery.event().id().to_string()).collect();
            assert!(seen.len() == 2, "what was not written down comes again");
        }
    }
}

#[tokio::test]
async fn a_subscription_begins_where_it_says_in_a_topic_that_is_attached_after_it() {
    let cluster = Cluster::new().await;
    let owner = cluster.process(Arc::new(cluster.slot0.clone())).await;
    let _journals = cluster.own(&owner).await;
    for (name, from) in [("earliest", Start::Earliest), ("latest", Start::Latest), ("time", Start::Time(0))] {
        owner.create_subscription(SubscriptionSpec { from, ..subscription(name, "*") }).await.unwrap();
    }
    owner.create_subscription(earliest(subscription("other", "elsewhere"))).await.unwrap();
    let attached = TopicSpec { attached: Some("theirs".into()), ..topic("theirs", 1) };
    let refused = owner.create_topic(attached.clone()).await.unwrap_err().to_string();
    for part in ["topic theirs cannot", "named theirs", "memory backbone", "create it there"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // Somebody else's, with what was written before anybody here knew it.
    let theirs = LogSpec::topic("theirs", 2);
    cluster.broker.client().create(theirs).await.unwrap();
    cluster.publish("theirs", 0, 0..3);
    cluster.publish("theirs", 1, 3..6);
    owner.create_topic(attached).await.unwrap();
    for name in ["earliest", "time"] {
        assert_eq!(take(&owner, name, 6).await, ids(0..6), "{name}");
    }
    cluster.publish("theirs", 1, 6..8);
    for name in ["earliest", "time", "latest"] {
        assert_eq!(take(&owner, name, 2).await, ids(6..8), "{name}");
    }
    // A pattern that takes it in later begins where it says as well.
    owner.update_subscription(earliest(subscription("other", "theirs"))).await.unwrap();
    assert_eq!(take(&owner, "other", 8).await, ids(0..8));
}

#[tokio::test]
async fn a_topic_that_is_created_later_is_read_from_its_start_wherever_a_subscription_begins() {
    let cluster = Cluster::new().await;
    let owner = cluster.process(Arc::new(cluster.slot0.clone())).await;
    for (name, from) in [("earliest", Start::Earliest), ("latest", Start::Latest), ("time", Start::Time(u64::MAX))] {
        owner.create_subscription(SubscriptionSpec { from, ..subscription(name, "orders") }).await.unwrap();
    }
    // By another gateway, and published to before whoever is to deliver it owns its slot.
    let other = cluster.process(Arc::new(cluster.slot0.clone())).await;
    other.create_topic(topic("orders", 2)).await.unwrap();
    cluster.publish("orders", 0, 0..3);
    cluster.publish("orders", 1, 3..5);
    let _journals = cluster.own(&owner).await;
    for name in ["earliest", "latest", "time"] {
        assert_eq!(take(&owner, name, 5).await, ids(0..5), "{name}");
    }
}

/// Counts leases that ran out.
#[derive(Debug, Default)]
struct Expirations(AtomicUsize);

impl Observer for Expirations {
    fn lease_expired(&self, slot: u32) {
        assert_eq!(slot, 1);
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_lease_that_ran_out_is_told_and_what_waits_for_it_goes_out_when_it_is_renewed() {
    let (broker, clock) = (MemoryBroker::shared(2), Arc::new(RuntimeClock::default()));
    let environment = Environment::new(Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SeededRandom::new(3)));
    let log: Arc<dyn PartitionLog> = broker.client();
    let options = || Options::shared(Identity::new(NodeId(1 << 16)));
    let open = async |slot| Journal::open(Arc::clone(&log), slot, environment.clone(), options()).await.unwrap();
    let catalogue = Catalogue::open(Arc::clone(&log), Arc::new(open(0).await), &environment).await.unwrap();
    let observer = Arc::new(Expirations::default());
    let told = Arc::clone(&observer) as Arc<dyn Observer>;
    let consume = Consume::start(Arc::clone(&log), catalogue, 2, environment.child(), told).await.unwrap();
    consume.acquire(open(1).await).await.unwrap();
    consume.create_topic(topic("orders", 1)).await.unwrap();
    consume.create_subscription(subscription("s", "orders")).await.unwrap();
    let before = observer.0.load(Ordering::SeqCst);
    let mut rounds = 0;
    // The owner's next frame renews the lease, and may be faster than a delivery.
    while observer.0.load(Ordering::SeqCst) == before {
        assert!(rounds < 100, "deliveries go out whatever the lease says, or nobody is told");
        clock.sleep(Duration::from_secs(10));
        let event = Event::builder(rounds.to_string(), "/s", "t").build().unwrap();
        broker.insert(&log_of("orders", 0), Record::Event(event));
        assert_eq!(take(&consume, "s", 1).await, ids(rounds..rounds + 1));
        rounds += 1;
    }
}
