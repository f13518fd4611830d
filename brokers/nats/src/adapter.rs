//! The contract, on top of streams: what [`PartitionLog`] promises and how it is kept here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidegate_backbone::{
    Appended, BoxFuture, Capability, Durability, Environment, Error, ErrorKind, LogId, LogInfo, LogSpec, PartitionLog,
    Position, Record, Result, Tail,
};
use tidegate_schemas::limits;

use crate::api::{Created, NewStream, Start, Stream, Which, position};
use crate::append::{Appender, Outcome};
use crate::connection::Connection;
use crate::error::{REPLICAS_REFUSED, closed, misconfigured, not_found};
use crate::lane::Sender;
use crate::name::Names;
use crate::options::Options;
use crate::record::{Place, encode};
use crate::tail::NatsTail;
use crate::target::{Target, Targets};
use crate::trims::Trims;

/// NATS with JetStream, over one connection.
pub struct NatsBroker {
    pub(crate) shared: Arc<Shared>,
    appender: Arc<Appender>,
    pub(crate) lane: Sender,
    capability: Capability,
}

/// What readers need beside.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) connection: Arc<Connection>,
    pub(crate) targets: Targets,
    pub(crate) trims: Trims,
    pub(crate) environment: Environment,
    pub(crate) tail_bytes: usize,
    replicas: u32,
}

impl fmt::Debug for NatsBroker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NatsBroker")
            .field("address", &self.shared.connection.address)
            .field("unreachable", &self.unreachable())
            .finish_non_exhaustive()
    }
}

impl NatsBroker {
    /// Connects and looks whether the server is fit. Creates the one stream of the namespace that every gateway needs.
    ///
    /// # Errors
    /// At once, and saying what to mend: [`ErrorKind::Unavailable`] where nobody answers, [`ErrorKind::Denied`] for credentials
    /// and permissions, [`ErrorKind::Misconfigured`] for the rest. Afterwards a connection that is lost is mended for ever.
    pub async fn open(options: Options, environment: &Environment) -> Result<Arc<Self>> {
        let connection = Arc::new(Connection::open(&options, environment).await?);
        let environment = environment.child();
        let opened = Self::open_on(Arc::clone(&connection), options, environment.clone()).await;
        if opened.is_err() {
            connection.set_closed();
            environment.stopping().cancel();
        }
        opened
    }

    async fn open_on(connection: Arc<Connection>, options: Options, environment: Environment) -> Result<Arc<Self>> {
        let names = Names::new(&options.namespace, &options.topic_prefix);
        let replicas = establish(&connection, &names, options.replicas).await?;
        let capability = Capability {
            broker: "nats",
            // No server tells whether it synchronises its disk before it acknowledges; by default none does.
            durability: if replicas > 1 { Durability::Replicated } else { Durability::Os },
            positions_acknowledged: true,
            record_bytes_max: connection.record_bytes_max,
            slots: options.slots,
            partitions_default: 4,
            exclusive: false,
        };
        let told = connection
            .client
            .subscribe(names.trims().1)
            .await
            .map_err(|error| connection.down("following what is trimmed").with_source(error))?;
        let appender =
            Appender::start(Arc::clone(&connection), &environment, options.queue_records, options.queue_bytes).await?;
        let lane = Sender::start(Arc::clone(&connection), &environment);
        connection.settle("opening the NATS backbone", names.nobody()).await?;
        let shared = Arc::new(Shared {
            connection,
            targets: Targets::new(names),
            trims: Trims::default(),
            environment: environment.clone(),
            tail_bytes: options.tail_bytes,
            replicas,
        });
        let (kept, nobody) = (Arc::clone(&shared.connection), shared.targets.names.nobody());
        let stopping = environment.stopping().clone();
        environment.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = kept.keep(nobody) => {}
            }
        });
        let follower = Arc::clone(&shared);
        environment.clone().spawn(async move { follower.trims.follow(told, environment).await });
        Ok(Arc::new(Self { shared, appender, lane, capability }))
    }

    /// Since when and why the servers cannot be reached; none where they can.
    pub fn unreachable(&self) -> Option<String> {
        self.shared.connection.unreachable()
    }

    /// The version of the server that it is connected to.
    pub fn version(&self) -> Option<String> {
        let version = self.shared.connection.client.server_info().version;
        Some(version).filter(|version| !version.is_empty())
    }

    /// Ends everything at once, as the death of the process does: what was not sent never is.
    #[cfg(any(test, feature = "test-util"))]
    pub fn kill(&self) {
        self.shared.connection.set_closed();
        self.shared.environment.stopping().cancel();
        self.appender.fail_all();
    }

    /// Makes the connection end and come again, as a cut of the network does.
    #[cfg(any(test, feature = "test-util"))]
    pub async fn cut(&self) {
        // An error means that the client has ended, and then there is nothing to cut.
        let _ = self.shared.connection.client.force_reconnect().await;
    }
}

impl Drop for NatsBroker {
    fn drop(&mut self) {
        // Where it was closed nothing is left to end.
        self.shared.connection.set_closed();
        self.shared.environment.stopping().cancel();
        self.appender.fail_all();
    }
}

/// Makes sure of the stream that the whole namespace shares; gives on how many servers it, and so every other stream, is kept.
async fn establish(connection: &Connection, names: &Names, replicas: Option<u32>) -> Result<u32> {
    let (name, subject) = names.trims();
    let tried = replicas.map_or_else(|| vec![3, 1], |replicas| vec![replicas]);
    for (attempt, replicas) in tried.iter().enumerate() {
        let stream = NewStream {
            name: name.clone(),
            subjects: vec![subject.clone()],
            description: names.description(),
            replicas: *replicas,
            sealed: false,
            newest_only: true,
        };
        match connection.create_stream(&stream).await? {
            Created::Done(_) | Created::Exists => break,
            Created::Refused(refusal) if REPLICAS_REFUSED.contains(&refusal.err_code) && attempt + 1 < tried.len() => {}
            Created::Refused(refusal) => {
                let action = format!("creating the stream {name}");
                return Err(refusal.error(&action, connection.record_bytes_max));
            }
        }
    }
    let stream = connection.stream(&name, None).await?;
    let stream = stream.ok_or_else(|| misconfigured(format!("the stream {name} goes as soon as it is created")))?;
    if stream.config.description != names.description() {
        return Err(misconfigured(format!(
            "the stream {name} was made by somebody else; choose another namespace, or delete it"
        )));
    }
    if let Some(wanted) = replicas
        && wanted != stream.config.num_replicas
    {
        return Err(misconfigured(format!(
            "the stream {name} is kept on {} servers and not on {wanted}; set replicas to what the cluster was created \
             with, or change its streams with `nats stream edit --replicas`",
            stream.config.num_replicas
        )));
    }
    Ok(stream.config.num_replicas.max(1))
}

impl Shared {
    /// A log's begin and end, asked of the leader of its stream.
    async fn info(&self, target: &Target) -> Result<LogInfo> {
        let connection = &self.connection;
        let missing = |stream: Option<Stream>| stream.ok_or_else(|| not_found(&target.id));
        let Some(filter) = &target.filter else {
            let state = missing(connection.stream(&target.stream, None).await?)?.state;
            return Ok(LogInfo { id: target.id.clone(), begin: state.begin(), end: state.end(), bytes: state.bytes });
        };
        let trimmed = async {
            match target.partition() {
                Some((topic, partition)) if !target.attached => {
                    self.trims.ask(connection, &self.targets.names, topic, partition).await
                }
                _ => Ok(Position::ZERO),
            }
        };
        let not_there = |error: Error| match error.kind() {
            ErrorKind::NotFound => not_found(&target.id),
            _ => error,
        };
        let (stream, last, first, trimmed) = tokio::join!(
            connection.stream(&target.stream, Some(filter)),
            connection.message(&target.stream, Which::Last(filter)),
            connection.message(&target.stream, Which::From(filter, Position::ZERO)),
            trimmed,
        );
        let state = missing(stream?)?.state;
        let (last, first, trimmed) = (last.map_err(not_there)?, first.map_err(not_there)?, trimmed?);
        // Where there is no record, the place where one was or can be: what went is behind it in any case.
        let empty = if target.attached { state.begin() } else { trimmed };
        let end = last.map_or(empty, |last| last.position().next()).max(trimmed);
        let begin = first.map_or(end, |first| first.position()).min(end);
        Ok(LogInfo { id: target.id.clone(), begin, end, bytes: state.bytes_of_subjects() })
    }

    /// How many records stand at that position or behind it: what the stream counts for all of a partition, and what a
    /// reader that began there would be told that there is for it.
    async fn count(&self, target: &Target, from: Position) -> Result<u64> {
        let (connection, filter) = (&self.connection, target.filter.as_deref());
        let stream = connection.stream(&target.stream, filter).await?.ok_or_else(|| not_found(&target.id))?;
        let state = stream.state;
        if from >= state.end() {
            return Ok(0);
        }
        if from <= state.begin() {
            return Ok(if filter.is_some() { state.count_of_subjects() } else { state.messages });
        }
        if target.is_single() && target.partition().is_none() {
            // Its positions have no gaps.
            return Ok(state.end().0 - from.0);
        }
        let created = connection.create_consumer(&target.stream, filter, Start::Position(from)).await;
        let (consumer, count) = created.map_err(|error| match error.kind() {
            ErrorKind::NotFound => not_found(&target.id),
            _ => error,
        })?;
        connection.let_go(&target.stream, &consumer).await;
        Ok(count)
    }

    /// Fails where records from that position on were trimmed; else gives which stream the log is in.
    pub(crate) async fn check_position(&self, target: &Target, from: Position) -> Result<String> {
        let trimmed = async {
            match target.partition() {
                Some((topic, partition)) if !target.attached => {
                    self.trims.ask(&self.connection, &self.targets.names, topic, partition).await.map(Some)
                }
                _ => Ok(None),
            }
        };
        let (stream, trimmed) = tokio::join!(self.connection.stream(&target.stream, None), trimmed);
        let stream = stream?.ok_or_else(|| not_found(&target.id))?;
        if from >= trimmed?.unwrap_or_else(|| stream.state.begin()) {
            return Ok(stream.created);
        }
        let earliest = self.info(target).await?.begin;
        let context = format!("position {from} of {} was trimmed; the first that is left is {earliest}", target.id);
        Err(Error::new(ErrorKind::PositionLost { earliest }, context))
    }

    async fn trim(&self, target: &Target, before: Position) -> Result<()> {
        let (connection, names) = (&self.connection, &self.targets.names);
        let info = self.info(target).await?;
        // A purge beyond the end would move the end.
        let before = before.min(info.end);
        if before <= info.begin {
            return Ok(());
        }
        if let Some((topic, partition)) = target.partition()
            && !target.attached
            && let Some(filter) = &target.filter
        {
            let last = self.last_before(&target.stream, filter, info.begin, before).await?;
            self.trims.set(connection, names, topic, partition, last.next()).await?;
        }
        connection.purge(&target.stream, target.filter.as_deref(), Some(before)).await
    }

    /// The last record before a position, where `first` is one: looked for in steps that grow, then by halves.
    async fn last_before(&self, stream: &str, filter: &str, first: Position, before: Position) -> Result<Position> {
        let (mut found, mut none_from) = (first, before);
        let mut step = 1;
        loop {
            let at = none_from.0.saturating_sub(step);
            if at <= found.0 {
                break;
            }
            match self.record_from(stream, filter, Position(at)).await? {
                Some(record) if record < before => {
                    found = record;
                    break;
                }
                _ => none_from = Position(at),
            }
            step *= 2;
        }
        while found.0 + 1 < none_from.0 {
            let middle = found.0 + 1 + (none_from.0 - found.0 - 1) / 2;
            match self.record_from(stream, filter, Position(middle)).await? {
                Some(record) if record < before => found = record,
                _ => none_from = Position(middle),
            }
        }
        Ok(found)
    }

    async fn record_from(&self, stream: &str, filter: &str, from: Position) -> Result<Option<Position>> {
        let message = self.connection.message(stream, Which::From(filter, from)).await?;
        Ok(message.map(|message| message.position()))
    }

    async fn lookup(&self, target: &Target, unix_milliseconds: u64) -> Result<Position> {
        let connection = &self.connection;
        // Before the question, so that what comes meanwhile is not left out.
        let end = self.info(target).await?.end;
        // The server counts nanoseconds in 63 bits, which end in 2262: nothing was appended then.
        const LAST_MILLISECOND: u64 = i64::MAX as u64 / 1_000_000;
        let Some(time) = i64::try_from(unix_milliseconds).ok().filter(|_| unix_milliseconds < LAST_MILLISECOND) else {
            return Ok(end);
        };
        let (consumer, pending) =
            connection.create_consumer(&target.stream, target.filter.as_deref(), Start::Time(time)).await?;
        if pending == 0 {
            return Ok(end);
        }
        let action = format!("looking for a time in {}", target.id);
        let expires = u64::try_from((limits::NATS_CALL_TIMEOUT / 2).as_nanos()).unwrap_or(u64::MAX);
        let request = async_nats::Request::new()
            .payload(json!({ "batch": 1, "expires": expires }).to_string().into())
            // Of its own: what is stored comes under its own subject, by which the shared one finds no question.
            .inbox(connection.client.new_inbox())
            .timeout(Some(limits::NATS_CALL_TIMEOUT));
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{consumer}", target.stream);
        let answer = connection.client.send_request(subject, request).await;
        let message = answer.map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("{action}: no answer came")).with_source(error)
        })?;
        connection.let_go(&target.stream, &consumer).await;
        match message.reply.as_deref().and_then(Place::parse) {
            Some(place) => Ok(place.position.min(end)),
            // What was there has been trimmed meanwhile.
            None => Ok(end),
        }
    }

    async fn create(&self, spec: &LogSpec) -> Result<()> {
        let (connection, names) = (&self.connection, &self.targets.names);
        let conflict = |text: String| Err(Error::new(ErrorKind::Conflict, text));
        let (name, subjects, topic) = match spec {
            LogSpec::Topic { topic, partitions } => {
                if topic.len() > limits::TOPIC_NAME_BYTES {
                    let limit_bytes = limits::TOPIC_NAME_BYTES;
                    let context = format!("the topic's name has {} bytes, and may have {limit_bytes}", topic.len());
                    return Err(Error::new(ErrorKind::TooLarge { limit_bytes }, context));
                }
                if self.targets.is_attached(topic) {
                    return conflict(format!("topic {topic} is attached; it cannot be created as well"));
                }
                let subjects = (0..*partitions).map(|partition| names.topic_subject(topic, partition)).collect();
                (names.topic_stream(topic), subjects, Some(topic))
            }
            LogSpec::Single(id) => {
                let (name, subject) = names.single(id).ok_or_else(|| not_found(id))?;
                (name, vec![subject], None)
            }
        };
        let stream = NewStream {
            name: name.clone(),
            subjects,
            description: names.description(),
            replicas: self.replicas,
            sealed: topic.is_none(),
            newest_only: false,
        };
        match connection.create_stream(&stream).await? {
            Created::Done(is_new) => {
                if let Some(topic) = topic
                    && is_new
                {
                    self.trims.forget(connection, names, topic).await?;
                }
                Ok(())
            }
            Created::Refused(refusal) => {
                let action = format!("creating the stream {name}");
                Err(refusal.error(&action, connection.record_bytes_max))
            }
            Created::Exists => {
                let found = connection.stream(&name, None).await?.unwrap_or_default().config;
                if found.description != stream.description {
                    return conflict(format!(
                        "the stream {name} is there and was not made for this namespace; attach it instead"
                    ));
                }
                if found.subjects != stream.subjects {
                    return conflict(format!(
                        "the stream {name} is there with {} partitions, and {} are wanted",
                        found.subjects.len(),
                        stream.subjects.len()
                    ));
                }
                // Only what an operator may change differs, such as on how many servers it is kept.
                Ok(())
            }
        }
    }

    async fn delete(&self, spec: &LogSpec) -> Result<()> {
        let (connection, names) = (&self.connection, &self.targets.names);
        match spec {
            LogSpec::Topic { topic, .. } => {
                if self.targets.detach(topic) {
                    return Ok(());
                }
                let name = names.topic_stream(topic);
                let Some(found) = connection.stream(&name, None).await? else { return Ok(()) };
                if found.config.description != names.description() {
                    let context = format!("the stream {name} was not made for this namespace, and is not deleted");
                    return Err(Error::new(ErrorKind::Conflict, context));
                }
                connection.delete_stream(&name).await?;
                self.trims.forget(connection, names, topic).await
            }
            LogSpec::Single(id) => {
                let (name, _) = names.single(id).ok_or_else(|| not_found(id))?;
                connection.delete_stream(&name).await
            }
        }
    }

    async fn list(&self) -> Result<Vec<LogInfo>> {
        let mut all = Vec::new();
        for Stream { config, state, .. } in self.connection.streams().await? {
            if config.description != self.targets.names.description() {
                continue;
            }
            let logs = self.targets.names.logs(&config.name, &config.subjects);
            let bytes = state.bytes / logs.len().max(1) as u64;
            all.extend(logs.into_iter().map(|id| LogInfo { id, begin: state.begin(), end: state.end(), bytes }));
        }
        for id in self.targets.attached() {
            all.push(self.info(&*self.targets.find(&id)?).await?);
        }
        all.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(all)
    }
}

impl PartitionLog for NatsBroker {
    fn capability(&self) -> &Capability {
        &self.capability
    }

    fn durability_of(&self, topic: &str) -> Durability {
        self.shared.targets.durability_of(topic).unwrap_or(self.capability.durability)
    }

    fn create(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.shared.create(&spec).await })
    }

    fn delete(&self, spec: LogSpec) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.shared.delete(&spec).await })
    }

    fn attach<'a>(&'a self, topic: &'a str, to: &'a str) -> BoxFuture<'a, Result<u32>> {
        Box::pin(async move {
            let connection = &self.shared.connection;
            if to.is_empty() || to.contains(['.', '*', '>', '/', '\\', ' ']) {
                return Err(misconfigured(format!("{to:?} is no name of a stream; attach a stream by its name")));
            }
            let stream = connection.stream(to, None).await?.ok_or_else(|| {
                let context = format!("there is no stream {to} on {} to attach {topic} to", connection.address);
                Error::new(ErrorKind::NotFound, context)
            })?;
            self.shared.targets.attach(&stream, topic)
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LogInfo>>> {
        Box::pin(async move { self.shared.list().await })
    }

    fn info<'a>(&'a self, id: &'a LogId) -> BoxFuture<'a, Result<LogInfo>> {
        Box::pin(async move { self.shared.info(&*self.shared.targets.find(id)?).await })
    }

    fn count<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let target = self.shared.targets.find(id)?;
            self.shared.count(&target, from).await
        })
    }

    fn append(&self, id: &LogId, record: Record) -> BoxFuture<'static, Result<Appended>> {
        let queued = self.shared.targets.find(id).and_then(|target| {
            let Some(subject) = target.subject.clone() else {
                let context = format!("{id} is attached to a stream of many subjects, and can be read only");
                return Err(misconfigured(context));
            };
            let connection = &self.shared.connection;
            let record = encode(&record, connection.record_bytes_max, &self.shared.environment.memory)?;
            Ok((self.appender.push(Arc::clone(&target), subject, record)?, target))
        });
        let connection = Arc::clone(&self.shared.connection);
        Box::pin(async move {
            let (outcome, target) = queued?;
            match outcome.await {
                Ok(Outcome::Stored(sequence)) => Ok(Appended { position: Some(position(sequence)) }),
                Ok(Outcome::Failed(error)) => Err(error),
                Ok(Outcome::Nobody) => match connection.stream(&target.stream, None).await {
                    Ok(None) => Err(not_found(&target.id)),
                    _ => Err(Error::new(
                        ErrorKind::Unavailable,
                        format!("the stream {} takes nothing for now: it has no leader", target.stream),
                    )),
                },
                Err(_) => Err(closed().outcome_unknown()),
            }
        })
    }

    fn tail<'a>(&'a self, id: &'a LogId, from: Position) -> BoxFuture<'a, Result<Box<dyn Tail>>> {
        Box::pin(async move {
            let target = self.shared.targets.find(id)?;
            let tail: Box<dyn Tail> = Box::new(NatsTail::open(Arc::clone(&self.shared), target, from).await?);
            Ok(tail)
        })
    }

    fn lookup(&self, id: &LogId, unix_milliseconds: u64) -> BoxFuture<'_, Result<Position>> {
        let target = self.shared.targets.find(id);
        Box::pin(async move { self.shared.lookup(&*target?, unix_milliseconds).await })
    }

    fn trim<'a>(&'a self, id: &'a LogId, before: Position) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.shared.trim(&*self.shared.targets.find(id)?, before).await })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // New appends fail; those on their way get their outcome.
            self.shared.connection.set_closed();
            self.appender.settle().await;
            self.shared.environment.stop(CLOSE_GRACE).await;
            // An error means that the client has ended before.
            let _ = self.shared.connection.client.drain().await;
        })
    }
}

/// What closing waits for the tasks, which end at once where nothing is wrong.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
