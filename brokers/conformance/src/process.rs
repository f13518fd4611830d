//! One process of the product over the adapter under test: journal, catalogue, publishing and delivery.

use std::sync::Arc;
use std::time::Duration;

use tidegate_backbone::catalogue::{
    Catalogue, OnExhausted, Order, Origin, RequestSpec, Subscription, SubscriptionSpec, Topic, TopicSpec,
};
use tidegate_backbone::claim::{self, Claims, Tenant};
use tidegate_backbone::consume::{Attempt, Consume, Consumer, Delivery, Reason, Silent, Start, Status};
use tidegate_backbone::publish::{Publisher, Receipt};
use tidegate_backbone::request::{self, Hub, MemberInfo, Requests};
use tidegate_backbone::slot::placement::delivery_slots;
use tidegate_backbone::slot::{Journal, Options, SlotHandle};
use tidegate_backbone::{Clock, Environment, LogId, PartitionLog, Position, Record, Stored};
use tidegate_routing::retry::RetryPolicy;
use tidegate_routing::topic::{TopicName, TopicPattern};
use tidegate_schemas::event::Data;
use tidegate_schemas::{Event, Value};

use crate::clock::HeldClock;
use crate::expect::{Failure, Outcome};
use crate::faulty::Refusing;
use crate::fixture::Fixture;

/// Against hanging alone.
const HANG: Duration = Duration::from_secs(60);
/// Of events that are published without waiting in between: far below what the queue of any adapter holds.
const PUBLISHED_AT_ONCE_BYTES: usize = 8 * 1024 * 1024;
/// How long nothing must come. Too short a wait lets a case pass that should fail, never the other way round.
const SILENCE: Duration = Duration::from_millis(60);

/// See the module.
#[derive(Debug)]
pub struct Process {
    /// The time that it sees.
    pub clock: Arc<HeldClock>,
    /// The adapter, which can be told to refuse.
    pub log: Arc<Refusing>,
    /// Slot 0, whoever owns it.
    pub slot: Arc<dyn SlotHandle>,
    /// Every slot, slot 0 among them, as the first process has opened it; none where claims look after them
    /// ([`Process::join`]).
    pub journals: Vec<Journal>,
    claims: Option<Membership>,
    /// Delivery.
    pub consume: Arc<Consume>,
    /// Publishing.
    pub publisher: Publisher,
    /// Where what the case itself runs is spawned.
    pub environment: Environment,
    delivery: Environment,
}

/// How a process owns its slots that does it as a gateway does.
#[derive(Debug)]
struct Membership {
    claims: Arc<Claims>,
    /// None on a log that is one process's.
    requests: Option<Requests>,
}

/// An environment over that clock, with the randomness of the machine: nothing that is drawn comes twice.
pub(crate) fn environment(clock: &Arc<HeldClock>) -> Environment {
    Environment::new(Arc::clone(clock) as Arc<dyn Clock>, Environment::system().random)
}

/// The clock by which the broker stamps records.
pub(crate) fn stamping(fixture: &Arc<dyn Fixture>, clock: &Arc<HeldClock>) -> Arc<dyn Clock> {
    if fixture.stamps_by_the_machine() { Environment::system().clock } else { Arc::clone(clock) as Arc<dyn Clock> }
}

/// Opens the broker for a process that sees that time.
async fn open(
    fixture: &Arc<dyn Fixture>,
    clock: &Arc<HeldClock>,
    environment: &Environment,
) -> Result<Arc<Refusing>, Failure> {
    let log = fixture.open(environment).await?;
    let by_the_machine = fixture.stamps_by_the_machine();
    Ok(if by_the_machine { Refusing::retimed(log, Arc::clone(clock)) } else { Refusing::new(log) })
}

impl Process {
    /// Starts on the broker as it is now, at the time of that clock, and takes every slot, whoever owned it. Who owns a slot
    /// is the case's to say: one whose owner was superseded or has given up stays without.
    pub async fn start(fixture: &Arc<dyn Fixture>, clock: &Arc<HeldClock>) -> Result<Self, Failure> {
        let environment = environment(clock);
        let log = open(fixture, clock, &environment).await?;
        let contract = || Arc::clone(&log) as Arc<dyn PartitionLog>;
        let slots = log.capability().slots;
        let open = |slot| Journal::open(contract(), slot, environment.clone(), Options::default());
        let journals = futures_util::future::try_join_all((0..slots).map(open)).await?;
        let slot: Arc<dyn SlotHandle> = Arc::new(journals[0].clone());
        let process = Self::run(clock, log, slot, slots, environment).await?;
        for slot in delivery_slots(slots) {
            process.consume.acquire(journals[slot as usize].clone()).await?;
        }
        Ok(Self { journals, ..process })
    }

    /// Starts as a gateway does: claims own the slots, keep them through an outage, and take one back that was lost. It is the
    /// only process on the broker, so its lane is one inside the process.
    pub async fn join(fixture: &Arc<dyn Fixture>, clock: &Arc<HeldClock>) -> Result<Self, Failure> {
        let environment = environment(clock);
        let log = open(fixture, clock, &environment).await?;
        let (contract, options) = (Arc::clone(&log) as Arc<dyn PartitionLog>, claim::Options::default());
        let (claims, requests) = if log.capability().exclusive {
            (Claims::alone(contract, environment.clone(), options).await?, None)
        } else {
            let (lane, told) = (Hub::default().lane(), MemberInfo::default());
            let requests = Requests::open(lane, told, &environment, request::Options::default()).await?;
            let claims = Claims::join(contract, requests.clone(), environment.clone(), options).await?;
            (claims, Some(requests))
        };
        let slots = claims.slots();
        let process = Self::run(clock, log, claims.slot(0), slots, environment).await?;
        claims.begin(Arc::clone(&process.consume) as Arc<dyn Tenant>).await;
        let owned = async {
            let all: Vec<u32> = delivery_slots(slots).collect();
            while process.consume.slots() != all {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(HANG, owned).await.map_err(|_| {
            Failure::late(format!("expected that the only process owns every slot, seen {:?}", claims.owners()))
        })?;
        Ok(Self { claims: Some(Membership { claims, requests }), ..process })
    }

    /// What every process has beside its slots.
    async fn run(
        clock: &Arc<HeldClock>,
        log: Arc<Refusing>,
        slot: Arc<dyn SlotHandle>,
        slots: u32,
        environment: Environment,
    ) -> Result<Self, Failure> {
        let contract = || Arc::clone(&log) as Arc<dyn PartitionLog>;
        let catalogue = Catalogue::open(contract(), Arc::clone(&slot), &environment).await?;
        let delivery = environment.child();
        let consume =
            Consume::start(contract(), Arc::clone(&catalogue), slots, delivery.clone(), Arc::new(Silent)).await?;
        let publisher = Publisher::new(contract(), catalogue);
        let (clock, journals, claims) = (Arc::clone(clock), Vec::new(), None);
        Ok(Self { clock, log, slot, journals, claims, consume, publisher, environment, delivery })
    }

    /// Another process on the same broker, at the same time: it follows the catalogue of this one, which owns it, and owns no
    /// slot yet.
    pub async fn beside(&self, fixture: &Arc<dyn Fixture>) -> Result<Self, Failure> {
        let environment = environment(&self.clock);
        let log = open(fixture, &self.clock, &environment).await?;
        let process = Self::run(&self.clock, log, Arc::clone(&self.slot), self.slots(), environment).await?;
        Ok(Self { journals: self.journals.clone(), ..process })
    }

    /// Takes a slot, whoever owned it, and delivers its partitions.
    pub async fn own(&self, slot: u32) -> Result<Journal, Failure> {
        let log = Arc::clone(&self.log) as Arc<dyn PartitionLog>;
        let journal = Journal::open(log, slot, self.environment.clone(), Options::default()).await?;
        self.consume.acquire(journal.clone()).await?;
        Ok(journal)
    }

    /// How many slots there are.
    pub fn slots(&self) -> u32 {
        self.log.capability().slots
    }

    /// Ends as a process does that is asked to: all that is out must have been given back by then.
    pub async fn stop(self) {
        self.delivery.stop(HANG).await;
        self.consume.finish().await;
        futures_util::future::join_all(self.journals.iter().map(Journal::close)).await;
        if let Some(Membership { claims, requests }) = &self.claims {
            claims.leave().await;
            if let Some(requests) = requests {
                requests.leave().await;
            }
        }
        self.log.close().await;
        self.environment.stop(HANG).await;
    }

    /// Dies at this moment, with all that is out.
    pub async fn crash(self, fixture: &Arc<dyn Fixture>) {
        fixture.crash().await;
        self.delivery.stop(HANG).await;
        self.environment.stop(HANG).await;
    }

    /// Creates a topic whose duplicates are not looked for.
    pub async fn topic(&self, name: &str, partitions: u32) -> Result<Arc<Topic>, Failure> {
        self.topic_with(name, partitions, Duration::ZERO).await
    }

    /// Creates a topic with that window for duplicates.
    pub async fn topic_with(&self, name: &str, partitions: u32, window: Duration) -> Result<Arc<Topic>, Failure> {
        let mut spec = TopicSpec::new(TopicName::parse(name)?, partitions, Origin::Api);
        spec.dedupe_window = window;
        Ok(self.consume.create_topic(spec).await?.0)
    }

    /// Creates a subscription to those topics from that place on.
    pub async fn subscribe(&self, spec: SubscriptionSpec, start: Start) -> Result<Sink, Failure> {
        let subscription = self.consume.create_subscription(SubscriptionSpec { from: start, ..spec }).await?;
        self.sink(&subscription)
    }

    /// The deliveries of a subscription that is there, by name.
    pub fn resume(&self, name: &str) -> Result<Sink, Failure> {
        let subscription = self.consume.catalogue().subscription(name);
        self.sink(&*subscription.ok_or_else(|| Failure::new(format!("subscription {name} is gone")))?)
    }

    fn sink(&self, subscription: &Subscription) -> Result<Sink, Failure> {
        let consumer = self
            .consume
            .consumer(subscription.uid)
            .ok_or_else(|| Failure::new(format!("subscription {} does not run", subscription.spec.name)))?;
        Ok(Sink { consumer: Arc::new(consumer), uid: subscription.uid, name: subscription.spec.name.to_string() })
    }

    /// Publishes and waits for the receipt.
    pub async fn publish(&self, topic: &Topic, event: Event) -> Result<Receipt, Failure> {
        Ok(self.publisher.publish(topic, event, HANG).await?)
    }

    /// Publishes many without waiting in between, and waits for all receipts.
    pub async fn publish_all(&self, topic: &Topic, events: Vec<Event>) -> Result<Vec<Receipt>, Failure> {
        let mut receipts = Vec::with_capacity(events.len());
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            // In parts that the queue of any adapter holds, however slow its disk: by their number and by their bytes.
            let (mut some, mut bytes) = (Vec::new(), 0);
            while some.len() < 1_000 && bytes < PUBLISHED_AT_ONCE_BYTES {
                let Some(event) = events.next() else { break };
                bytes += event.bytes();
                some.push(event);
            }
            for receipt in self.publisher.publish_all(topic, some, HANG).await {
                receipts.push(receipt?);
            }
        }
        Ok(receipts)
    }

    /// How a subscription stands.
    pub fn status(&self, sink: &Sink) -> Result<Status, Failure> {
        self.consume.status(sink.uid).ok_or_else(|| Failure::new(format!("subscription {} does not run", sink.name)))
    }

    /// Moves time on and lets delivery look at it: its waits are those of the machine, and may be long.
    pub async fn advance(&self, by: Duration, sink: &Sink) -> Outcome {
        self.clock.advance(by);
        self.consume.pause(&sink.name.as_str().into(), None).await?;
        Ok(())
    }

    /// Waits until it holds, of the status of a subscription.
    pub async fn until(&self, what: &str, sink: &Sink, holds: impl Fn(&Status) -> bool) -> Result<Status, Failure> {
        let mut seen = self.status(sink)?;
        let waited = tokio::time::timeout(HANG, async {
            while !holds(&seen) {
                tokio::time::sleep(Duration::from_millis(2)).await;
                seen = self.status(sink)?;
            }
            Ok::<_, Failure>(())
        });
        match waited.await {
            Ok(outcome) => outcome.map(|()| seen),
            Err(_) => Err(Failure::late(format!("expected {what} before long, seen {seen:?}"))),
        }
    }

    /// The keys of all slots with that prefix.
    pub fn keys(&self, prefix: &str) -> usize {
        self.journals.iter().map(|journal| journal.scan(prefix.as_bytes()).len()).sum()
    }

    /// Every record of a partition, from that position to the end as it is now.
    pub async fn records(&self, id: &LogId, from: Position) -> Result<Vec<Stored>, Failure> {
        records(self.log.as_ref(), id, from).await
    }

    /// Waits until the progress of delivery as it is now has been written down.
    pub async fn checkpointed(&self) {
        self.consume.finish().await;
    }
}

/// Every record of a log, from that position to the end as it is now.
pub(crate) async fn records(log: &dyn PartitionLog, id: &LogId, from: Position) -> Result<Vec<Stored>, Failure> {
    let end = log.info(id).await?.end;
    let mut tail = log.tail(id, from).await?;
    let mut records = Vec::new();
    while tail.position() < end {
        let batch = tokio::time::timeout(HANG, tail.next(256 * 1024)).await;
        records.extend(batch.map_err(|_| Failure::late(format!("{id} gives nothing before its end {end}")))??.records);
    }
    Ok(records)
}

/// Takes the deliveries of one subscription.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Where they come from.
    pub consumer: Arc<Consumer>,
    /// The subscription's uid.
    pub uid: u64,
    /// The subscription's name.
    pub name: String,
}

impl Sink {
    /// The next delivery, which must come.
    pub async fn next(&self) -> Result<Delivery, Failure> {
        let next = tokio::time::timeout(HANG, self.consumer.next()).await;
        let next = next.map_err(|_| Failure::late(format!("{}: expected a delivery, none came", self.name)))?;
        next.ok_or_else(|| Failure::new(format!("{}: expected a delivery, but deliveries have ended", self.name)))
    }

    /// The next delivery, which must be that event.
    pub async fn expect(&self, id: &str) -> Result<Delivery, Failure> {
        let delivery = self.next().await?;
        let seen = delivery.event().id().to_string();
        if seen == id { Ok(delivery) } else { Err(Failure::new(format!("{}: expected {id}, seen {seen}", self.name))) }
    }

    /// Takes and settles that many; gives their ids.
    pub async fn take(&self, count: usize) -> Result<Vec<String>, Failure> {
        let mut ids = Vec::with_capacity(count);
        for _ in 0..count {
            let delivery =
                self.next().await.map_err(|failure| failure.and(&format!("after {} of {count}", ids.len())))?;
            ids.push(delivery.event().id().to_string());
            delivery.done(&Attempt::default());
        }
        Ok(ids)
    }

    /// Takes that many and holds them.
    pub async fn hold(&self, count: usize) -> Result<Vec<Delivery>, Failure> {
        let mut held = Vec::with_capacity(count);
        for _ in 0..count {
            held.push(self.next().await.map_err(|failure| failure.and(&format!("after {} of {count}", held.len())))?);
        }
        Ok(held)
    }

    /// Nothing comes.
    pub async fn nothing(&self, why: &str) -> Outcome {
        match tokio::time::timeout(SILENCE, self.consumer.next()).await {
            Ok(Some(delivery)) => {
                Err(Failure::new(format!("{}: expected nothing {why}, seen {}", self.name, delivery.event().id())))
            }
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// An event; without a key where that is empty.
pub(crate) fn event(id: impl Into<String>, key: &str) -> Event {
    sized(id, key, 0)
}

/// An event with so many bytes of data.
pub(crate) fn sized(id: impl Into<String>, key: &str, bytes: usize) -> Event {
    let mut builder = Event::builder(id.into(), "/conformance", "com.example.case");
    if !key.is_empty() {
        builder = builder.extension("partitionkey", Value::String(key.into()));
    }
    if bytes > 0 {
        builder = builder.data(Data::Binary(vec![b'x'; bytes].into()));
    }
    builder.build().expect("the parts are valid")
}

/// A subscription to one topic or pattern.
pub(crate) fn subscription(name: &str, topics: &str) -> SubscriptionSpec {
    SubscriptionSpec {
        name: name.into(),
        topics: vec![TopicPattern::parse(topics).expect("cases name valid topics")],
        filters: Vec::new(),
        sink: "https://sink.example/".to_owned(),
        request: RequestSpec::default(),
        from: Start::Latest,
        order: Order::Key,
        max_in_flight: 32,
        timeout: Duration::from_secs(15),
        retry: RetryPolicy::default(),
        on_exhausted: OnExhausted::Continue,
        reply_to: None,
        dead_letter_topic: TopicName::dead_letter_of(name).expect("cases name valid subscriptions"),
        origin: Origin::Api,
    }
}

/// The ids of numbered events.
pub(crate) fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Numbered events over some keys, in turn.
pub(crate) fn events(range: std::ops::Range<usize>, keys: usize) -> Vec<Event> {
    range.map(|n| event(n.to_string(), &if keys == 0 { String::new() } else { format!("k{}", n % keys) })).collect()
}

/// The event of a record, which must be one.
pub(crate) fn event_of(stored: &Stored) -> Result<&Event, Failure> {
    match &stored.record {
        Record::Event(event) => Ok(event),
        Record::Frame(_) => Err(Failure::new(format!("expected an event at {}, seen a frame", stored.position))),
    }
}

/// An attempt that got that answer.
pub(crate) fn answer(status: u16) -> Attempt {
    Attempt { took: Duration::ZERO, status: Some(status), detail: format!("answer {status}") }
}

/// The reason of most dead letters of cases.
pub(crate) const EXHAUSTED: Reason = Reason::Exhausted;
