//! Reads one queue as long as its slot is owned here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tidegate_backbone::queues::bound::{self, Bound};
use tidegate_backbone::queues::{Intake, QueueBrokers, Received, Source};
use tidegate_backbone::slot::Journal;
use tidegate_backbone::{Environment, Error, ErrorKind};
use tidegate_resources::{self as resources, Binding, Input, Key, OnRefused};
use tidegate_schemas::message::{Message, Reading};
use tidegate_schemas::{Event, Limits, foreign, limits};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::standing::Standing;
use crate::blocks::pubsub::{PubSub, PublishError};

/// See the module.
pub(super) struct Reader {
    pub(super) pubsub: PubSub,
    pub(super) brokers: QueueBrokers,
    pub(super) binding: Arc<Binding>,
    pub(super) input: Input,
    pub(super) journal: Journal,
    pub(super) standing: Arc<Standing>,
    pub(super) environment: Environment,
    pub(super) stop: CancellationToken,
}

/// Why reading ended.
enum End {
    /// It is to end.
    Stopped,
    /// The reader of the queue has ended.
    Lost(Error),
    /// A message can never be an event.
    Refused(String),
}

/// What became of a message.
enum Fate {
    /// The log has its event.
    Durable,
    /// It can never have it.
    Refused(String),
    /// It was not tried to the end.
    GivenUp,
}

/// A message that became an event.
struct Taken {
    receipt: u64,
    event: Event,
    /// What it is, for people.
    named: String,
}

/// A message on its way to the log.
type Flight = BoxFuture<'static, (Option<ByteString>, Arc<Taken>, Fate)>;

/// What was read and is not settled.
#[derive(Default)]
struct Hand {
    flights: FuturesUnordered<Flight>,
    /// Keys of which a message is on its way, with those behind it.
    lanes: HashMap<ByteString, VecDeque<Arc<Taken>>>,
}

impl Reader {
    pub(super) async fn run(self) {
        while !self.stop.is_cancelled() {
            match self.read().await {
                End::Stopped => return,
                End::Lost(error) => {
                    self.waits(&error.to_string());
                    self.rest(limits::BINDING_INTERVAL).await;
                }
                End::Refused(reason) => {
                    let name = &self.binding.name;
                    warn!(
                        binding = name,
                        reason, "an input binding stands still; `tidegate bindings resume {name}` lets it go on"
                    );
                    self.standing.pauses(self.environment.clock.unix_milliseconds(), &reason);
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = self.standing.resumed() => info!(binding = name, "an input binding is resumed"),
                    }
                }
            }
        }
    }

    fn waits(&self, reason: &str) {
        if self.standing.waits(self.environment.clock.unix_milliseconds(), reason) {
            warn!(binding = self.binding.name, reason, "an input binding waits");
        }
    }

    async fn rest(&self, time: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Reads until it cannot or must not go on. The queue has back what was not settled.
    async fn read(&self) -> End {
        let opened = tokio::select! {
            () = self.stop.cancelled() => return End::Stopped,
            opened = self.open() => opened,
        };
        let mut intake = match opened {
            Ok(intake) => intake,
            Err(error) => return End::Lost(error),
        };
        self.standing.runs();
        let mut hand = Hand::default();
        let end = match self.pump(&mut intake, &mut hand).await {
            Ok(end) => end,
            Err(error) => End::Lost(error),
        };
        if !matches!(end, End::Lost(_)) {
            self.drain(&mut intake, hand).await;
        }
        intake.close().await;
        end
    }

    /// Nothing is taken from the queue before its topic answers: a message that is held for long comes again, and a queue with
    /// a limit of deliveries counts that.
    async fn open(&self) -> Result<Box<dyn Intake>, Error> {
        let topic = self.pubsub.topic_for_publish(&self.input.topic).await.map_err(|error| match error {
            PublishError::UnknownTopic(_) | PublishError::Reserved(_) => {
                Error::new(ErrorKind::NotFound, error.to_string())
            }
            PublishError::Create(error) => Error::new(ErrorKind::Unavailable, error.to_string()),
        })?;
        self.pubsub.partitions(&topic).await?;
        let (queues, name, prefetch) =
            (self.brokers.get(&self.binding.broker)?, &self.binding.name, self.input.prefetch);
        let (exchange, keys) = match &self.input.from {
            resources::Source::Queue(queue) => {
                return queues.receive(name, &Source::Queue(queue.as_str().into()), prefetch).await;
            }
            resources::Source::Exchange { exchange, keys } => (ByteString::from(exchange.as_str()), keys),
        };
        let keys: Vec<ByteString> = keys.iter().map(|key| key.as_str().into()).collect();
        let wanted: Bound = keys.iter().map(|key| (exchange.clone(), key.clone())).collect();
        let gone = bound::binding(&self.journal, name, &self.binding.broker, &wanted).await?;
        let were = gone.len();
        let intake = queues.receive(name, &Source::Exchange { exchange, keys, gone }, prefetch).await?;
        if were > 0 {
            info!(binding = name, keys = were, "the queue of an input binding is unbound from keys that are gone");
            // Where this does not come about they are unbound once more, the next time.
            if let Err(error) = bound::unbound(&self.journal, name, &self.binding.broker, wanted).await {
                warn!(binding = name, %error, "which keys are gone is not written down");
            }
        }
        Ok(intake)
    }

    async fn pump(&self, intake: &mut Box<dyn Intake>, hand: &mut Hand) -> Result<End, Error> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(End::Stopped),
                Some(flown) = hand.flights.next() => {
                    if let Some(reason) = self.land(intake, hand, flown).await? {
                        return Ok(End::Refused(reason));
                    }
                }
                received = intake.next() => {
                    let received = received?;
                    let receipt = received.receipt;
                    match self.take(received) {
                        Ok(taken) => self.fly(hand, Arc::new(taken)),
                        Err(reason) => {
                            if let Some(reason) = self.refuse(intake, receipt, reason).await? {
                                return Ok(End::Refused(reason));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Settles a message whose fate is known, and lets the next one of its key go. Gives why nothing more can be read.
    async fn land(
        &self,
        intake: &mut Box<dyn Intake>,
        hand: &mut Hand,
        (key, taken, fate): (Option<ByteString>, Arc<Taken>, Fate),
    ) -> Result<Option<String>, Error> {
        let refused = match fate {
            Fate::Durable => {
                intake.done(taken.receipt).await?;
                self.standing.took();
                None
            }
            Fate::Refused(reason) => {
                let reason = format!("{} cannot be an event: {reason}", taken.named);
                self.refuse(intake, taken.receipt, reason).await?
            }
            Fate::GivenUp => return Ok(None),
        };
        if refused.is_none()
            && let Some(key) = key
        {
            match hand.lanes.get_mut(&key).and_then(VecDeque::pop_front) {
                Some(next) => hand.flights.push(self.flight(Some(key), next)),
                None => drop(hand.lanes.remove(&key)),
            }
        }
        Ok(refused)
    }

    /// What becomes of a message that can never be an event. Gives why nothing more can be read.
    async fn refuse(
        &self,
        intake: &mut Box<dyn Intake>,
        receipt: u64,
        reason: String,
    ) -> Result<Option<String>, Error> {
        match self.input.on_refused {
            OnRefused::Pause => Ok(Some(reason)),
            OnRefused::Reject => {
                intake.refuse(receipt).await?;
                self.standing.rejected();
                warn!(binding = self.binding.name, reason, "a message was given back as refused");
                Ok(None)
            }
        }
    }

    fn take(&self, received: Received) -> Result<Taken, String> {
        if received.redelivered {
            self.standing.saw_again();
        }
        let message = received.message;
        let queue = match &self.input.from {
            resources::Source::Queue(queue) => queue,
            resources::Source::Exchange { exchange, .. } => exchange,
        };
        let source = self.input.source.clone().unwrap_or_else(|| foreign::source(&self.binding.broker, queue));
        let key = key_of(&self.input.key, &message, queue);
        let reading = Reading { kind: self.input.kind.as_deref(), source: &source, key: key.as_deref() };
        let named = named(&message);
        let fresh = || format!("{:016x}{:016x}", self.environment.random.bits(), self.environment.random.bits());
        match message.into_event(&reading, fresh, &Limits::default()) {
            Ok(event) => Ok(Taken { receipt: received.receipt, event, named }),
            Err(faults) => Err(format!("{named} cannot be an event: {faults}")),
        }
    }

    fn fly(&self, hand: &mut Hand, taken: Arc<Taken>) {
        let Some(key) = taken.event.partition_key().map(ByteString::from) else {
            return hand.flights.push(self.flight(None, taken));
        };
        match hand.lanes.get_mut(&key) {
            Some(behind) => behind.push_back(taken),
            None => {
                hand.lanes.insert(key.clone(), VecDeque::new());
                hand.flights.push(self.flight(Some(key), taken));
            }
        }
    }

    /// Publishes until the log has the event, or can never have it.
    fn flight(&self, key: Option<ByteString>, taken: Arc<Taken>) -> Flight {
        let (pubsub, topic, journal) = (self.pubsub.clone(), self.input.topic.clone(), self.journal.clone());
        let (standing, stop, environment) = (Arc::clone(&self.standing), self.stop.clone(), self.environment.clone());
        let name = self.binding.name.clone();
        Box::pin(async move {
            let mut delay = limits::BINDING_RETRY_INITIAL;
            let mut has_waited = false;
            loop {
                let refusal = if !journal.holds() {
                    // Another gateway may read the queue by now.
                    "the slot of the binding is not surely owned here for now".to_owned()
                } else {
                    let published = async {
                        let topic = pubsub.topic_for_publish(&topic).await.map_err(|error| error.to_string())?;
                        Ok(pubsub.publish(&topic, taken.event.clone()).await)
                    };
                    match published.await {
                        Ok(Ok(_)) => {
                            if has_waited {
                                standing.runs();
                            }
                            return (key, taken, Fate::Durable);
                        }
                        Ok(Err(error)) if matches!(error.kind(), ErrorKind::TooLarge { .. }) => {
                            return (key, taken, Fate::Refused(error.to_string()));
                        }
                        Ok(Err(error)) => error.to_string(),
                        Err(reason) => reason,
                    }
                };
                has_waited = true;
                if standing.waits(environment.clock.unix_milliseconds(), &refusal) {
                    warn!(binding = name, reason = refusal, "an input binding holds messages");
                }
                tokio::select! {
                    () = stop.cancelled() => return (key, taken, Fate::GivenUp),
                    () = tokio::time::sleep(delay) => {}
                }
                delay = (delay * 2).min(limits::BINDING_RETRY_MAX);
            }
        })
    }

    /// Settles what is on its way, and begins nothing more.
    async fn drain(&self, intake: &mut Box<dyn Intake>, mut hand: Hand) {
        let landed = async {
            while let Some((_, taken, fate)) = hand.flights.next().await {
                if let Fate::Durable = fate {
                    intake.done(taken.receipt).await?;
                    self.standing.took();
                }
            }
            Ok::<_, Error>(())
        };
        // What does not come to its end comes again.
        let _ = tokio::time::timeout(limits::BINDING_DRAIN_TIMEOUT, landed).await;
    }
}

/// The key of a message's event, where that has none.
fn key_of(key: &Key, message: &Message, queue: &str) -> Option<String> {
    match key {
        Key::None => None,
        Key::Queue => Some(queue.to_owned()),
        Key::RoutingKey => Some(message.routing_key.to_string()),
        Key::Header(name) => message.header(name).map(ToString::to_string),
    }
}

/// A message for people.
fn named(message: &Message) -> String {
    let id = match &message.event {
        Some(Ok(event)) => Some(event.id().clone()),
        _ => message.id.clone(),
    };
    let bytes = message.body.len();
    match id {
        Some(id) => format!("the message {id:?} of {bytes} bytes"),
        None => format!("a message of {bytes} bytes with the routing key {:?}", message.routing_key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_message() {
        let headers = vec![(ByteString::from("customer"), ByteString::from("7"))];
        let message = Message { routing_key: "order.eu".into(), headers, ..Message::default() };
        let of = |key: Key| key_of(&key, &message, "orders");
        assert_eq!(of(Key::None), None);
        assert_eq!(of(Key::Queue).as_deref(), Some("orders"));
        assert_eq!(of(Key::RoutingKey).as_deref(), Some("order.eu"));
        assert_eq!(of(Key::Header("customer".to_owned())).as_deref(), Some("7"));
        assert_eq!(of(Key::Header("other".to_owned())), None);
    }
}
