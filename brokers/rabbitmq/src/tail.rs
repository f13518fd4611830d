//! Readers. Each is a consumer on a channel of its own, which is given about as many records that its caller has not taken as
//! fit into [`limits::RABBITMQ_READ_BYTES`], by those that were seen until then. One that is lost, with the broker or alone, is
//! made anew at its reader's position: then it is looked whether the record before it is still the one that was read, because a
//! broker that was killed may have lost the end of a stream and have filled it anew.

use std::collections::VecDeque;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::AMQPValue;
use lapin::{Channel, Consumer};
use tidegate_backbone::{Batch, BoxFuture, Error, ErrorKind, LogId, Position, Result, Stored, Tail};
use tidegate_schemas::limits;
use tokio::time::Instant;

use crate::adapter::Shared;
use crate::ask::{Ending, Start, offset};
use crate::connection::State;
use crate::error::{closed, failed, misconfigured, not_found, unavailable};
use crate::recent::Seen;
use crate::record::decode;

/// How long before it is looked again into a gap.
const GAP_DELAY: Duration = Duration::from_millis(200);

/// What is read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) id: LogId,
    pub(crate) stream: String,
    /// Which one of several of its name it was when it was opened; none for a stream of others.
    pub(crate) identity: Option<u64>,
}

/// The last record that was read, to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    offset: u64,
    hash: u64,
}

/// A consumer.
struct Session {
    channel: Channel,
    deliveries: Consumer,
    /// Of the connection.
    generation: u64,
    /// The record that has to come first.
    first: Option<Known>,
    /// The tags of the last delivery, of the last that the caller has taken, and of the last that was acknowledged.
    delivered: u64,
    taken: u64,
    acknowledged: u64,
    heard: Instant,
    /// The most records that it is given ahead.
    prefetch: u16,
}

impl Session {
    /// Makes room for more, where enough was taken.
    fn acknowledge(&mut self, drained: bool) {
        if drained {
            self.taken = self.delivered;
        }
        let due = self.taken - self.acknowledged;
        if due == 0 || (!drained && due < u64::from(self.prefetch / 2)) {
            return;
        }
        self.acknowledged = self.taken;
        // It is on its way with the first look; nothing waits for it.
        let _ = self.channel.basic_ack(self.taken, BasicAckOptions { multiple: true }).now_or_never();
    }
}

/// How many readers there are.
#[derive(Debug, Default)]
pub(crate) struct Readers(AtomicUsize);

impl Readers {
    /// Silence after which a reader asks. Where there are many, each asks seldom: together they cost the broker the same.
    fn quiet(&self) -> Duration {
        let times = self.0.load(Ordering::Relaxed).div_ceil(limits::RABBITMQ_QUIET_READERS).max(1);
        limits::RABBITMQ_QUIET * u32::try_from(times).unwrap_or(u32::MAX)
    }
}

/// See the module.
pub(crate) struct RabbitTail {
    shared: Arc<Shared>,
    source: Source,
    /// Where the next record is looked for that the caller gets.
    position: Position,
    /// Where the next record is looked for that the broker sends.
    wanted: Position,
    /// Records that have come, with their tags where their consumer still is the one.
    buffer: VecDeque<(Stored, u64)>,
    appended_at: u64,
    last: Option<Known>,
    session: Option<Session>,
    /// How many consumers there were.
    sessions: u64,
    /// A record that stands behind a gap which nothing explains yet.
    behind_gap: Option<(Position, Delivery)>,
    /// The place of the last gap, and since when it is looked into.
    gap: Option<(Position, Instant)>,
    beginning: Option<BoxFuture<'static, Result<Session>>>,
    /// The question whether there is more, after silence.
    asking: Option<BoxFuture<'static, Result<Ending>>>,
    retry_delay: Duration,
}

impl RabbitTail {
    /// Begins to follow; an error where the position was trimmed or the log is not there.
    pub(crate) async fn open(shared: Arc<Shared>, source: Source, from: Position) -> Result<Self> {
        let session = begin(Arc::clone(&shared), source.clone(), from, None, false).await?;
        let mut tail = Self::behind(shared, source, from, Vec::new());
        (tail.session, tail.sessions) = (Some(session), 1);
        Ok(tail)
    }

    /// The same, where the records from that position on were just read. It begins to follow when more is asked for, at the last
    /// of them.
    pub(crate) fn behind(shared: Arc<Shared>, source: Source, from: Position, records: Vec<Seen>) -> Self {
        let last = records.last().map(|(stored, hash)| Known { offset: stored.position.0, hash: *hash });
        let mut appended_at = 0;
        let mut never_back = |(mut stored, _): Seen| {
            appended_at = stored.appended_at.max(appended_at);
            stored.appended_at = appended_at;
            (stored, 0)
        };
        let buffer = records.into_iter().map(&mut never_back).collect();
        shared.readers.0.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            source,
            position: from,
            wanted: last.map_or(from, |last| Position(last.offset).next()),
            appended_at,
            buffer,
            last,
            session: None,
            sessions: 0,
            behind_gap: None,
            gap: None,
            beginning: None,
            asking: None,
            retry_delay: Duration::ZERO,
        }
    }

    /// How many consumers it has had until now: another number says that the connection was lost in between.
    pub(crate) fn sessions(&self) -> u64 {
        self.sessions
    }

    /// What the caller gets, where something is there.
    fn take(&mut self, bytes_max: usize) -> Option<Batch> {
        let (mut records, mut bytes, mut tag) = (Vec::new(), 0, 0);
        while let Some((stored, _)) = self.buffer.front() {
            let next = stored.bytes();
            if !records.is_empty() && bytes + next > bytes_max {
                break;
            }
            bytes += next;
            if let Some((stored, of)) = self.buffer.pop_front() {
                records.push(stored);
                tag = of;
            }
        }
        let last = records.last().map(|last: &Stored| last.position)?;
        self.position = last.next();
        self.shared.asker.hint(&self.source.stream, last.0);
        if let Some(session) = &mut self.session {
            session.taken = session.taken.max(tag);
            session.acknowledge(self.buffer.is_empty() && self.behind_gap.is_none());
        }
        Some(Batch { records })
    }

    /// Takes what has already come.
    fn take_ready(&mut self) -> Result<()> {
        while self.behind_gap.is_none()
            && let Some(session) = &mut self.session
            && let Some(delivery) = session.deliveries.next().now_or_never()
        {
            self.accept(delivery)?;
        }
        Ok(())
    }

    /// The consumer is no more; what it has given stays.
    fn lose_session(&mut self) {
        (self.session, self.asking) = (None, None);
        for (_, tag) in &mut self.buffer {
            *tag = 0;
        }
    }

    fn accept(&mut self, delivery: Option<std::result::Result<Delivery, lapin::Error>>) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let Some(Ok(delivery)) = delivery else {
            self.lose_session();
            return Ok(());
        };
        session.heard = Instant::now();
        session.delivered = delivery.delivery_tag;
        let Some(offset) = offset(&delivery) else {
            return Err(misconfigured(format!("{} is no stream; only streams can be read", self.source.stream)));
        };
        if let Some(first) = session.first.take()
            && first != (Known { offset, hash: hash(&delivery) })
        {
            if offset != first.offset && self.shared.asker.is_cluster() {
                // The node that is read from has not all yet that another one told.
                self.lose_session();
                return Ok(());
            }
            let lost = lost(&self.source, first.offset, "holds another record than it did");
            self.lose_session();
            return Err(lost);
        }
        if offset < self.wanted.0 {
            // Before where it begins; it makes room for others.
            if self.buffer.is_empty() {
                session.acknowledge(true);
            }
            return Ok(());
        }
        if offset > self.wanted.0 {
            self.behind_gap = Some((Position(offset), delivery));
            return Ok(());
        }
        self.store(Position(offset), delivery);
        Ok(())
    }

    fn store(&mut self, position: Position, delivery: Delivery) {
        self.last = Some(Known { offset: position.0, hash: hash(&delivery) });
        let tag = delivery.delivery_tag;
        let bytes = delivery.data.len();
        let mut stored = decode(&self.source.id, position, delivery, &self.shared.environment.memory);
        self.shared.sizes.saw(&self.source.stream, bytes);
        // Gateways may have clocks that differ.
        self.appended_at = self.appended_at.max(stored.appended_at);
        stored.appended_at = self.appended_at;
        self.wanted = position.next();
        self.buffer.push_back((stored, tag));
    }

    /// Finds the reason of a gap: the error that tells of it, or the record behind it.
    async fn explain(&mut self) -> Result<()> {
        self.shared.recent.forget(&self.source.stream);
        let begin = match self.shared.span(&self.source.id, &self.source.stream).await {
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                return Err(self.shared.absent(&self.source.id).await);
            }
            span => span?.0,
        };
        let Some((position, delivery)) = self.behind_gap.take() else { return Ok(()) };
        if begin > self.wanted {
            self.lose_session();
            return Err(position_lost(&self.source.id, self.wanted, begin));
        }
        // Streams of others have places that hold no record. In ours there is hardly ever such a gap: where a leader died, a node
        // was seen to go on behind records that it did not have yet. A consumer that begins anew at the place is given them.
        let ours = self.source.identity.is_some() || matches!(self.source.id, LogId::Slot { .. });
        let looks_again = match self.gap.filter(|(place, _)| *place == self.wanted) {
            None => {
                self.gap = Some((self.wanted, Instant::now()));
                true
            }
            Some((_, since)) => self.shared.asker.is_cluster() && since.elapsed() < limits::RABBITMQ_REPLICA_PATIENCE,
        };
        if ours && looks_again {
            tracing::debug!(log = %self.source.id, wanted = %self.wanted, %position, "a gap, which is looked into again");
            self.lose_session();
            self.retry_delay = GAP_DELAY;
            return Ok(());
        }
        self.store(position, delivery);
        Ok(())
    }

    /// Waits until something has come, or begins anew where nothing can.
    async fn wait(&mut self) -> Result<()> {
        let link = Arc::clone(&self.shared.read);
        if link.is_closed() {
            return Err(closed());
        }
        if self.behind_gap.is_some() {
            return self.explain().await;
        }
        let mut state = link.state();
        let Some(session) = &mut self.session else {
            // Kept where this is dropped while it waits: a reader whose caller looks up often would begin for ever.
            let beginning = self.beginning.get_or_insert_with(|| {
                let (shared, source, wanted) = (Arc::clone(&self.shared), self.source.clone(), self.wanted);
                let (last, delay) = (self.last, self.retry_delay);
                Box::pin(async move {
                    tokio::time::sleep(delay).await;
                    shared.read.wait().await?;
                    begin(shared, source, wanted, last, true).await
                })
            });
            let begun = beginning.await;
            self.beginning = None;
            self.retry_delay =
                (self.retry_delay * 2).clamp(Duration::from_millis(10), limits::RABBITMQ_RECONNECT_DELAY_MAX);
            self.session = Some(begun?);
            self.sessions += 1;
            return Ok(());
        };
        let generation = session.generation;
        let quiet = session.heard + self.shared.readers.quiet();
        // A broker that has forgotten a reader says nothing; whether there is more can be asked. Kept where this is dropped, as
        // above.
        let (shared, stream, asking) = (&self.shared, &self.source.stream, &mut self.asking);
        let silent = async move {
            tokio::time::sleep_until(quiet).await;
            let ask = || -> BoxFuture<'static, Result<Ending>> {
                let (asker, stream) = (Arc::clone(&shared.asker), stream.clone());
                Box::pin(async move { asker.end(&stream).await })
            };
            asking.get_or_insert_with(ask).await
        };
        let gone = async {
            let gone = |state: &State| state.closed || state.open.as_ref().is_none_or(|it| it.generation != generation);
            drop(state.wait_for(gone).await);
        };
        tokio::select! {
            biased;
            delivery = session.deliveries.next() => {
                self.retry_delay = Duration::ZERO;
                self.accept(delivery)
            }
            () = gone => {
                self.lose_session();
                Ok(())
            }
            end = silent => {
                self.asking = None;
                match (end, &mut self.session) {
                    (Ok(ending), Some(session)) if ending.end <= self.wanted.0 => session.heard = Instant::now(),
                    _ => self.lose_session(),
                }
                Ok(())
            }
        }
    }
}

impl Drop for RabbitTail {
    fn drop(&mut self) {
        self.shared.readers.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Looks whether the position can still be read, and makes a consumer that begins there; `again` where one was lost.
async fn begin(
    shared: Arc<Shared>,
    source: Source,
    wanted: Position,
    last: Option<Known>,
    again: bool,
) -> Result<Session> {
    if again {
        shared.recent.forget(&source.stream);
    }
    if again
        && let Some(identity) = source.identity
        && shared.registry.identity(&source.id).await? != Some(identity)
    {
        // Its positions are not those of the one that was followed.
        return Err(not_found(&source.id));
    }
    match consume(&shared, &source, wanted, last).await {
        Err(error) if *error.kind() == ErrorKind::NotFound => Err(shared.absent(&source.id).await),
        begun => begun,
    }
}

async fn consume(shared: &Shared, source: &Source, wanted: Position, last: Option<Known>) -> Result<Session> {
    // What the broker itself let go of shows as a gap before the first record.
    let low = shared.low(&source.id, &source.stream).await?;
    if wanted < low {
        let (begin, _) = shared.span(&source.id, &source.stream).await?;
        if wanted < begin {
            return Err(position_lost(&source.id, wanted, begin));
        }
    }
    let mut first = None;
    if let Some(last) = last {
        let (begin, end) = shared.span(&source.id, &source.stream).await?;
        if wanted < begin {
            return Err(position_lost(&source.id, wanted, begin));
        }
        if end.0 <= last.offset {
            return Err(lost(source, last.offset, "is gone"));
        }
        // What was trimmed since need not be the same.
        first = (begin.0 <= last.offset).then_some(last);
    }
    let action = format!("following {}", source.id);
    let open = shared.read.require(&action)?;
    let channel = open.channel(&action).await?;
    let from = Start::Offset(first.map_or(wanted.0, |first| first.offset));
    let prefetch = shared.sizes.prefetch(&source.stream);
    let begun = async {
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        channel.basic_consume(source.stream.as_str().into(), "".into(), options, from.arguments()).await
    };
    let begun = tokio::time::timeout(limits::RABBITMQ_CALL_TIMEOUT, begun).await;
    let begun = begun.map_err(|_| unavailable(format!("{action}: RabbitMQ did not answer in time")))?;
    let deliveries = begun.map_err(|error| failed(&action, error, false))?;
    Ok(Session {
        channel,
        deliveries,
        generation: open.generation,
        first,
        delivered: 0,
        taken: 0,
        acknowledged: 0,
        heard: Instant::now(),
        prefetch,
    })
}

/// What a record is known again by.
pub(crate) fn hash(delivery: &Delivery) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    delivery.data.hash(&mut hasher);
    for (name, value) in delivery.properties.headers().iter().flat_map(|headers| headers.inner()) {
        match value {
            AMQPValue::LongString(text) => (name.as_str(), text.as_bytes()).hash(&mut hasher),
            AMQPValue::LongLongInt(number) => (name.as_str(), number).hash(&mut hasher),
            _ => {}
        }
    }
    hasher.finish()
}

fn lost(source: &Source, offset: u64, what: &str) -> Error {
    let context = format!(
        "position {offset} of {} {what}: RabbitMQ has lost records that it had given, as it may where it is killed before \
         its disk has them",
        source.id
    );
    Error::new(ErrorKind::DataLoss, context)
}

fn position_lost(id: &LogId, wanted: Position, earliest: Position) -> Error {
    let context = format!("position {wanted} of {id} was trimmed; the first that is left is {earliest}");
    Error::new(ErrorKind::PositionLost { earliest }, context)
}

impl Tail for RabbitTail {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            loop {
                let low = self.shared.marks.known(&self.source.stream);
                if self.position < low {
                    // What was trimmed is on the broker still, and counts no more.
                    self.lose_session();
                    self.buffer.clear();
                    return Err(position_lost(&self.source.id, self.position, low));
                }
                // What came before an error is given before it.
                let ready = self.take_ready();
                if let Some(batch) = self.take(bytes_max) {
                    return Ok(batch);
                }
                ready?;
                match self.wait().await {
                    // The broker is away or not yet ready; a reader waits for as long as that takes.
                    Err(error) if *error.kind() == ErrorKind::Unavailable => {
                        tracing::debug!(%error, "a reader of RabbitMQ waits");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    waited => waited?,
                }
            }
        })
    }

    fn position(&self) -> Position {
        self.position
    }
}
