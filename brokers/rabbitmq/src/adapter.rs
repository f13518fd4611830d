//! The contract, on top of streams: what [`PartitionLog`] promises and how it is kept here.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use lapin::message::Delivery;
use parking_lot::RwLock;
use tidegate_backbone::{
    Appended, BoxFuture, Capability, Durability, Environment, Error, ErrorKind, LogId, LogInfo, LogSpec, PartitionLog,
    Position, Record, Result, Tail,
};
use tidegate_schemas::limits;
use tokio::sync::oneshot;

use crate::ask::{Asker, Ending, Start, StreamSettings, offset};
use crate::connection::Link;
use crate::error::{closed, not_found, not_yet};
use crate::lane::{self, Sender};
use crate::marks::Marks;
use crate::name::Names;
use crate::nodes::Nodes;
use crate::options::Options;
use crate::publisher::{Channels, Late, Manner, Message, Publisher, Taken};
use crate::recent::{Recent, Seen};
use crate::record::{appended_at, decode, encode};
use crate::registry::Registry;
use crate::stream::tls;
use crate::tail::{RabbitTail, Readers, Source, hash};
use crate::watch::Watches;

/// RabbitMQ, over one connection for records that are written, one for those that are read, one for questions, and one for lanes.
pub struct RabbitBroker {
    shared: Arc<Shared>,
    events: Publisher,
    frames: Publisher,
    pub(crate) lane: Sender,
    write: Arc<Link>,
    ask: Arc<Link>,
    lanes: Arc<Link>,
    capability: Capability,
}

/// What readers need beside.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) read: Arc<Link>,
    pub(crate) asker: Arc<Asker>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) environment: Environment,
    pub(crate) sizes: Sizes,
    pub(crate) marks: Marks,
    pub(crate) recent: Recent,
    pub(crate) watches: Watches,
    pub(crate) readers: Readers,
    pub(crate) names: Names,
    /// Topics of others: the name here, and the stream of each partition.
    attached: RwLock<HashMap<String, Attached>>,
    settings: StreamSettings,
    topic_age_max: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Attached {
    to: String,
    streams: Vec<String>,
}

/// About how large the records of streams are, of those that this process has appended and read.
#[derive(Debug, Default)]
pub(crate) struct Sizes(RwLock<HashMap<String, (u64, u64)>>);

impl Sizes {
    pub(crate) fn saw(&self, stream: &str, bytes: usize) {
        let bytes = bytes as u64;
        let mut sizes = self.0.write();
        match sizes.get_mut(stream) {
            Some((count, sum)) => (*count, *sum) = (*count + 1, *sum + bytes),
            None => {
                sizes.insert(stream.to_owned(), (1, bytes));
            }
        }
    }

    /// What so many records take.
    fn of(&self, stream: &str, records: u64) -> u64 {
        let sizes = self.0.read();
        let (count, sum) = sizes.get(stream).copied().unwrap_or((1, 0));
        u64::try_from(u128::from(sum) * u128::from(records) / u128::from(count.max(1))).unwrap_or(u64::MAX)
    }

    /// How many records a reader of that stream is given ahead.
    pub(crate) fn prefetch(&self, stream: &str) -> u16 {
        let Some(average) = self.0.read().get(stream).map(|(count, sum)| sum / count.max(&1)) else {
            return limits::RABBITMQ_PREFETCH / 4;
        };
        let fitting = limits::RABBITMQ_READ_BYTES / average.max(1);
        let most = limits::RABBITMQ_PREFETCH;
        u16::try_from(fitting).unwrap_or(most).clamp(limits::RABBITMQ_PREFETCH_MIN, most)
    }

    fn forget(&self, stream: &str) {
        self.0.write().remove(stream);
    }
}

impl fmt::Debug for RabbitBroker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RabbitBroker").field("unreachable", &self.unreachable()).finish_non_exhaustive()
    }
}

impl RabbitBroker {
    /// Connects, and creates what every gateway of the namespace needs: the list of logs and the exchanges of the lanes.
    ///
    /// # Errors
    /// At once, and saying what to mend: [`ErrorKind::Unavailable`] where nobody answers, [`ErrorKind::Denied`] for credentials
    /// and permissions, [`ErrorKind::Misconfigured`] for the rest. Afterwards a connection that is lost is mended for ever.
    pub async fn open(options: Options, environment: &Environment) -> Result<Arc<Self>> {
        options.check()?;
        let environment = environment.child();
        let opened = Self::open_in(Arc::new(options), environment.clone()).await;
        if opened.is_err() {
            environment.stopping().cancel();
        }
        opened
    }

    async fn open_in(options: Arc<Options>, environment: Environment) -> Result<Arc<Self>> {
        let tls = tls(&options)?;
        let write = Link::open("records to write", &options, tls.clone(), &environment).await?;
        let read = Link::open("records to read", &options, tls.clone(), &environment).await?;
        let ask = Link::open("questions", &options, tls.clone(), &environment).await?;
        let lanes = Link::open("lanes", &options, tls.clone(), &environment).await?;
        let names = Names::new(&options.namespace, &options.topic_prefix);
        let settings = StreamSettings {
            segment_bytes: options.segment_bytes,
            replicas: options.replicas,
            ..StreamSettings::default()
        };
        let nodes = Nodes::begin(&options, tls.as_ref(), &environment);
        let asker = Arc::new(Asker::new(Arc::clone(&ask), nodes));
        let registry = Arc::new(Registry::open(Arc::clone(&asker), names.logs(), settings).await?);
        lane::establish(&lanes, &names).await?;
        let manner = Manner {
            messages_max: options.queue_records,
            bytes_max: options.queue_bytes,
            waits: true,
            late: Late::EndsConnection,
            channels: Channels::EachQueue,
        };
        let publisher = || Publisher::start(Arc::clone(&write), &environment, manner);
        let (events, frames) = (publisher(), publisher());
        let manner = Manner {
            messages_max: limits::RABBITMQ_LANE_QUEUE,
            bytes_max: limits::RABBITMQ_LANE_QUEUE_BYTES,
            waits: false,
            late: Late::EndsConnection,
            channels: Channels::One,
        };
        let lane =
            Sender { publisher: Publisher::start(Arc::clone(&lanes), &environment, manner), names: names.clone() };
        let capability = Capability {
            broker: "rabbitmq",
            // No broker tells on how many nodes a stream is kept; who names three means a cluster, which keeps three.
            durability: if options.hosts.len() >= 3 { Durability::Replicated } else { Durability::Os },
            positions_acknowledged: false,
            record_bytes_max: limits::RABBITMQ_RECORD_BYTES,
            slots: options.slots,
            partitions_default: options.partitions_default,
            exclusive: false,
        };
        let shared = Arc::new(Shared {
            marks: Marks::new(Arc::clone(&asker), Arc::clone(&registry), options.replicas),
            read,
            asker,
            registry,
            environment,
            sizes: Sizes::default(),
            recent: Recent::default(),
            watches: Watches::default(),
            readers: Readers::default(),
            names,
            attached: RwLock::default(),
            settings,
            topic_age_max: options.topic_age_max,
        });
        Ok(Arc::new(Self { shared, events, frames, lane, write, ask, lanes, capability }))
    }

    /// Since when and why the broker cannot be reached, or takes no messages; none where it does.
    pub fn unreachable(&self) -> Option<String> {
        let blocked = || self.write.blocked().map(|reason| format!("RabbitMQ takes no messages for now: {reason}"));
        let away = [&self.write, &self.shared.read, &self.ask].into_iter().find_map(|link| link.unreachable());
        away.or_else(blocked)
    }

    pub(crate) fn lane_link(&self) -> &Arc<Link> {
        &self.lanes
    }

    fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        [&self.write, &self.shared.read, &self.ask, &self.lanes].into_iter().chain(self.shared.asker.links())
    }

    fn end(&self) {
        for link in self.links() {
            link.set_closed();
            link.cut();
        }
        self.shared.environment.stopping().cancel();
    }

    /// Ends everything at once, as the death of the process does: what was not sent never is.
    #[cfg(any(test, feature = "test-util"))]
    pub fn kill(&self) {
        self.end();
    }

    /// Makes the connections end and come again, as a cut of the network does.
    #[cfg(any(test, feature = "test-util"))]
    pub fn cut(&self) {
        for link in self.links() {
            link.cut();
        }
    }

    fn enqueue(&self, id: &LogId, record: Record) -> Result<oneshot::Receiver<Result<Taken>>> {
        let stream = self.shared.stream(id);
        let publisher = match id {
            LogId::Topic { .. } => &self.events,
            LogId::Slot { .. } | LogId::Outcomes { .. } => &self.frames,
        };
        let now = self.shared.environment.clock.unix_milliseconds();
        let encoded = encode(record, now, &self.shared.environment.memory)?;
        self.shared.sizes.saw(&stream, encoded.bytes);
        let message = Message {
            exchange: String::new(),
            key: stream,
            mandatory: true,
            properties: encoded.properties,
            body: encoded.body,
        };
        publisher.push(message, format!("an append to {id}").into(), Some(encoded.permit))
    }
}

impl Drop for RabbitBroker {
    fn drop(&mut self) {
        // Where it was closed nothing is left to end.
        self.end();
    }
}

impl Shared {
    /// The stream of a log.
    fn stream(&self, id: &LogId) -> String {
        if let LogId::Topic { topic, partition } = id
            && let Some(attached) = self.attached.read().get(&**topic)
            && let Some(stream) = attached.streams.get(*partition as usize)
        {
            return stream.clone();
        }
        self.names.stream(id)
    }

    fn is_attached(&self, id: &LogId) -> bool {
        matches!(id, LogId::Topic { topic, .. } if self.attached.read().contains_key(&**topic))
    }

    /// The error of a log that the broker says is not there. One that has just started may say so of a log that it has.
    pub(crate) async fn absent(&self, id: &LogId) -> Error {
        if !self.may_have_started() {
            return not_found(id);
        }
        match self.registry.lists(id).await {
            Ok(false) => not_found(id),
            // The broker may not know the list itself yet.
            _ => not_yet(id),
        }
    }

    /// Whether the broker may have started a moment ago.
    fn may_have_started(&self) -> bool {
        self.read.current().is_none_or(|open| open.is_new())
    }

    /// Where what can be read of a log begins and ends, as the node knows that is asked.
    pub(crate) async fn span(&self, id: &LogId, stream: &str) -> Result<(Position, Position)> {
        self.span_to(id, stream, self.asker.end(stream)).await
    }

    /// The same with an end that is asked for in some way.
    async fn span_to(
        &self,
        id: &LogId,
        stream: &str,
        ending: impl Future<Output = Result<Ending>>,
    ) -> Result<(Position, Position)> {
        // A stream that is empty begins with its first record; one that comes meanwhile is not left out.
        let first = async {
            let first = self.asker.at(stream, Start::First).await?;
            Ok::<_, Error>(first.as_ref().and_then(offset).map_or(Position::ZERO, Position))
        };
        let known = self.recent.begin(stream);
        let (first, ending, low) = match known {
            Some(begin) => (begin, ending.await?, Position::ZERO),
            None => {
                let (first, ending, low) = tokio::join!(first, ending, self.low(id, stream));
                (first?, ending?, low?)
            }
        };
        let (end, last) = (Position(ending.end), ending.records.last());
        if let Some(last) = last {
            self.sizes.saw(stream, last.data.len());
        }
        // Who asks for the end of a journal reads back up to it.
        if let LogId::Slot { .. } = id {
            let bytes = ending.records.iter().map(|record| record.data.len()).sum();
            let seen = ending.records.into_iter().filter_map(|record| self.seen(id, record)).collect();
            self.recent.saw(stream, known.is_none().then_some(first), seen, bytes);
        }
        Ok((first.max(low).min(end), end))
    }

    fn seen(&self, id: &LogId, record: Delivery) -> Option<Seen> {
        let (position, hash) = (Position(offset(&record)?), hash(&record));
        Some((decode(id, position, record, &self.environment.memory), hash))
    }

    /// How far a log was trimmed.
    pub(crate) async fn low(&self, id: &LogId, stream: &str) -> Result<Position> {
        match id {
            // Journals are never trimmed: they go as a whole.
            LogId::Slot { .. } => Ok(Position::ZERO),
            // What is somebody else's is trimmed by their retention alone.
            LogId::Topic { .. } if self.is_attached(id) => Ok(Position::ZERO),
            LogId::Topic { .. } | LogId::Outcomes { .. } => self.marks.ask(id, stream).await,
        }
    }

    /// What the broker tells of a log. Its end is linearizable, except of a stream of others: on how many nodes that is kept is
    /// not told.
    async fn info(&self, id: &LogId) -> Result<LogInfo> {
        let stream = self.stream(id);
        let span = if self.is_attached(id) {
            self.span(id, &stream).await
        } else {
            self.span_to(id, &stream, self.asker.agreed_end(&stream)).await
        };
        match span {
            Err(error) if *error.kind() == ErrorKind::NotFound => Err(self.absent(id).await),
            span => Ok(self.info_of(id, &stream, span?)),
        }
    }

    fn info_of(&self, id: &LogId, stream: &str, (begin, end): (Position, Position)) -> LogInfo {
        LogInfo { id: id.clone(), begin, end, bytes: self.sizes.of(stream, end.0 - begin.0) }
    }

    /// What the node tells of a log that is asked; one that has just started may tell that there is none.
    async fn told(&self, id: &LogId) -> Result<LogInfo> {
        let stream = self.stream(id);
        let span = self.span(id, &stream).await?;
        Ok(self.info_of(id, &stream, span))
    }

    async fn create(&self, spec: LogSpec) -> Result<()> {
        let mut settings = self.settings;
        if let LogSpec::Topic { topic, partitions } = &spec {
            if topic.len() > limits::TOPIC_NAME_BYTES {
                let (bytes, most) = (topic.len(), limits::TOPIC_NAME_BYTES);
                let context = format!("the topic's name has {bytes} bytes, and may have {most}");
                return Err(Error::new(ErrorKind::TooLarge { limit_bytes: most }, context));
            }
            let attached = self.attached.read().get(&**topic).cloned();
            if let Some(Attached { to, streams }) = attached {
                let count = streams.len();
                if count == *partitions as usize {
                    return Ok(());
                }
                let context =
                    format!("topic {topic} is attached to {to}, which has {count} partitions and not {partitions}");
                return Err(Error::new(ErrorKind::Conflict, context));
            }
            settings.age_max_seconds = self.topic_age_max.map(|age| age.as_secs());
        }
        self.registry.create(&spec).await?;
        let streams: Vec<String> = spec.logs().iter().map(|id| self.names.stream(id)).collect();
        let declare = async |stream: &String| {
            self.asker.declare(stream, settings).await?;
            self.asker.settled(stream).await
        };
        let declaring: Vec<_> = streams.iter().map(declare).collect();
        stream::iter(declaring).buffer_unordered(QUESTIONS_AT_ONCE).try_collect::<()>().await
    }

    async fn delete(&self, spec: LogSpec) -> Result<()> {
        let mut all = spec.clone();
        if let LogSpec::Topic { topic, partitions } = &spec {
            if self.attached.write().remove(&**topic).is_some() {
                return Ok(());
            }
            // All that there are, whatever the caller knows.
            let there = self.registry.partitions(&spec).await?.unwrap_or(0);
            all = LogSpec::topic(topic.clone(), there.max(*partitions));
        }
        for id in all.logs() {
            let stream = self.names.stream(&id);
            self.asker.delete(&stream).await?;
            self.marks.forget(&stream).await?;
            self.sizes.forget(&stream);
            self.recent.forget(&stream);
            self.watches.forget(&stream);
        }
        self.registry.delete(&spec).await
    }

    async fn attach(&self, topic: &str, to: &str) -> Result<u32> {
        if let Some(other) = self.attached.read().get(topic).filter(|other| other.to != to) {
            let context = format!("topic {topic} is attached to {} already, and cannot be attached to {to}", other.to);
            return Err(Error::new(ErrorKind::Conflict, context));
        }
        let mut streams = Vec::new();
        if self.asker.exists(to).await? {
            streams.push(to.to_owned());
        } else {
            loop {
                let partition = format!("{to}-{}", streams.len());
                if !self.asker.exists(&partition).await? {
                    break;
                }
                streams.push(partition);
            }
        }
        for stream in &streams {
            if !self.asker.is_stream(stream).await? {
                let context = format!(
                    "topic {topic} cannot be attached to {stream}: it is a queue, and only streams can be read"
                );
                return Err(Error::new(ErrorKind::Misconfigured, context));
            }
        }
        if streams.is_empty() {
            let context = format!("there is no stream {to} or {to}-0 on the RabbitMQ broker to attach {topic} to");
            return Err(Error::new(ErrorKind::NotFound, context));
        }
        let count = u32::try_from(streams.len()).unwrap_or(u32::MAX);
        self.attached.write().insert(topic.to_owned(), Attached { to: to.to_owned(), streams });
        Ok(count)
    }

    async fn list(&self) -> Result<Vec<LogInfo>> {
        let mut logs = self.registry.logs().await?;
        let attached: BTreeMap<String, usize> =
            self.attached.read().iter().map(|(name, attached)| (name.clone(), attached.streams.len())).collect();
        for (name, partitions) in attached {
            logs.extend(LogSpec::topic(name, u32::try_from(partitions).unwrap_or(u32::MAX)).logs());
        }
        let mut infos = Vec::new();
        let asking: Vec<_> = logs.iter().map(|id| self.told(id)).collect();
        for info in stream::iter(asking).buffer_unordered(QUESTIONS_AT_ONCE).collect::<Vec<_>>().await {
            match info {
                Ok(info) => infos.push(info),
                // It is being created or deleted, or whoever did so has died amid it.
                Err(error) if *error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        infos.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(infos)
    }

    /// Nothing is read of them: each gateway looks for every slot when it starts, and cleans up behind every slot that it comes to
    /// own, so that readers of all logs each time would be thousands.
    async fn generations(&self, slot: u32) -> Result<Vec<LogId>> {
        let (mut there, mut absent) = (Vec::new(), None);
        for id in self.registry.logs().await? {
            if !matches!(id, LogId::Slot { slot: of, .. } if of == slot) {
                continue;
            }
            if self.asker.exists(&self.names.stream(&id)).await? {
                there.push(id);
            } else {
                // It is being created or deleted, or whoever did so has died amid it.
                absent = Some(id);
            }
        }
        match absent {
            // A slot that had a log has one.
            Some(id) if there.is_empty() && self.may_have_started() => Err(not_yet(&id)),
            _ => Ok(there),
        }
    }

    /// Looked for by halves: a stream knows times by whole seconds of its own, and records carry theirs.
    async fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> Result<Position> {
        let LogInfo { begin, end, .. } = self.info(id).await?;
        let stream = self.stream(id);
        let (mut low, mut high) = (begin.0, end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.asker.at(&stream, Start::Offset(middle)).await?;
            // One that carries no time may be as late as any.
            let is_later = record.is_none_or(|record| {
                appended_at(&record.properties).is_none_or(|appended_at| appended_at >= unix_milliseconds)
            });
            if is_later {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(Position(low))
    }

    async fn trim(&self, id: &LogId, before: Position) -> Result<()> {
        let info = self.info(id).await?;
        let before = before.min(info.end);
        if before <= info.begin || self.is_attached(id) {
            return Ok(());
        }
        self.marks.set(id, &self.stream(id), before).await
    }
}

impl PartitionLog for RabbitBroker {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn durability_of(&self, topic: &str) -> Durability {
        // AMQP does not tell how many replicas a stream has that somebody else made.
        let is_attached = self.shared.attached.read().contains_key(topic);
        if is_attached { Durability::Os } else { self.capability.durability }
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.shared.create(spec))
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.shared.delete(spec))
    }

    fn attach<'a>(&'a self, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        Box::pin(self.shared.attach(topic, to))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        Box::pin(self.shared.list())
    }

    fn generations(&self, slot: u32) -> BoxFuture<'_, Result<Vec<LogId>>> {
        Box::pin(self.shared.generations(slot))
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        Box::pin(self.shared.info(id))
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        let (id, shared) = (id.clone(), Arc::clone(&self.shared));
        // Before the frame can be there.
        let place = match &record {
            Record::Frame(frame) => shared.watch(&id, frame),
            Record::Event(_) => None,
        };
        let queued = self.enqueue(&id, record);
        Box::pin(async move {
            match queued?.await {
                Ok(Ok(Taken::Yes)) => {
                    let position = match place {
                        Some(place) => place.told().await,
                        None => None,
                    };
                    Ok(Appended { position })
                }
                Ok(Ok(Taken::Nobody)) => Err(match shared.asker.exists(&shared.stream(&id)).await {
                    Ok(false) => shared.absent(&id).await,
                    // The broker has just started, or the stream was created meanwhile.
                    _ => not_yet(&id),
                }),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(closed().outcome_unknown()),
            }
        })
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        Box::pin(async move {
            let identity = if self.shared.is_attached(id) {
                None
            } else {
                match self.shared.registry.known_identity(id) {
                    Some(identity) => Some(identity),
                    None => self.shared.registry.identity(id).await?,
                }
            };
            let source = Source { id: id.clone(), stream: self.shared.stream(id), identity };
            let shared = Arc::clone(&self.shared);
            // Whoever writes to a journal compares what it relied on with what it reads from here on.
            shared.watches.compared(&source.stream);
            let tail = match shared.recent.take(&source.stream, from) {
                Some(records) => RabbitTail::behind(shared, source, from, records),
                None => RabbitTail::open(shared, source, from).await?,
            };
            Ok(Box::new(tail) as Box<dyn Tail>)
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        let id = id.clone();
        Box::pin(async move { self.shared.lookup(&id, unix_milliseconds).await })
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.shared.trim(id, before))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // New appends fail; those on their way get their outcome.
            for link in self.links() {
                link.set_closed();
            }
            self.events.settle().await;
            self.frames.settle().await;
            for link in self.links() {
                link.goodbye().await;
            }
            self.shared.environment.stop(CLOSE_GRACE).await;
        })
    }
}

/// Questions that one call asks at once: a part of those that there may be, because one that rests amid them keeps its own.
const QUESTIONS_AT_ONCE: usize = limits::RABBITMQ_QUESTIONS / 4;

/// What closing waits for the tasks, which end at once where nothing is wrong.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
