//! Appends on their way: queued where they are called, written in that order by one task, and answered by the server's
//! acknowledgements, which come on one subscription.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_nats::{HeaderMap, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde::Deserialize;
use tidegate_backbone::{Environment, Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::connection::{Connection, names};
use crate::error::{Refusal, closed, denied, misconfigured};
use crate::record::Encoded;
use crate::target::Target;

/// How an append ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It stands at that position.
    Stored(u64),
    /// No stream takes that subject, or none can for now.
    Nobody,
    /// It failed.
    Failed(Error),
}

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Outcome>,
    subject: Subject,
    target: Arc<Target>,
    bytes: usize,
    /// The connection's generation when it was handed to the client; none while it waits.
    sent: Option<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_token: HashMap<u64, Waiter>,
    /// Deadlines in their order, which is that of the tokens.
    deadlines: VecDeque<(Instant, u64)>,
    bytes: usize,
    next: u64,
}

impl Waiting {
    fn take(&mut self, token: u64) -> Option<Waiter> {
        let waiter = self.by_token.remove(&token)?;
        self.bytes -= waiter.bytes;
        Some(waiter)
    }

    fn take_where(&mut self, which: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let tokens: Vec<u64> =
            self.by_token.iter().filter(|(_, waiter)| which(waiter)).map(|(token, _)| *token).collect();
        tokens.into_iter().filter_map(|token| self.take(token)).collect()
    }
}

struct Entry {
    token: u64,
    subject: Subject,
    headers: Option<HeaderMap>,
    body: Bytes,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Appender {
    connection: Arc<Connection>,
    waiting: Mutex<Waiting>,
    queue: mpsc::Sender<Entry>,
    queue_records: usize,
    queue_bytes: usize,
    /// Acknowledgements come to this and the token.
    inbox: String,
}

#[derive(Deserialize)]
struct Acknowledgement<'a> {
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    error: Option<Refusal>,
}

impl Appender {
    /// Starts the tasks, which end with the environment.
    pub(crate) async fn start(
        connection: Arc<Connection>,
        environment: &Environment,
        queue_records: usize,
        queue_bytes: usize,
    ) -> Result<Arc<Self>> {
        let (queue, entries) = mpsc::channel(queue_records);
        let inbox = connection.client.new_inbox();
        let acknowledgements = connection
            .client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| connection.down("waiting for acknowledgements").with_source(error))?;
        let waiting = Mutex::default();
        let appender = Arc::new(Self { connection, waiting, queue, queue_records, queue_bytes, inbox });
        environment.spawn(Arc::clone(&appender).write(entries, environment.clone()));
        environment.spawn(Arc::clone(&appender).acknowledge(acknowledgements, environment.clone()));
        environment.spawn(Arc::clone(&appender).watch(environment.clone()));
        Ok(appender)
    }

    /// Queues an append.
    pub(crate) fn push(
        &self,
        target: Arc<Target>,
        subject: Subject,
        record: Encoded,
    ) -> Result<oneshot::Receiver<Outcome>> {
        if self.connection.is_closed() {
            return Err(closed());
        }
        let full = |what: &str| {
            let kind = ErrorKind::Backpressure { retry_after: limits::APPEND_RETRY_AFTER };
            Err(Error::new(kind, format!("too many {what} wait for NATS to acknowledge them")))
        };
        let Encoded { headers, body, bytes } = record;
        let (answer, outcome) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.by_token.len() >= self.queue_records {
            return full("records");
        }
        // One that is larger than all is taken where it is alone.
        if waiting.bytes + bytes > self.queue_bytes && !waiting.by_token.is_empty() {
            return full("bytes");
        }
        let token = waiting.next;
        // Under the lock, so that the order of tokens is that of the queue.
        if self.queue.try_send(Entry { token, subject: subject.clone(), headers, body }).is_err() {
            return if self.queue.is_closed() { Err(closed()) } else { full("records") };
        }
        waiting.next += 1;
        waiting.bytes += bytes;
        waiting.deadlines.push_back((Instant::now() + limits::NATS_ACK_TIMEOUT, token));
        waiting.by_token.insert(token, Waiter { answer, subject, target, bytes, sent: None });
        Ok(outcome)
    }

    /// Waits until nothing is on its way, which no append is for longer than its time.
    pub(crate) async fn settle(&self) {
        while !self.waiting.lock().by_token.is_empty() {
            tokio::time::sleep(TICK).await;
        }
    }

    /// Fails all that wait: nothing will answer them any more.
    pub(crate) fn fail_all(&self) {
        let waiters = self.waiting.lock().take_where(|_| true);
        for waiter in waiters {
            let error = if waiter.sent.is_some() { closed().outcome_unknown() } else { closed() };
            let _ = waiter.answer.send(Outcome::Failed(error));
        }
    }

    async fn write(self: Arc<Self>, mut entries: mpsc::Receiver<Entry>, environment: Environment) {
        let stopping = environment.stopping();
        let mut link = self.connection.link();
        loop {
            let entry = tokio::select! {
                () = stopping.cancelled() => break,
                entry = entries.recv() => entry,
            };
            let Some(Entry { token, subject, headers, body }) = entry else { break };
            // What the client has been given it sends as soon as it is connected again, and then nobody knows whether it
            // was stored. What waits here has certainly not been.
            let generation = loop {
                {
                    let link = link.borrow_and_update();
                    if link.connected {
                        break Some(link.generation);
                    }
                }
                tokio::select! {
                    () = stopping.cancelled() => break None,
                    changed = link.changed() => if changed.is_err() { break None },
                }
            };
            if generation.is_none() {
                break;
            }
            match self.waiting.lock().by_token.get_mut(&token) {
                Some(waiter) => waiter.sent = generation,
                // Its time was over before.
                None => continue,
            }
            let reply = Subject::from(format!("{}.{token}", self.inbox));
            let client = &self.connection.client;
            let sent = async {
                match headers {
                    Some(headers) => client.publish_with_reply_and_headers(subject, reply, headers, body).await,
                    None => client.publish_with_reply(subject, reply, body).await,
                }
            };
            let sent = tokio::select! {
                () = stopping.cancelled() => break,
                sent = sent => sent,
            };
            if let Err(error) = sent
                && let Some(waiter) = self.waiting.lock().take(token)
            {
                let kind = match error.kind() {
                    async_nats::PublishErrorKind::MaxPayloadExceeded => {
                        ErrorKind::TooLarge { limit_bytes: self.connection.record_bytes_max }
                    }
                    async_nats::PublishErrorKind::InvalidSubject => ErrorKind::Misconfigured,
                    async_nats::PublishErrorKind::Send => ErrorKind::Closed,
                };
                let error = Error::new(kind, "NATS does not take the record").with_source(error);
                let _ = waiter.answer.send(Outcome::Failed(error));
            }
        }
        entries.close();
        self.fail_all();
    }

    async fn acknowledge(self: Arc<Self>, mut acknowledgements: Subscriber, environment: Environment) {
        loop {
            let message = tokio::select! {
                () = environment.stopping().cancelled() => return,
                message = acknowledgements.next() => message,
            };
            let Some(message) = message else { return };
            let token = message.subject.rsplit_once('.').and_then(|(_, token)| token.parse().ok());
            let waiter = token.and_then(|token| self.waiting.lock().take(token));
            if let Some(waiter) = waiter {
                let outcome = self.outcome(&waiter, &message);
                let _ = waiter.answer.send(outcome);
            }
        }
    }

    fn outcome(&self, waiter: &Waiter, message: &Message) -> Outcome {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Outcome::Nobody;
        }
        let Ok(Acknowledgement { stream, seq, error }) = serde_json::from_slice(&message.payload) else {
            let context = format!("what answers to an append at {} is not JetStream", waiter.subject);
            return Outcome::Failed(misconfigured(context).outcome_unknown());
        };
        match error {
            Some(refusal) => {
                let action = format!("appending to the stream {}", waiter.target.stream);
                Outcome::Failed(refusal.error(&action, self.connection.record_bytes_max))
            }
            None if stream != waiter.target.stream || seq == 0 => {
                let context = format!(
                    "the subject {} belongs to the stream {stream} and not to {}; give one of them another subject",
                    waiter.subject, waiter.target.stream
                );
                Outcome::Failed(misconfigured(context).outcome_unknown())
            }
            None => Outcome::Stored(seq),
        }
    }

    /// Ends what has waited too long, what went with a connection that was lost, and what the server does not permit.
    async fn watch(self: Arc<Self>, environment: Environment) {
        let (mut link, mut denials) = (self.connection.link(), self.connection.denials());
        let mut lost: Option<(u64, Instant)> = None;
        loop {
            tokio::select! {
                () = environment.stopping().cancelled() => break,
                () = tokio::time::sleep(TICK) => self.connection.look(),
                said = denials.changed() => {
                    if said.is_err() {
                        break;
                    }
                    let said = denials.borrow_and_update().clone();
                    let waiters = self.waiting.lock().take_where(|waiter| names(&said, &waiter.subject));
                    for waiter in waiters {
                        let action = format!("appending to the stream {}", waiter.target.stream);
                        let _ = waiter.answer.send(Outcome::Failed(denied(&action, &said)));
                    }
                }
            }
            let now = Instant::now();
            self.expire(now);
            let (connected, generation) = {
                let link = link.borrow_and_update();
                (link.connected, link.generation)
            };
            if connected && lost.is_none_or(|(seen, _)| seen < generation) {
                lost = Some((generation, now + limits::NATS_ACK_GRACE));
            }
            if let Some((generation, at)) = lost
                && now >= at
            {
                let waiters =
                    self.waiting.lock().take_where(|waiter| waiter.sent.is_some_and(|sent| sent < generation));
                for waiter in waiters {
                    let context = format!(
                        "the connection was lost before {} acknowledged the append at {}",
                        self.connection.address, waiter.subject
                    );
                    let _ = waiter.answer.send(Outcome::Failed(Error::new(ErrorKind::Unknown, context)));
                }
            }
        }
        self.fail_all();
    }

    fn expire(&self, now: Instant) {
        loop {
            let waiter = {
                let mut waiting = self.waiting.lock();
                match waiting.deadlines.front() {
                    Some((deadline, token)) if *deadline <= now || !waiting.by_token.contains_key(token) => {
                        let token = *token;
                        waiting.deadlines.pop_front();
                        waiting.take(token)
                    }
                    _ => return,
                }
            };
            let Some(waiter) = waiter else { continue };
            let error = match waiter.sent {
                None => self.connection.down(&format!("appending to the stream {}", waiter.target.stream)),
                Some(_) => Error::new(
                    ErrorKind::Unknown,
                    format!(
                        "{} has not acknowledged the append at {} within {} s",
                        self.connection.address,
                        waiter.subject,
                        limits::NATS_ACK_TIMEOUT.as_secs()
                    ),
                ),
            };
            let _ = waiter.answer.send(Outcome::Failed(error));
        }
    }
}

/// How often it is looked at what has waited too long.
const TICK: std::time::Duration = std::time::Duration::from_millis(50);
