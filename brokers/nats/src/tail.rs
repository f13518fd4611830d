//! Readers. Each has a consumer on the server that keeps nothing of value: it can be lost at any moment, with the server or
//! without, and the reader makes another one at its position. What is asked for is bounded in records and bytes, so a slow
//! reader holds no more than that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tidegate_backbone::{Batch, BoxFuture, Error, ErrorKind, Position, Result, Stored, Tail};
use tidegate_schemas::limits;
use tokio::time::Instant;

use crate::adapter::Shared;
use crate::api::Start;
use crate::error::{closed, not_found};
use crate::record::{Place, decode};
use crate::target::Target;

/// See the module.
pub(crate) struct NatsTail {
    shared: Arc<Shared>,
    target: Arc<Target>,
    /// Where the next record is looked for that the caller gets.
    position: Position,
    /// Where the next record is looked for that the server sends.
    wanted: Position,
    buffer: VecDeque<Stored>,
    buffered_bytes: usize,
    appended_at: u64,
    session: Option<Session>,
    /// Which stream it is, as [`crate::api::Stream::created`] says.
    created: String,
    /// A message that stands behind a gap which nothing explains yet.
    behind_gap: Option<(Place, Message)>,
    retry_delay: Duration,
    /// The next session, while it is made.
    beginning: Option<BoxFuture<'static, Result<(Session, String)>>>,
}

/// A consumer, and what was asked of it.
struct Session {
    shared: Arc<Shared>,
    stream: String,
    consumer: String,
    messages: Subscriber,
    inbox: String,
    /// The connection's when this began.
    generation: u64,
    /// Messages that it has sent.
    delivered: u64,
    /// Counts what was asked for.
    pulls: u64,
    /// Records that may still come of what was asked for; none while nothing is asked for.
    awaited: Option<usize>,
    heard: Instant,
}

impl Drop for Session {
    fn drop(&mut self) {
        // A kindness only: the server lets go of it by itself after a while.
        if tokio::runtime::Handle::try_current().is_ok() && self.shared.connection.is_connected() {
            let client = self.shared.connection.client.clone();
            let subject = format!("$JS.API.CONSUMER.DELETE.{}.{}", self.stream, self.consumer);
            self.shared.environment.spawn(async move {
                let _ = client.publish(subject, Bytes::new()).await;
            });
        }
    }
}

/// What became of a message.
enum Taken {
    /// It was a record, or a sign of life.
    Yes,
    /// Nothing more can be had of this consumer.
    End,
}

impl NatsTail {
    /// Begins to follow; an error where the position was trimmed or the log is not there.
    pub(crate) async fn open(shared: Arc<Shared>, target: Arc<Target>, from: Position) -> Result<Self> {
        let mut tail = Self {
            shared,
            target,
            position: from,
            wanted: from,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            appended_at: 0,
            session: None,
            created: String::new(),
            behind_gap: None,
            retry_delay: Duration::ZERO,
            beginning: None,
        };
        let (session, created) = tail.begin().await?;
        (tail.session, tail.created) = (Some(session), created);
        Ok(tail)
    }

    /// Looks whether the position can still be read, and makes a consumer that begins there.
    fn begin(&self) -> impl Future<Output = Result<(Session, String)>> + Send + use<> {
        let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&self.target));
        begin(shared, target, self.wanted, self.created.clone())
    }

    /// What the caller gets, where something is there.
    fn take(&mut self, bytes_max: usize) -> Option<Batch> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while let Some(stored) = self.buffer.front() {
            let next = stored.bytes();
            if !records.is_empty() && bytes + next > bytes_max {
                break;
            }
            bytes += next;
            self.buffered_bytes -= next;
            records.extend(self.buffer.pop_front());
        }
        self.position = records.last()?.position.next();
        Some(Batch { records })
    }

    /// Takes what has already come.
    fn take_ready(&mut self) {
        while self.behind_gap.is_none()
            && let Some(session) = &mut self.session
            && let Some(message) = session.messages.next().now_or_never()
        {
            if !matches!(self.accept(message), Taken::Yes) {
                self.session = None;
            }
        }
    }

    fn accept(&mut self, message: Option<Message>) -> Taken {
        let Some(session) = &mut self.session else { return Taken::End };
        let Some(message) = message else { return Taken::End };
        session.heard = Instant::now();
        if let Some(status) = message.status {
            return session.status(status.as_u16(), &message);
        }
        let Some(place) = message.reply.as_deref().and_then(Place::parse) else {
            tracing::warn!(stream = %session.stream, "a message came that is none of the stream");
            return Taken::Yes;
        };
        if place.delivered != session.delivered + 1 {
            // Some were dropped between the server and here.
            return Taken::End;
        }
        session.delivered = place.delivered;
        session.awaited = session.awaited.map(|awaited| awaited.saturating_sub(1)).filter(|awaited| *awaited > 0);
        if place.position < self.wanted {
            // The server begins with its last record where it is asked for one beyond.
            return Taken::Yes;
        }
        let has_gap = place.position > self.wanted;
        if has_gap && self.gap_needs_a_reason() {
            self.behind_gap = Some((place, message));
            return Taken::Yes;
        }
        self.store(place, message);
        Taken::Yes
    }

    fn store(&mut self, place: Place, message: Message) {
        let mut stored = decode(&self.target, place, message);
        // Servers that take over from each other may have clocks that differ.
        self.appended_at = self.appended_at.max(stored.appended_at);
        stored.appended_at = self.appended_at;
        self.wanted = place.position.next();
        self.buffered_bytes += stored.bytes();
        self.buffer.push_back(stored);
    }

    /// Whether positions that are left out may be records that went.
    fn gap_needs_a_reason(&self) -> bool {
        match self.target.partition() {
            None => true,
            Some(_) if self.target.attached => false,
            Some((topic, partition)) => {
                self.shared.trims.known(&self.shared.targets.names, topic, partition) > self.wanted
            }
        }
    }

    /// Finds the reason of a gap: the error that tells of it, or the record behind it.
    async fn explain(&mut self) -> Result<()> {
        let checked = self.shared.check_position(&self.target, self.wanted).await;
        let lost = match checked {
            Err(error) if matches!(error.kind(), ErrorKind::PositionLost { .. }) => Some(error),
            Err(error) => return Err(error),
            Ok(_) => None,
        };
        let Some((place, message)) = self.behind_gap.take() else { return Ok(()) };
        if let Some(error) = lost {
            self.session = None;
            return Err(error);
        }
        if self.target.is_single() {
            self.session = None;
            let context = format!(
                "{} has nothing from position {} to {}, though its stream begins before; messages were deleted",
                self.target.id, self.wanted, place.position
            );
            return Err(Error::new(ErrorKind::DataLoss, context));
        }
        self.store(place, message);
        Ok(())
    }

    /// Asks for more where nothing is asked for and there is room.
    async fn ask(&mut self, bytes_max: usize) -> Result<()> {
        let room = self.shared.tail_bytes.saturating_sub(self.buffered_bytes);
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.awaited.is_some() || (room < self.shared.tail_bytes / 2 && !self.buffer.is_empty()) {
            return Ok(());
        }
        // A record that is larger than all that was asked for would never come.
        let bytes = room.max(self.shared.connection.client.max_payload() + 8 * 1024);
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Who wants one record or a few is not sent hundreds.
        let records = (bytes_max / RECORD_BYTES_LEAST).clamp(PULL_RECORDS_LEAST, limits::NATS_PULL_RECORDS);
        let body = json!({
            "batch": records,
            "max_bytes": bytes,
            "expires": nanoseconds(limits::NATS_PULL_EXPIRES),
            "idle_heartbeat": nanoseconds(heartbeat(&self.target)),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", session.stream, session.consumer);
        let reply = format!("{}.{}", session.inbox, session.pulls + 1);
        let client = &self.shared.connection.client;
        client
            .publish_with_reply(subject, reply, Bytes::from(body.to_string()))
            .await
            .map_err(|error| self.shared.connection.down("reading a stream").with_source(error))?;
        session.pulls += 1;
        session.awaited = Some(records);
        session.heard = Instant::now();
        Ok(())
    }

    /// Waits until something has come, or begins anew where nothing can.
    async fn wait(&mut self, bytes_max: usize) -> Result<()> {
        if self.shared.connection.is_closed() {
            return Err(closed());
        }
        if self.behind_gap.is_some() {
            return self.explain().await;
        }
        let mut link = self.shared.connection.link();
        if self.session.is_none() {
            if !link.borrow_and_update().connected {
                let shared = Arc::clone(&self.shared);
                // Nothing that this waits for is lost when it is dropped.
                let _ = link.wait_for(|link| link.connected || shared.connection.is_closed()).await;
                return Ok(());
            }
            // Kept where this is dropped while it waits: a reader whose caller looks up often would begin for ever.
            if self.beginning.is_none() {
                let (delay, begin) = (self.retry_delay, self.begin());
                self.beginning = Some(Box::pin(async move {
                    tokio::time::sleep(delay).await;
                    begin.await
                }));
            }
            let Some(beginning) = &mut self.beginning else { return Ok(()) };
            let begun = beginning.await;
            self.beginning = None;
            self.retry_delay = (self.retry_delay * 2).clamp(Duration::from_millis(10), limits::NATS_READ_RETRY_DELAY);
            let (session, created) = begun?;
            (self.session, self.created) = (Some(session), created);
            return Ok(());
        }
        self.ask(bytes_max).await?;
        let shared = Arc::clone(&self.shared);
        let Some(session) = &mut self.session else { return Ok(()) };
        let generation = session.generation;
        let silent = session.heard + heartbeat(&self.target) * 2 + Duration::from_millis(500);
        tokio::select! {
            biased;
            message = session.messages.next() => {
                self.retry_delay = Duration::ZERO;
                if !matches!(self.accept(message), Taken::Yes) {
                    self.session = None;
                }
            }
            _ = link.wait_for(|link| {
                !link.connected || link.generation != generation || shared.connection.is_closed()
            }) => self.session = None,
            () = tokio::time::sleep_until(silent) => {
                tracing::warn!(stream = %session.stream, "a reader of NATS hears nothing any more and begins anew");
                self.session = None;
            }
        }
        Ok(())
    }
}

/// See [`NatsTail::begin`]; gives when the stream was created, too.
async fn begin(shared: Arc<Shared>, target: Arc<Target>, wanted: Position, known: String) -> Result<(Session, String)> {
    let connection = &shared.connection;
    let generation = connection.link().borrow().generation;
    let created = shared.check_position(&target, wanted).await?;
    if !known.is_empty() && known != created {
        // Its positions are not those of the one that was followed.
        return Err(not_found(&target.id));
    }
    let inbox = connection.client.new_inbox();
    let messages = connection
        .client
        .subscribe(format!("{inbox}.*"))
        .await
        .map_err(|error| connection.down("following a stream").with_source(error))?;
    let filter = target.filter.as_deref();
    let made = connection.create_consumer(&target.stream, filter, Start::Position(wanted)).await;
    let (consumer, _) = made.map_err(|error| match error.kind() {
        // The stream was there a moment ago: while nodes of a cluster change they may not find it, or the reader that they
        // have just made. Whether it was deleted is told by the next attempt.
        ErrorKind::NotFound => {
            let context = format!("{} gives no reader for now", target.id);
            Error::new(ErrorKind::Unavailable, context).with_source(error)
        }
        _ => error,
    })?;
    let session = Session {
        shared: Arc::clone(&shared),
        stream: target.stream.clone(),
        consumer,
        messages,
        inbox,
        generation,
        delivered: 0,
        pulls: 0,
        awaited: None,
        heard: Instant::now(),
    };
    Ok((session, created))
}

impl Session {
    fn status(&mut self, code: u16, message: &Message) -> Taken {
        let of_last = message.subject.strip_prefix(self.inbox.as_str()).and_then(|rest| rest.strip_prefix('.'))
            == Some(self.pulls.to_string().as_str());
        let said = message.description.as_deref().unwrap_or_default().to_ascii_lowercase();
        match code {
            // A sign of life.
            100 => Taken::Yes,
            // What was asked for is over: its time, its records or its bytes.
            404 | 408 => {
                if of_last {
                    self.awaited = None;
                }
                Taken::Yes
            }
            409 if said.contains("maxbytes") || said.contains("batch completed") => {
                if of_last {
                    self.awaited = None;
                }
                Taken::Yes
            }
            // The consumer is gone, its leader is another, or nobody answers for it.
            _ => Taken::End,
        }
    }
}

/// What a record takes at the least, about.
const RECORD_BYTES_LEAST: usize = 256;
/// Records that are asked for at the least, so that a reader by small steps is not one that waits at each.
const PULL_RECORDS_LEAST: usize = 16;

/// How often the server is to tell that it is still there.
fn heartbeat(target: &Target) -> Duration {
    if target.partition().is_some() { limits::NATS_HEARTBEAT } else { limits::NATS_HEARTBEAT_SLOT }
}

/// Whether to try again by itself. A reader outlasts every outage; what an operator must mend it tells.
fn passes(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Backpressure { .. })
}

impl Tail for NatsTail {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            loop {
                self.take_ready();
                if !self.buffer.is_empty() {
                    // The next records come while these are worked on.
                    if self.shared.connection.is_connected() && self.ask(bytes_max).await.is_err() {
                        self.session = None;
                    }
                    if let Some(batch) = self.take(bytes_max) {
                        return Ok(batch);
                    }
                }
                match self.wait(bytes_max).await {
                    Ok(()) => {}
                    Err(error) if passes(&error) => {
                        tracing::debug!(log = %self.target.id, %error, "a reader begins anew");
                        self.session = None;
                    }
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn position(&self) -> Position {
        self.position
    }
}
