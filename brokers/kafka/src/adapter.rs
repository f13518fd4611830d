//! The contract, on topics of the broker: what [`PartitionLog`] and [`Lane`] promise and how it is kept here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rdkafka::admin::{AdminClient, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use tidegate_backbone::budget::Budget;
use tidegate_backbone::{
    Appended, BoxFuture, Capability, Durability, Environment, Error, ErrorKind, Inbox, Lane, LogId, LogInfo, LogSpec,
    NodeId, PartitionLog, Position, Record, Result, Tail,
};
use tidegate_schemas::limits;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Health};
use crate::error::{busy, closed, not_found, refusal};
use crate::lane::Lanes;
use crate::log::calls::Calls;
use crate::log::ends::{Ends, Place};
use crate::log::producer::{Outcome, Producer};
use crate::log::readers::Readers;
use crate::log::sizes::Sizes;
use crate::log::tail::{KafkaTail, Source};
use crate::log::together::Together;
use crate::log::topics::{Made, Topics, Use};
use crate::name::{Found, Names};
use crate::options::{Options, Purpose};
use crate::record::{Encoded, encode};

/// What a client tells that is heard at once, between two questions whether the broker answers.
const EVENTS_AT_ONCE: usize = 64;
/// Threads for calls that wait.
const CALL_THREADS: usize = 4;
/// How often a broker that cannot be reached is asked whether it is there again.
const PULSE_INTERVAL: Duration = Duration::from_secs(1);

/// Apache Kafka as the backbone.
pub struct KafkaBroker {
    shared: Arc<Shared>,
}

/// Readers and the writer of one group of logs: each group has connections of its own.
#[derive(Debug)]
struct Group {
    producer: Producer,
    readers: Arc<Readers>,
}

/// An append to a topic that is not known yet.
struct Waiting {
    partition: i32,
    log: Arc<str>,
    encoded: Encoded,
    answer: oneshot::Sender<Outcome>,
}

struct Shared {
    names: Names,
    capability: Capability,
    health: Arc<Health>,
    calls: Arc<Calls>,
    ends: Arc<Ends>,
    /// Times are looked up on disks, which must hold up nobody who asks for an end.
    lookups: Ends,
    topics: Topics,
    events: Group,
    frames: Group,
    lanes: Lanes,
    sizes: Arc<Sizes>,
    attached: RwLock<BTreeMap<String, Arc<str>>>,
    /// What acknowledged events of those survive.
    durabilities: RwLock<BTreeMap<String, Durability>>,
    waiting: Mutex<BTreeMap<Arc<str>, Vec<Waiting>>>,
    waiting_count: AtomicUsize,
    environment: Environment,
    memory: Budget,
    closed: CancellationToken,
}

impl fmt::Debug for KafkaBroker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KafkaBroker")
            .field("names", &self.shared.names)
            .field("unreachable", &self.unreachable())
            .finish_non_exhaustive()
    }
}

/// What is asked of the broker before anything else.
struct Cluster {
    nodes: usize,
    node: i32,
}

/// Asks until the broker answers, refuses, or the time is over. Waits: not for a task of the runtime.
fn reach(ask: &BaseConsumer<Context>, options: &Options) -> Result<Cluster> {
    let health = &ask.context().health;
    let addresses = options.bootstrap.join(", ");
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(500);
    loop {
        let answered = ask.fetch_metadata(None, step);
        // Serves the events that say what is wrong: those that are there, and those of a moment, which is also spent here
        // where the answer came at once because no connection is there.
        for _ in 0..EVENTS_AT_ONCE {
            if ask.poll(Duration::from_millis(20)).is_none() {
                break;
            }
        }
        let error = match answered {
            Ok(metadata) if !metadata.brokers().is_empty() => {
                health.up();
                let node = metadata.brokers().first().map_or(0, rdkafka::metadata::MetadataBroker::id);
                return Ok(Cluster { nodes: metadata.brokers().len(), node });
            }
            Ok(_) => None,
            Err(error) => Some(error),
        };
        waited += step;
        let told = health.last();
        if let Some((kind @ (ErrorKind::Denied | ErrorKind::Misconfigured), reason)) = told {
            let mend = refusal(&reason).map(|(_, mend)| format!("{mend}: ")).unwrap_or_default();
            let context = match kind {
                ErrorKind::Denied => format!("the Kafka broker at {addresses} refuses the credentials; {mend}{reason}"),
                _ => format!("no encrypted connection to the Kafka broker at {addresses}: {mend}{reason}"),
            };
            return Err(Error::new(kind, context));
        }
        if waited >= limits::KAFKA_OPEN_TIMEOUT {
            let reason = told.map_or_else(|| "it does not answer".to_owned(), |(_, reason)| reason);
            let wants = match (&options.tls, &options.sasl) {
                (None, None) => "TLS (kafka+ssl://) or credentials",
                (None, Some(_)) => "TLS (kafka+ssl://)",
                (Some(_), None) => "credentials too",
                (Some(_), Some(_)) => "a certificate of its clients",
            };
            let context = format!(
                "the Kafka broker at {addresses} cannot be reached: {reason}; check the address, whether its port wants \
                 {wants}, and that the broker's advertised.listeners name addresses that this machine can reach"
            );
            let unreachable = Error::new(ErrorKind::Unavailable, context);
            return Err(match error {
                Some(error) => unreachable.with_source(error),
                None => unreachable,
            });
        }
    }
}

fn no_client(error: KafkaError) -> Error {
    Error::new(ErrorKind::Misconfigured, "the settings of the Kafka client cannot be used").with_source(error)
}

impl KafkaBroker {
    /// Connects to the broker. Fails within [`limits::KAFKA_OPEN_TIMEOUT`] where it cannot be reached or refuses the
    /// credentials, and says why.
    pub async fn open(options: Options, environment: &Environment) -> Result<Arc<Self>> {
        options.check()?;
        let health = Health::new(Arc::clone(&environment.clock));
        let calls = Arc::new(Calls::new(CALL_THREADS)?);
        let opened = Self::connect(options, environment, &health, &calls).await;
        if opened.is_err() {
            let thread = std::thread::Builder::new().name("tidegate-kafka-end".to_owned());
            let _ = thread.spawn(move || calls.close());
        }
        opened
    }

    async fn connect(
        options: Options,
        environment: &Environment,
        health: &Arc<Health>,
        calls: &Arc<Calls>,
    ) -> Result<Arc<Self>> {
        let (asks, context, known) = (options.client(Purpose::Ask), Context::new(health), options.clone());
        let (ask, admin, cluster) = calls
            .run(move || {
                let ask = BaseConsumer::from_config_and_context(&asks, context.clone()).map_err(no_client)?;
                let cluster = reach(&ask, &known)?;
                let admin = AdminClient::from_config_and_context(&asks, context).map_err(no_client)?;
                Ok((Arc::new(ask), admin, cluster))
            })
            .await?;
        let replication = options.replication.unwrap_or(if cluster.nodes >= 3 { 3 } else { 1 });
        let names = Names { namespace: options.namespace.clone(), prefix: options.topic_prefix.clone() };
        let ends = Arc::new(Ends::new(Arc::clone(&ask))?);
        let lookups = Ends::new(Arc::clone(&ask))?;
        let mut topics = Topics {
            admin,
            ask,
            calls: Arc::clone(calls),
            replication,
            batch_bytes: limits::KAFKA_BATCH_BYTES,
            known: RwLock::default(),
            creations: Together::new("topics to create", limits::KAFKA_CREATIONS),
            looks: Together::new("topics to look for", limits::KAFKA_CALLS),
        };
        topics.batch_bytes = batch_bytes(&topics, cluster.node).await?;
        let lanes: Arc<str> = names.lanes().into();
        let lane_partitions = match topics.partitions(&lanes).await? {
            Some(partitions) if partitions >= 2 => partitions,
            Some(_) => {
                let context = format!("topic {lanes} has one partition, and at least two are needed; delete it");
                return Err(Error::new(ErrorKind::Misconfigured, context));
            }
            None => {
                topics.create(&lanes, limits::KAFKA_LANES, Use::Lanes).await?;
                limits::KAFKA_LANES
            }
        };
        let batch_bytes = topics.batch_bytes;
        let producer = |purpose| {
            let (records, bytes) = match purpose {
                Purpose::WriteLanes => (limits::KAFKA_LANE_QUEUE, limits::KAFKA_LANE_QUEUE_BYTES),
                _ => (options.queue_records, options.queue_bytes),
            };
            Producer::new(options.client(purpose), (records, bytes, batch_bytes), health, calls)
        };
        let readers = |purpose| Readers::new(options.client(purpose), health).map(Arc::new);
        let closed = CancellationToken::new();
        let shared = Arc::new(Shared {
            capability: Capability {
                broker: "kafka",
                durability: durability(replication > 1),
                positions_acknowledged: true,
                record_bytes_max: batch_bytes - limits::KAFKA_BATCH_HEADROOM_BYTES,
                slots: options.slots,
                partitions_default: options.partitions_default,
                exclusive: false,
            },
            events: Group { producer: producer(Purpose::WriteTopics)?, readers: readers(Purpose::ReadTopics)? },
            frames: Group { producer: producer(Purpose::WriteSlots)?, readers: readers(Purpose::ReadSlots)? },
            lanes: Lanes {
                topic: lanes,
                partitions: lane_partitions,
                producer: producer(Purpose::WriteLanes)?,
                reads: options.client(Purpose::ReadLanes),
                ends: Arc::clone(&ends),
                calls: Arc::clone(calls),
                health: Arc::clone(health),
                memory: environment.memory.clone(),
                closed: closed.clone(),
            },
            names,
            health: Arc::clone(health),
            calls: Arc::clone(calls),
            ends,
            lookups,
            topics,
            sizes: Arc::default(),
            attached: RwLock::default(),
            durabilities: RwLock::default(),
            waiting: Mutex::default(),
            waiting_count: AtomicUsize::new(0),
            environment: environment.clone(),
            memory: environment.memory.clone(),
            closed,
        });
        let pulse = Arc::downgrade(&shared);
        let (closed, stopping) = (shared.closed.clone(), environment.stopping().clone());
        environment.spawn(async move {
            loop {
                tokio::select! {
                    () = closed.cancelled() => return,
                    // Whoever stops the environment waits for this task, and may close the broker only afterwards.
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(PULSE_INTERVAL) => {}
                }
                match pulse.upgrade() {
                    Some(shared) => shared.pulse().await,
                    None => return,
                }
            }
        });
        Ok(Arc::new(Self { shared }))
    }

    /// Ends at once, as a process does that is killed: what becomes of appends that are under way is not known.
    pub async fn abort(&self) {
        self.end(false).await;
    }

    async fn end(&self, flush: bool) {
        let shared = Arc::clone(&self.shared);
        let (done, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("tidegate-kafka-end".to_owned()).spawn(move || {
            shared.close(flush);
            drop(done);
        });
        if thread.is_ok() {
            let _ = ended.await;
        }
    }

    /// Since when and why the broker cannot be reached, where that is so.
    pub fn unreachable(&self) -> Option<String> {
        self.shared.health.unreachable()
    }
}

/// What a batch of records may take: what the broker allows, where it tells.
async fn batch_bytes(topics: &Topics, node: i32) -> Result<usize> {
    let found = match topics.describe(ResourceSpecifier::Broker(node)).await {
        Ok(settings) => settings.get("message.max.bytes").and_then(|value| value.parse().ok()),
        Err(error) if *error.kind() == ErrorKind::Denied => None,
        Err(error) => return Err(error),
    };
    let bytes = found.map_or(limits::KAFKA_BATCH_BYTES, |found: usize| found.min(limits::KAFKA_BATCH_BYTES));
    if bytes < limits::KAFKA_BATCH_BYTES_MIN {
        let context = format!(
            "the broker takes messages of {bytes} bytes (message.max.bytes), and at least {} are needed",
            limits::KAFKA_BATCH_BYTES_MIN
        );
        return Err(Error::new(ErrorKind::Misconfigured, context));
    }
    Ok(bytes)
}

impl Drop for KafkaBroker {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        // Letting go of clients waits for their connections, which no task of the runtime may.
        let thread = std::thread::Builder::new().name("tidegate-kafka-end".to_owned());
        let _ = thread.spawn(move || shared.close(false));
    }
}

impl Shared {
    async fn pulse(&self) {
        let ask = &self.topics.ask;
        while ask.poll(Duration::ZERO).is_some() {}
        if self.health.is_down() {
            let ask = Arc::clone(ask);
            let _ = self
                .calls
                .run(move || {
                    if ask.fetch_metadata(None, PULSE_INTERVAL).is_ok() {
                        ask.context().health.up();
                    }
                    Ok(())
                })
                .await;
        }
    }

    /// Waits: not for a task of the runtime.
    fn close(&self, flush: bool) {
        self.closed.cancel();
        for group in [&self.events, &self.frames] {
            group.producer.close(flush);
            group.readers.close();
        }
        self.lanes.producer.close(flush);
        self.ends.close();
        self.lookups.close();
        self.calls.close();
    }

    fn place(&self, id: &LogId) -> Place {
        match id {
            LogId::Topic { topic, partition } => (self.topic(topic), i32::try_from(*partition).unwrap_or(i32::MAX)),
            id => (self.names.of_slot(id).unwrap_or_default().into(), 0),
        }
    }

    /// The name of a topic on the broker.
    fn topic(&self, topic: &str) -> Arc<str> {
        match self.attached.read().get(topic) {
            Some(name) => Arc::clone(name),
            None => self.names.topic(topic).into(),
        }
    }

    fn group(&self, id: &LogId) -> &Group {
        match id {
            LogId::Topic { .. } => &self.events,
            LogId::Slot { .. } | LogId::Outcomes { .. } => &self.frames,
        }
    }

    fn open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(closed()) } else { Ok(()) }
    }

    /// The place of a log that is there.
    async fn there(&self, id: &LogId) -> Result<Place> {
        self.open()?;
        let place = self.place(id);
        if self.topics.find(&place.0, place.1).await? { Ok(place) } else { Err(not_found(&id.to_string())) }
    }

    /// Creates a topic, and lets the client that writes to it know.
    async fn make(self: &Arc<Self>, topic: String, partitions: i32, of: Use) -> Result<()> {
        let known = self.topics.knows(&topic, partitions - 1);
        let made = self.topics.create(&topic, partitions, of).await?;
        if known && made == Made::Found {
            // Its leaders have answered before, and the client that writes to it knows them.
            return Ok(());
        }
        self.until_led(&topic, partitions).await?;
        let shared = Arc::clone(self);
        self.calls
            .run(move || {
                let group = if of == Use::Events { &shared.events } else { &shared.frames };
                group.producer.find_leader(&topic);
                Ok(())
            })
            .await
    }

    /// Waits until every leader answers for its partition: until then it refuses appends, whatever the metadata say.
    async fn until_led(&self, topic: &str, partitions: i32) -> Result<()> {
        let name: Arc<str> = topic.into();
        let places: Vec<Place> = (0..partitions).map(|partition| (Arc::clone(&name), partition)).collect();
        let mut waited = Duration::ZERO;
        while self.ends.ask(places.clone()).await?.len() < places.len() {
            if waited >= limits::KAFKA_LEADER_TIMEOUT {
                let context = format!("topic {topic} was created, and not every partition has a leader that answers");
                return Err(Error::new(ErrorKind::Unavailable, context).outcome_unknown());
            }
            let step = Duration::from_millis(50);
            tokio::time::sleep(step).await;
            waited += step;
        }
        Ok(())
    }

    fn enqueue(self: &Arc<Self>, id: &LogId, record: Record) -> Result<oneshot::Receiver<Outcome>> {
        self.open()?;
        let (topic, partition) = self.place(id);
        let log: Arc<str> = id.to_string().into();
        // What the client is given while it has no connection it may send at any later moment: of that nobody could say
        // whether it was stored. Whoever publishes is told at once, and tries again; a slot's owner waits in any case.
        if matches!(id, LogId::Topic { .. })
            && let Some(reason) = self.health.unreachable()
        {
            return Err(Error::new(ErrorKind::Unavailable, format!("an append to {log} was not begun: {reason}")));
        }
        let encoded = encode(record, self.capability.record_bytes_max, &self.memory)?;
        let place = (topic, partition);
        self.sizes.saw(&place, 1, encoded.bytes);
        let (topic, partition) = place;
        let producer = &self.group(id).producer;
        if self.waiting_count.load(Ordering::Acquire) == 0 && self.topics.knows(&topic, partition) {
            return Ok(producer.send(&topic, partition, &log, encoded));
        }
        let mut waiting = self.waiting.lock();
        if !waiting.contains_key(&topic) && self.topics.knows(&topic, partition) {
            return Ok(producer.send(&topic, partition, &log, encoded));
        }
        if self.waiting_count.load(Ordering::Acquire) >= limits::KAFKA_CALLS {
            return Err(busy("appends to topics that are looked for"));
        }
        // Asked for first: the client would wait long for a topic that is not there. In order, whatever comes meanwhile.
        let (answer, outcome) = oneshot::channel();
        self.waiting_count.fetch_add(1, Ordering::Release);
        let queue = waiting.entry(Arc::clone(&topic)).or_default();
        queue.push(Waiting { partition, log, encoded, answer });
        if queue.len() == 1 {
            let (shared, events) = (Arc::clone(self), matches!(id, LogId::Topic { .. }));
            self.environment.spawn(async move { shared.look_for(topic, events).await });
        }
        Ok(outcome)
    }

    /// Finds out whether a topic is there, and sends or refuses what waits for it.
    async fn look_for(&self, topic: Arc<str>, events: bool) {
        let found = self.topics.partitions(&topic).await;
        let producer = if events { &self.events.producer } else { &self.frames.producer };
        let mut waiting = self.waiting.lock();
        let queue = waiting.remove(&topic).unwrap_or_default();
        let count = queue.len();
        for Waiting { partition, log, encoded, answer } in queue {
            match &found {
                Ok(Some(partitions)) if partition < *partitions => {
                    producer.send_to(&topic, partition, &log, encoded, answer);
                }
                Ok(_) => {
                    let _ = answer.send(Err(not_found(&log)));
                }
                Err(error) => {
                    let _ = answer.send(Err(Error::new(error.kind().clone(), error.to_string())));
                }
            }
        }
        if let Ok(Some(partitions)) = found {
            self.topics.known.write().insert(topic, partitions);
        }
        self.waiting_count.fetch_sub(count, Ordering::Release);
    }

    /// The logs of the broker, each with its place.
    async fn logs(&self) -> Result<Vec<(LogId, Place)>> {
        let attached: BTreeMap<Arc<str>, String> =
            self.attached.read().iter().map(|(name, topic)| (Arc::clone(topic), name.clone())).collect();
        let mut logs = Vec::new();
        for (topic, partitions) in self.topics.all().await? {
            let topic: Arc<str> = topic.into();
            let found = match attached.get(&topic) {
                Some(name) => Some(Found::Topic(name.as_str().into())),
                None => self.names.read(&topic),
            };
            match found {
                None => continue,
                Some(Found::Single(id)) => logs.push((id, (Arc::clone(&topic), 0))),
                Some(Found::Topic(name)) => {
                    let each = (0..partitions).zip(0..).map(|(partition, number)| {
                        (LogId::Topic { topic: name.clone(), partition: number }, (Arc::clone(&topic), partition))
                    });
                    logs.extend(each);
                }
            }
            self.topics.known.write().insert(topic, partitions);
        }
        Ok(logs)
    }

    async fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> Result<Position> {
        let place = self.there(id).await?;
        Ok(Position(self.lookups.since(place, unix_milliseconds, id).await?))
    }
}

/// What an acknowledged record of a topic survives: no node writes it to its disk first.
fn durability(is_replicated: bool) -> Durability {
    if is_replicated { Durability::Replicated } else { Durability::Os }
}

impl PartitionLog for KafkaBroker {
    fn capability(&self) -> &Capability {
        &self.shared.capability
    }

    fn durability_of(&self, topic: &str) -> Durability {
        self.shared.durabilities.read().get(topic).copied().unwrap_or(self.shared.capability.durability)
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.shared.open()?;
            match spec {
                LogSpec::Topic { topic, partitions } => {
                    if topic.len() > limits::TOPIC_NAME_BYTES {
                        let kind = ErrorKind::TooLarge { limit_bytes: limits::TOPIC_NAME_BYTES };
                        let bytes = topic.len();
                        let most = limits::TOPIC_NAME_BYTES;
                        return Err(Error::new(
                            kind,
                            format!("the topic's name has {bytes} bytes, and may have {most}"),
                        ));
                    }
                    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
                    let attached = self.shared.attached.read().get(&*topic).cloned();
                    if let Some(name) = attached {
                        let there = self.shared.topics.partitions(&name).await?;
                        if there == Some(partitions) {
                            return Ok(());
                        }
                        let context = format!(
                            "topic {topic} is attached to {name}, which has {there:?} partitions and not {partitions}"
                        );
                        return Err(Error::new(ErrorKind::Conflict, context));
                    }
                    self.shared.make(self.shared.names.topic(&topic), partitions, Use::Events).await
                }
                LogSpec::Single(id) => {
                    let (topic, _) = self.shared.place(&id);
                    self.shared.make(topic.to_string(), 1, Use::Frames).await
                }
            }
        })
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.shared.open()?;
            let topic = match &spec {
                LogSpec::Topic { topic, .. } => {
                    if self.shared.attached.write().remove(&**topic).is_some() {
                        self.shared.durabilities.write().remove(&**topic);
                        return Ok(());
                    }
                    self.shared.names.topic(topic)
                }
                LogSpec::Single(id) => self.shared.place(id).0.to_string(),
            };
            self.shared.sizes.forget(&topic);
            self.shared.topics.delete(&topic).await
        })
    }

    fn attach<'a>(&'a self, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        Box::pin(async move {
            self.shared.open()?;
            if let Some(other) = self.shared.attached.read().get(topic).filter(|other| &***other != to) {
                let context = format!("topic {topic} is attached to {other} already, and cannot be attached to {to}");
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            let there = self.shared.topics.look(to).await?.filter(|there| there.partitions() > 0);
            let there = there.ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("there is no topic {to} on the Kafka broker to attach {topic} to"),
                )
            })?;
            let partitions = there.partitions();
            self.shared.topics.known.write().insert(to.into(), partitions);
            self.shared.durabilities.write().insert(topic.to_owned(), durability(there.replicas > 1));
            self.shared.attached.write().insert(topic.to_owned(), to.into());
            Ok(partitions.unsigned_abs())
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        Box::pin(async move {
            self.shared.open()?;
            let logs = self.shared.logs().await?;
            let spans = self.shared.ends.ask(logs.iter().map(|(_, place)| place.clone()).collect()).await?;
            // What was deleted meanwhile has no ends any more.
            let mut infos: Vec<LogInfo> = logs
                .into_iter()
                .filter_map(|(id, place)| {
                    let (begin, end) = *spans.get(&place)?;
                    let bytes = self.shared.sizes.of(&place, end - begin);
                    Some(LogInfo { id, begin: Position(begin), end: Position(end), bytes })
                })
                .collect();
            infos.sort_by(|left, right| left.id.cmp(&right.id));
            Ok(infos)
        })
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        Box::pin(async move {
            let place = self.shared.there(id).await?;
            let (begin, end) = self.shared.ends.one(place.clone(), id).await?;
            let bytes = self.shared.sizes.of(&place, end - begin);
            Ok(LogInfo { id: id.clone(), begin: Position(begin), end: Position(end), bytes })
        })
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        let queued = self.shared.enqueue(id, record);
        Box::pin(async move {
            queued?.await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unknown, "Kafka was closed before it told what became of an append"))
            })
        })
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        Box::pin(async move {
            let place = self.shared.there(id).await?;
            let source = Source {
                readers: Arc::clone(&self.shared.group(id).readers),
                ends: Arc::clone(&self.shared.ends),
                calls: Arc::clone(&self.shared.calls),
                sizes: Arc::clone(&self.shared.sizes),
                memory: self.shared.memory.clone(),
                closed: self.shared.closed.clone(),
            };
            Ok(Box::new(KafkaTail::open(id.clone(), place, from, source).await?) as Box<dyn Tail>)
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        let id = id.clone();
        Box::pin(async move { self.shared.lookup(&id, unix_milliseconds).await })
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let place = self.shared.there(id).await?;
            let (begin, end) = self.shared.ends.one(place.clone(), id).await?;
            let before = before.0.min(end);
            if before <= begin {
                return Ok(());
            }
            self.shared.topics.trim(&place, before, &id.to_string()).await
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end(true))
    }
}

impl Lane for KafkaBroker {
    fn message_bytes_max(&self) -> usize {
        limits::KAFKA_LANE_MESSAGE_BYTES
    }

    fn receive(&self, node: NodeId) -> BoxFuture<'_, Result<Box<dyn Inbox>>> {
        Box::pin(async move {
            self.shared.open()?;
            self.shared.lanes.receive(node).await
        })
    }

    fn send(&self, to: NodeId, message: Bytes) -> BoxFuture<'static, Result<()>> {
        self.shared.lanes.send(Some(to), &message)
    }

    fn broadcast(&self, message: Bytes) -> BoxFuture<'static, Result<()>> {
        self.shared.lanes.send(None, &message)
    }
}
