use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tidegate_routing::TopicName;
use tidegate_schemas::Event;
use tidegate_schemas::limits::{BRIDGE_ATTACH_TIMEOUT, BRIDGE_FOLLOW_TIMEOUT, BRIDGE_INTERVAL};
use tokio::time::Instant;

use super::*;
use crate::catalogue::{Catalogue, Origin, TopicSpec};
use crate::slot::{Journal, Options};
use crate::testing::{Link, MemoryBroker, MemoryLog, environment};

/// Opens clients of a broker in memory, while it can be reached.
#[derive(Debug)]
struct Door {
    broker: MemoryBroker,
    is_shut: Mutex<bool>,
    opened: AtomicUsize,
    last: Mutex<Option<Arc<MemoryLog>>>,
}

impl Door {
    fn of(broker: &MemoryBroker) -> Arc<Self> {
        Arc::new(Self {
            broker: broker.clone(),
            is_shut: Mutex::new(false),
            opened: AtomicUsize::new(0),
            last: Mutex::default(),
        })
    }

    fn shut(&self, shut: bool) {
        *self.is_shut.lock() = shut;
    }

    /// Ends the client that was opened last, as a client ends that has failed for good.
    fn kill(&self) {
        self.client().kill();
    }

    /// The client that was opened last.
    fn client(&self) -> Arc<MemoryLog> {
        Arc::clone(self.last.lock().as_ref().unwrap())
    }
}

impl Opener for Door {
    fn open(&self) -> BoxFuture<'_, Result<FarLog>> {
        Box::pin(async move {
            if *self.is_shut.lock() {
                return Err(Error::new(ErrorKind::Unavailable, "the door is shut"));
            }
            self.opened.fetch_add(1, Ordering::SeqCst);
            let log = self.broker.client();
            *self.last.lock() = Some(Arc::clone(&log));
            Ok(FarLog { log, unreachable: Arc::new(|| None) })
        })
    }
}

fn orders() -> LogId {
    LogId::Topic { topic: "orders".into(), partition: 0 }
}

fn event(id: &str) -> Record {
    Record::Event(Event::builder(id, "/s", "t").build().unwrap())
}

fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind().clone()
}

/// A backbone, another broker that has the topic `orders`, and the bridges between them.
async fn bridged() -> (MemoryBroker, MemoryBroker, Arc<Door>, Arc<Bridges>) {
    let (home, far) = (MemoryBroker::with_slots(1), MemoryBroker::with_slots(1));
    far.client().create(LogSpec::topic("orders", 2)).await.unwrap();
    let door = Door::of(&far);
    let bridges = Bridges::new(home.client(), &environment(1));
    bridges.put("far".into(), Arc::clone(&door) as _);
    (home, far, door, bridges)
}

/// Tries again until something is there.
async fn patiently<T, F: Future<Output = Result<T>>>(attempt: impl Fn() -> F) -> T {
    for _ in 0..100 {
        if let Ok(value) = attempt().await {
            return value;
        }
        tokio::time::sleep(BRIDGE_INTERVAL / 4).await;
    }
    panic!("it never came");
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_another_broker_is_read_and_written_there() {
    let (home, far, _door, bridges) = bridged().await;
    assert_eq!(bridges.attach_on("far", "orders", "orders").await.unwrap(), 2);
    bridges.append(&orders(), event("1")).await.unwrap();
    assert_eq!(far.records(&orders()).len(), 1);
    assert!(home.ids().is_empty(), "nothing of it is on the backbone: {:?}", home.ids());
    assert_eq!(bridges.info(&orders()).await.unwrap().end, Position(1));
    let batch = bridges.tail(&orders(), Position::ZERO).await.unwrap().next(1_000).await.unwrap();
    assert_eq!(batch.records[0].record, event("1"));

    // The control: a topic of the backbone is there, and only there.
    let own = LogId::Topic { topic: "own".into(), partition: 0 };
    bridges.create(LogSpec::topic("own", 1)).await.unwrap();
    bridges.append(&own, event("2")).await.unwrap();
    assert_eq!((home.records(&own).len(), far.records(&own).len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_attached_is_said_and_is_never_the_backbones() {
    let (home, _far, _door, bridges) = bridged().await;
    home.client().create(LogSpec::topic("orders", 1)).await.unwrap();
    assert_eq!(kind(bridges.attach_on("nowhere", "orders", "orders").await), ErrorKind::Unavailable);
    let refused = bridges.append(&orders(), event("1")).await.unwrap_err();
    assert!(refused.to_string().contains("no broker nowhere"), "{refused}");
    assert!(home.records(&orders()).is_empty(), "it was taken for a topic of the backbone");
    assert_eq!(bridges.attach_on("far", "orders", "orders").await.unwrap(), 2);
    assert_eq!(kind(bridges.attach_on("far", "orders", "others").await), ErrorKind::Conflict);
    assert_eq!(kind(bridges.attach_on("far", "missing", "missing").await), ErrorKind::NotFound);
    // A topic of that name that is created has nothing to do with it any more.
    bridges.create(LogSpec::topic("orders", 1)).await.unwrap();
    bridges.append(&orders(), event("1")).await.unwrap();
    assert_eq!(home.records(&orders()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_waited_for_and_its_topics_are_attached_by_themselves() {
    let (home, far) = (MemoryBroker::with_slots(1), MemoryBroker::with_slots(1));
    far.client().create(LogSpec::topic("orders", 1)).await.unwrap();
    let door = Door::of(&far);
    door.shut(true);
    let bridges = Bridges::new(home.client(), &environment(1));
    bridges.put("far".into(), Arc::clone(&door) as _);
    let away = bridges.attach_on("far", "orders", "orders").await.unwrap_err();
    assert_eq!(away.kind(), &ErrorKind::Unavailable);
    assert!(away.to_string().contains("the door is shut"), "{away}");
    assert_eq!(kind(bridges.append(&orders(), event("1")).await), ErrorKind::Unavailable);
    door.shut(false);
    patiently(|| bridges.append(&orders(), event("1"))).await;
    assert_eq!(far.records(&orders()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_ended_is_opened_anew() {
    let (_home, far, door, bridges) = bridged().await;
    bridges.attach_on("far", "orders", "orders").await.unwrap();
    let mut tail = bridges.tail(&orders(), Position::ZERO).await.unwrap();
    door.kill();
    assert_eq!(kind(bridges.append(&orders(), event("1")).await), ErrorKind::Unavailable, "and not that it has ended");
    assert_eq!(kind(tail.next(1_000).await), ErrorKind::Unavailable);
    patiently(|| bridges.append(&orders(), event("1"))).await;
    assert_eq!(door.opened.load(Ordering::SeqCst), 2);
    assert_eq!(far.records(&orders()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_broker_takes_over_a_name_with_its_topics() {
    let (_home, far, _door, bridges) = bridged().await;
    bridges.attach_on("far", "orders", "orders").await.unwrap();
    let other = MemoryBroker::with_slots(1);
    other.client().create(LogSpec::topic("orders", 2)).await.unwrap();
    bridges.put("far".into(), Door::of(&other) as _);
    patiently(|| bridges.append(&orders(), event("1"))).await;
    assert_eq!((far.records(&orders()).len(), other.records(&orders()).len()), (0, 1));
    bridges.remove("far");
    assert_eq!(kind(bridges.append(&orders(), event("2")).await), ErrorKind::Unavailable);
    bridges.put("far".into(), Door::of(&far) as _);
    patiently(|| bridges.append(&orders(), event("2"))).await;
    assert_eq!(far.records(&orders()).len(), 1);
    bridges.close().await;
    assert!(bridges.append(&orders(), event("3")).await.is_err());
}

/// Topics `t0` to `t4` on the other broker, whose client is open and answers nothing.
async fn mute(far: &MemoryBroker, door: &Door, bridges: &Bridges) -> Vec<String> {
    let names: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
    for name in &names {
        far.client().create(LogSpec::topic(name.as_str(), 1)).await.unwrap();
    }
    // It is opened for its first topic.
    patiently(|| bridges.attach_on("far", "orders", "orders")).await;
    door.client().connect(Link::Stalled);
    names
}

fn first_of(topic: &str) -> LogId {
    LogId::Topic { topic: topic.into(), partition: 0 }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_nothing_is_waited_for_once_and_not_for_each_topic() {
    let (home, far, door, bridges) = bridged().await;
    let names = mute(&far, &door, &bridges).await;
    let began = Instant::now();
    for name in &names {
        let silent = bridges.attach_on("far", name, name).await.unwrap_err();
        assert_eq!(silent.kind(), &ErrorKind::Unavailable);
        assert!(silent.to_string().contains("does not answer"), "{silent}");
    }
    assert_eq!(began.elapsed(), BRIDGE_ATTACH_TIMEOUT, "one wait for all of them");
    door.client().connect(Link::Up);
    for name in &names {
        // Nobody asks for them again: what was to be attached is.
        patiently(|| bridges.append(&first_of(name), event("1"))).await;
        assert_eq!(far.records(&first_of(name)).len(), 1);
    }
    assert_eq!(bridges.attach_on("far", "orders", "orders").await.unwrap(), 2, "it is asked again");
    assert!(home.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_waits_for_no_further_broker() {
    let (home, far, _door, bridges) = bridged().await;
    let environment = environment(2);
    let journal = Journal::open(home.client(), 0, environment.clone(), Options::default()).await.unwrap();
    let own = |name: &str| TopicSpec::new(TopicName::parse(name.to_owned()).unwrap(), 1, Origin::Api);
    let on_far = |name: &str| TopicSpec { attached: Some(name.into()), broker: Some("far".into()), ..own(name) };
    let first = Catalogue::open(bridges, Arc::new(journal.clone()), &environment).await.unwrap();
    let names: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
    for name in &names {
        far.client().create(LogSpec::topic(name.as_str(), 1)).await.unwrap();
        first.create_topic(on_far(name), 0, crate::slot::Command::new()).await.unwrap();
    }

    // Another gateway, to which the broker answers nothing.
    let door = Door::of(&far);
    let bridges = Bridges::new(home.client(), &environment);
    bridges.put("far".into(), Arc::clone(&door) as _);
    mute(&far, &door, &bridges).await;
    let began = Instant::now();
    let catalogue = Catalogue::open(Arc::clone(&bridges) as _, Arc::new(journal), &environment).await.unwrap();
    assert_eq!(catalogue.view().topics.len(), names.len());
    catalogue.create_topic(own("own"), 0, crate::slot::Command::new()).await.unwrap();
    assert!(began.elapsed() <= 2 * BRIDGE_FOLLOW_TIMEOUT, "{:?}", began.elapsed());
    for name in &names {
        assert_eq!(kind(bridges.append(&first_of(name), event("1")).await), ErrorKind::Unavailable);
        assert!(home.records(&first_of(name)).is_empty(), "it was taken for a topic of the backbone");
    }
    door.client().connect(Link::Up);
    for name in &names {
        patiently(|| bridges.append(&first_of(name), event("1"))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_let_go_of_while_it_is_attached_is_not_attached_afterwards() {
    let (_home, far, door, bridges) = bridged().await;
    mute(&far, &door, &bridges).await;
    let attaching = bridges.attach_on("far", "t0", "t0");
    let letting_go = async {
        tokio::time::sleep(BRIDGE_INTERVAL / 4).await;
        bridges.delete(LogSpec::topic("t0", 1)).await.unwrap();
        door.client().connect(Link::Up);
    };
    let (attached, ()) = tokio::join!(attaching, letting_go);
    assert!(attached.unwrap_err().to_string().contains("let go of"));
    // In memory letting go of a topic is its deletion, so that this shows that the client was told.
    assert!(!far.ids().contains(&first_of("t0")) && far.ids().contains(&first_of("t1")), "{:?}", far.ids());
}

#[tokio::test(start_paused = true)]
async fn a_broker_of_which_no_topic_is_attached_is_not_opened() {
    let (_home, _far, door, bridges) = bridged().await;
    tokio::time::sleep(BRIDGE_INTERVAL * 10).await;
    assert_eq!(door.opened.load(Ordering::SeqCst), 0, "what it is used for may have nothing to do with its logs");
    bridges.attach_on("far", "orders", "orders").await.unwrap();
    assert_eq!(door.opened.load(Ordering::SeqCst), 1);
    bridges.remove("far");
    bridges.put("far".into(), Arc::clone(&door) as _);
    bridges.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_goes_where_the_topics_are_afterwards_before_anything_else() {
    let (home, other) = (MemoryBroker::with_slots(1), MemoryBroker::with_slots(2));
    for broker in [&home, &other] {
        broker.client().create(LogSpec::topic("orders", 1)).await.unwrap();
    }
    let bridges = Bridges::new(home.client(), &environment(1));
    bridges.append(&orders(), event("before")).await.unwrap();
    bridges.steer(Course::Held);
    bridges.answered().await;
    let held: Vec<_> = (0..5).map(|n| bridges.append(&orders(), event(&format!("held-{n}")))).collect();
    // Whoever waits no longer has not undone it.
    let mut held = held.into_iter();
    drop(held.next());
    bridges.steer(Course::Diverted(other.client()));
    let after = bridges.append(&orders(), event("after"));
    for appended in held {
        appended.await.unwrap();
    }
    after.await.unwrap();
    let ids = |broker: &MemoryBroker| -> Vec<String> {
        let records = broker.records(&orders()).into_iter().map(|stored| stored.record);
        records
            .map(|record| if let Record::Event(event) = record { event.id().to_string() } else { String::new() })
            .collect()
    };
    assert_eq!(ids(&home), ["before"]);
    assert_eq!(ids(&other), ["held-0", "held-1", "held-2", "held-3", "held-4", "after"]);
    assert_eq!(bridges.info(&orders()).await.unwrap().end, Position(6), "it is read where it is written");

    bridges.steer(Course::Gone("it was moved away".into()));
    let error = bridges.append(&orders(), event("lost")).await.unwrap_err();
    assert_eq!((error.kind(), error.applied()), (&ErrorKind::Unavailable, crate::Applied::No));
    bridges.steer(Course::Home);
    bridges.append(&orders(), event("again")).await.unwrap();
    assert_eq!(ids(&home), ["before", "again"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_to_the_backbone_is_waited_for() {
    let home = MemoryBroker::with_slots(1);
    home.client().create(LogSpec::topic("orders", 1)).await.unwrap();
    let client = home.client();
    let environment = environment(1);
    let bridges = Bridges::new(Arc::clone(&client) as _, &environment);
    client.connect(crate::testing::Link::Stalled);
    let out = environment.spawn(bridges.append(&orders(), event("out")));
    bridges.steer(Course::Held);
    let second = std::time::Duration::from_secs(1);
    tokio::time::timeout(second, bridges.answered()).await.unwrap_err();
    client.connect(crate::testing::Link::Up);
    tokio::time::timeout(second, bridges.answered()).await.unwrap();
    out.await.unwrap().unwrap();
}
