//! Messages on their way: queued where they are sent, written in that order by one task, and answered by the broker's
//! confirmations. A message that no queue takes comes back before its confirmation: nobody is there.
//!
//! **Streams have a channel each** ([`Channels::EachQueue`]). When a stream gets another leader, the broker sends what its
//! leader has not confirmed once more, by itself. Before 4.0 it then takes the number that the message has on its channel for
//! the number that it has among those to the stream (rabbitmq-server #12236). Where a channel goes to several streams the
//! former is larger, and the new leader takes what is published next, up to that number, for repeats: it confirms messages and
//! drops them. On a channel that goes to one stream, with every message confirmed and none returned, both numbers are the same.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Confirmation};
use tidegate_backbone::budget::Permit;
use tidegate_backbone::{Environment, Error, ErrorKind, Result};
use tidegate_schemas::limits;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::connection::{Link, Open};
use crate::error::{busy, closed, failed, misconfigured, unavailable, unconfirmed};

/// A message and where it goes.
pub(crate) struct Message {
    pub(crate) exchange: String,
    pub(crate) key: String,
    /// Whether it comes back where no queue takes it.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

/// How a message ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The broker has it.
    Yes,
    /// No queue takes it.
    Nobody,
}

/// What ends where the broker does not confirm a message in time: as long as that stands, the message would be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The connection, which may be dead.
    EndsConnection,
    /// The channel: others on the connection go to other queues, whose broker may be well.
    EndsChannel,
}

/// Which messages share a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channels {
    /// All.
    One,
    /// Those with one key. At most [`limits::RABBITMQ_PUBLISH_CHANNELS`] are open.
    EachQueue,
}

/// How messages are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// The most messages on their way.
    pub(crate) messages_max: usize,
    /// The most bytes of them; one that is larger is taken where it is alone.
    pub(crate) bytes_max: usize,
    /// Whether they wait for a connection; a lane's would come too late.
    pub(crate) waits: bool,
    pub(crate) late: Late,
    pub(crate) channels: Channels,
}

/// Counts what is on its way.
#[derive(Debug, Default)]
struct Count {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// How long before it is looked again whether a channel is idle.
const IDLE_DELAY: Duration = Duration::from_millis(2);

/// What one message takes of the queue, until it is answered.
struct Room {
    count: Arc<Count>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.count.messages.fetch_sub(1, Ordering::AcqRel);
        self.count.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

struct Waiter {
    answer: oneshot::Sender<Result<Taken>>,
    what: Arc<str>,
    deadline: Instant,
    _room: Room,
    _permit: Option<Permit>,
}

impl Waiter {
    fn end(self, outcome: Result<Taken>) {
        // Whoever sent it may not wait any more.
        let _ = self.answer.send(outcome);
    }
}

/// See the module.
pub(crate) struct Publisher {
    link: Arc<Link>,
    queue: mpsc::Sender<(Message, Waiter)>,
    count: Arc<Count>,
    manner: Manner,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Publisher").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Starts the tasks, which end with the environment.
    pub(crate) fn start(link: Arc<Link>, environment: &Environment, manner: Manner) -> Self {
        let (queue, messages) = mpsc::channel(manner.messages_max);
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by what the queue lets in, whose room each message holds"
        )]
        let (written, confirms) = mpsc::unbounded_channel();
        let writer =
            Writer { link: Arc::clone(&link), written, channels: manner.channels, sessions: HashMap::new(), token: 0 };
        let (stop, stop_too) = (environment.clone(), environment.clone());
        environment.spawn(writer.run(messages, stop));
        environment.spawn(confirm(Arc::clone(&link), manner.late, confirms, stop_too));
        Self { link, queue, count: Arc::default(), manner }
    }

    /// Queues a message.
    pub(crate) fn push(
        &self,
        message: Message,
        what: Arc<str>,
        permit: Option<Permit>,
    ) -> Result<oneshot::Receiver<Result<Taken>>> {
        if self.link.is_closed() {
            return Err(closed());
        }
        if let Some(reason) = self.link.blocked() {
            return Err(blocked(&what, &reason));
        }
        if !self.manner.waits && self.link.current().is_none() {
            return Err(self.link.down(&what));
        }
        let bytes = message.body.len();
        let messages = self.count.messages.fetch_add(1, Ordering::AcqRel);
        let queued = self.count.bytes.fetch_add(bytes, Ordering::AcqRel);
        let room = Room { count: Arc::clone(&self.count), bytes };
        let Manner { messages_max, bytes_max, .. } = self.manner;
        if messages >= messages_max || (queued + bytes > bytes_max && messages > 0) {
            return Err(busy("messages"));
        }
        let (answer, outcome) = oneshot::channel();
        let deadline = Instant::now() + limits::RABBITMQ_CONFIRM_TIMEOUT;
        let waiter = Waiter { answer, what, deadline, _room: room, _permit: permit };
        match self.queue.try_send((message, waiter)) {
            Ok(()) => Ok(outcome),
            Err(mpsc::error::TrySendError::Full(_)) => Err(busy("messages")),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(closed()),
        }
    }

    /// Waits until nothing is on its way, which no message is for longer than its time.
    pub(crate) async fn settle(&self) {
        while self.count.messages.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn blocked(what: &str, reason: &str) -> Error {
    let kind = ErrorKind::Backpressure { retry_after: limits::PUBLISHES_RETRY_AFTER };
    Error::new(
        kind,
        format!("{what} was not begun: RabbitMQ takes no messages for now ({reason}); see to its memory and disk"),
    )
}

/// Whether a channel may be used on. Whoever waits for a confirmation on it holds one too, so the number of holders tells whether
/// something is on its way.
#[derive(Debug, Default)]
struct Mark {
    /// A message came back or failed, so that the broker's numbers may differ.
    is_spoiled: AtomicBool,
}

/// A channel that confirms.
#[derive(Clone)]
struct Session {
    channel: Channel,
    open: Open,
    mark: Arc<Mark>,
    /// The token of the message that it was used for last.
    used: u64,
}

impl Session {
    fn is_usable(&self, open: &Open) -> bool {
        self.open.generation == open.generation
            && self.channel.status().connected()
            && !self.mark.is_spoiled.load(Ordering::Acquire)
    }

    /// Whether nothing is on its way there. The writer holds the mark once.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.mark) == 1
    }

    /// Whether what goes over another channel could overtake something.
    fn is_under_way(&self, open: &Open) -> bool {
        self.open.generation == open.generation && self.channel.status().connected() && !self.is_idle()
    }
}

/// A message on its way to the broker.
struct Sent {
    message: Message,
    waiter: Waiter,
    token: u64,
    session: Session,
}

struct Writer {
    link: Arc<Link>,
    written: mpsc::UnboundedSender<Sent>,
    channels: Channels,
    /// By key, or without one where all share it.
    sessions: HashMap<String, Session>,
    /// The next message's.
    token: u64,
}

impl Writer {
    async fn run(mut self, mut messages: mpsc::Receiver<(Message, Waiter)>, environment: Environment) {
        let stopping = environment.stopping();
        loop {
            let next = tokio::select! {
                () = stopping.cancelled() => break,
                next = messages.recv() => next,
            };
            let Some((message, waiter)) = next else { break };
            tokio::select! {
                () = stopping.cancelled() => break,
                () = self.write(message, waiter) => {}
            }
        }
        messages.close();
        while let Ok((_, waiter)) = messages.try_recv() {
            waiter.end(Err(closed()));
        }
    }

    /// Hands a message over with the channel that it goes on, when there is one.
    async fn write(&mut self, message: Message, waiter: Waiter) {
        let session = loop {
            match timeout_at(waiter.deadline, self.ready(&message.key)).await {
                Ok(Ok(session)) => break session,
                Ok(Err(error)) if *error.kind() == ErrorKind::Unavailable && Instant::now() < waiter.deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(Err(error)) => return waiter.end(Err(error)),
                Err(_) => {
                    let error = match self.link.blocked() {
                        Some(reason) => blocked(&waiter.what, &reason),
                        None => self.link.down(&waiter.what),
                    };
                    return waiter.end(Err(error));
                }
            }
        };
        let token = self.token;
        self.token += 1;
        // The other side ends with this one only.
        let _ = self.written.send(Sent { message, waiter, token, session });
    }

    /// The channel of a message with that key, when the broker takes messages.
    async fn ready(&mut self, key: &str) -> Result<Session> {
        let mut state = self.link.state();
        let open = {
            let state = state
                .wait_for(|state| state.closed || (state.open.is_some() && state.blocked.is_none()))
                .await
                .map_err(|_| closed())?;
            state.open.clone().filter(|_| !state.closed).ok_or_else(closed)?
        };
        let key = match self.channels {
            Channels::One => "",
            Channels::EachQueue => key,
        };
        if let Some(session) = self.sessions.get_mut(key).filter(|session| session.is_usable(&open)) {
            session.used = self.token;
            return Ok(session.clone());
        }
        while self.sessions.get(key).is_some_and(|session| session.is_under_way(&open)) {
            tokio::time::sleep(IDLE_DELAY).await;
        }
        self.make_room(&open).await;
        let channel = open.channel("opening a channel for messages").await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(|error| failed("asking for confirmations", error, false))?;
        let session = Session { channel, open, mark: Arc::default(), used: self.token };
        self.sessions.insert(key.to_owned(), session.clone());
        Ok(session)
    }

    /// Lets go of channels that are of no use any more, and of the one that was not used for longest where there are too many; it
    /// closes when what is on its way there is answered.
    async fn make_room(&mut self, open: &Open) {
        self.sessions.retain(|_, session| session.is_usable(open) || session.is_under_way(open));
        while self.sessions.len() >= limits::RABBITMQ_PUBLISH_CHANNELS {
            let idle = self.sessions.iter().filter(|(_, session)| session.is_idle());
            match idle.min_by_key(|(_, session)| session.used).map(|(key, _)| key.clone()) {
                Some(key) => drop(self.sessions.remove(&key)),
                None => tokio::time::sleep(IDLE_DELAY).await,
            }
        }
    }
}

fn too_late(what: &str) -> Error {
    let seconds = limits::RABBITMQ_CONFIRM_TIMEOUT.as_secs();
    Error::new(ErrorKind::Unknown, format!("RabbitMQ has not confirmed {what} within {seconds} s"))
}

/// What came of a confirmation: of which message, what was told, and the message that came back with it.
struct Told {
    token: u64,
    waiter: Waiter,
    /// Of the channel that it went on.
    mark: Arc<Mark>,
    /// None where it was confirmed.
    failed: Option<Error>,
    /// The token of a message that came back before this confirmation: of this one or of another.
    returned: Option<u64>,
}

/// Writes a message, with the first look, and waits for its confirmation.
async fn send(sent: Sent, link: Arc<Link>, late: Late) -> Told {
    let Sent { message, waiter, token, session: Session { channel, open, mark, .. } } = sent;
    if !channel.status().connected() {
        let failed = match link.current() {
            Some(now) if now.generation == open.generation => unavailable(format!(
                "{} was not begun: RabbitMQ has ended its channel over another message",
                waiter.what
            )),
            _ => link.down(&waiter.what),
        };
        let failed = Some(failed);
        return Told { token, waiter, mark, failed, returned: None };
    }
    let Message { exchange, key, mandatory, properties, body } = message;
    let properties = with_token(properties, token);
    let confirmed = async {
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        channel.basic_publish(exchange.as_str().into(), key.as_str().into(), options, &body, properties).await?.await
    };
    let (failed, returned) = match timeout_at(waiter.deadline, confirmed).await {
        Ok(Ok(Confirmation::Ack(returned))) => (None, returned),
        Ok(Ok(Confirmation::Nack(returned))) => {
            let context = format!("RabbitMQ could not store {}, or not on enough nodes", waiter.what);
            (Some(unavailable(context).outcome_unknown()), returned)
        }
        Ok(Ok(Confirmation::NotRequested)) => {
            (Some(misconfigured("RabbitMQ confirms nothing").outcome_unknown()), None)
        }
        Ok(Err(error)) => (Some(unconfirmed(&waiter.what, error)), None),
        Err(_) => {
            // What is not confirmed in time would be remembered for ever; with another connection it is not.
            match late {
                _ if link.blocked().is_some() => {}
                Late::EndsConnection => open.let_go(),
                // It is on its way with the first look.
                Late::EndsChannel => drop(channel.close(200, "a message was not confirmed".into()).now_or_never()),
            }
            (Some(too_late(&waiter.what)), None)
        }
    };
    let returned = returned.and_then(|message| token_of(&message.delivery.properties));
    Told { token, waiter, mark, failed, returned }
}

/// Which messages came back. The client gives a message that came back to whichever confirmation comes next, so it is known by
/// its token, and a confirmation that brought another's waits until that one has its own.
#[derive(Default)]
struct Returns {
    /// Came back, and not yet confirmed.
    tokens: HashSet<u64>,
    held: Vec<Told>,
}

impl Returns {
    /// Answers what can be answered of those that were told at once.
    fn settle(&mut self, round: Vec<Told>) {
        self.tokens.extend(round.iter().filter_map(|told| told.returned));
        self.held.extend(round);
        let mut candidates = Vec::new();
        for told in std::mem::take(&mut self.held) {
            let Told { token, waiter, mark, failed, returned } = told;
            let outcome = match (self.tokens.remove(&token), failed) {
                (true, _) => Ok(Taken::Nobody),
                (false, Some(error)) => Err(error),
                (false, None) => {
                    candidates.push(Told { token, waiter, mark, failed: None, returned });
                    continue;
                }
            };
            mark.is_spoiled.store(true, Ordering::Release);
            waiter.end(outcome);
        }
        for told in candidates {
            if told.returned.is_some() && !self.tokens.is_empty() {
                self.held.push(told);
            } else {
                told.waiter.end(Ok(Taken::Yes));
            }
        }
    }
}

/// Writes messages in the order in which they were handed over, and answers them.
async fn confirm(link: Arc<Link>, late: Late, mut written: mpsc::UnboundedReceiver<Sent>, environment: Environment) {
    let stopping = environment.stopping();
    let mut waiting = FuturesUnordered::new();
    let mut returns = Returns::default();
    loop {
        let mut round = Vec::new();
        tokio::select! {
            () = stopping.cancelled() => break,
            next = written.recv() => {
                let Some(sent) = next else { break };
                waiting.push(send(sent, Arc::clone(&link), late));
            }
            Some(first) = waiting.next() => round.push(first),
        }
        // What was just handed over is looked at here for the first time, before the next one is taken. And all that were told
        // until now: one that came back may be with an earlier confirmation than its own.
        while let Some(Some(told)) = waiting.next().now_or_never() {
            round.push(told);
        }
        if !round.is_empty() {
            returns.settle(round);
        }
    }
    // Those on their way hear that nobody tells.
    drop(waiting);
}

/// The property by which a message that comes back is known.
const TOKEN: &str = "tidegate-append";

/// The message's token among its properties.
fn with_token(properties: BasicProperties, token: u64) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(TOKEN.into(), AMQPValue::LongLongInt(i64::try_from(token).unwrap_or(i64::MAX)));
    properties.with_headers(headers)
}

fn token_of(properties: &BasicProperties) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get(TOKEN)? {
        AMQPValue::LongLongInt(token) => u64::try_from(*token).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = oneshot::Receiver<Result<Taken>>;

    fn one(token: u64, returned: Option<u64>) -> (Told, Outcome) {
        let (answer, outcome) = oneshot::channel();
        let room = Room { count: Arc::default(), bytes: 0 };
        room.count.messages.fetch_add(1, Ordering::AcqRel);
        let deadline = Instant::now();
        let waiter = Waiter { answer, what: Arc::from("a test"), deadline, _room: room, _permit: None };
        (Told { token, waiter, mark: Arc::default(), failed: None, returned }, outcome)
    }

    fn answer(outcome: &mut Outcome) -> Option<Taken> {
        outcome.try_recv().ok().map(|taken| taken.expect("it did not fail"))
    }

    #[test]
    fn a_message_that_came_back_is_the_one_whose_token_it_has() {
        let mut returns = Returns::default();
        // With the confirmation of another, in one round and in two.
        let ((one_told, mut first), (two_told, mut second)) = (one(1, Some(2)), one(2, None));
        returns.settle(vec![one_told, two_told]);
        assert_eq!((answer(&mut first), answer(&mut second)), (Some(Taken::Yes), Some(Taken::Nobody)));
        let ((three_told, mut third), (four_told, mut fourth)) = (one(3, Some(4)), one(4, None));
        returns.settle(vec![three_told]);
        assert_eq!(answer(&mut third), None, "its own may still come");
        returns.settle(vec![four_told]);
        assert_eq!((answer(&mut third), answer(&mut fourth)), (Some(Taken::Yes), Some(Taken::Nobody)));
        // Two that came back with each other's confirmation.
        let ((five_told, mut fifth), (six_told, mut sixth)) = (one(5, Some(6)), one(6, Some(5)));
        returns.settle(vec![five_told]);
        returns.settle(vec![six_told]);
        assert_eq!((answer(&mut fifth), answer(&mut sixth)), (Some(Taken::Nobody), Some(Taken::Nobody)));
        let (seven_told, mut seventh) = one(7, None);
        returns.settle(vec![seven_told]);
        assert_eq!(answer(&mut seventh), Some(Taken::Yes));
        assert!(returns.tokens.is_empty() && returns.held.is_empty());
    }
}
