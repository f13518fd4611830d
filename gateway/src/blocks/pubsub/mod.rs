//! Publish and subscribe: topics, receipts, reading back, subscriptions and their deliveries, dead letters.

mod consent;
mod deliver;
mod error;
mod flight;
mod options;
mod plan;
mod read;
mod reply;
mod resources;
mod write;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_backbone::catalogue::{Catalogue, ChangeError, Origin, Subscription, Topic, TopicSpec};
use tidegate_backbone::consume::{
    Consume, DeadLetter, DeadLetterGroup, Head, Lag, LetterId, Passports, PausedKey, Redrive, Redriven, Selection,
    Status, Which, Whole,
};
use tidegate_backbone::publish::{Publisher, Receipt};
use tidegate_backbone::{Environment, Error, ErrorKind, LogInfo, PartitionLog, Position, Result};
use tidegate_routing::TopicName;
use tidegate_schemas::Event;
use tracing::info;

use crate::sink::{self, Sinks};
use crate::telemetry::traces::{self, Traces};

pub use error::PublishError;
use flight::Flights;
pub use options::Options;
pub use plan::{Action, MissingTopic, Plan, PlannedSubscription, PlannedTopic, Proposal};
pub use read::{Page, Range, ReadError, Reading, Span};
pub use reply::RequestError;
pub use resources::ApplyError;
pub use write::{Applied, Expected, Outcome, WriteError};

/// The block. Clones share everything.
#[derive(Clone, Debug)]
pub struct PubSub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Arc<dyn PartitionLog>,
    consume: Arc<Consume>,
    publisher: Publisher,
    flights: Flights,
    sinks: Sinks,
    traces: Traces,
    /// Where the subscriptions of files deliver to, by name: with what came from the process environment, which the
    /// catalogue does not keep.
    targets: Mutex<HashMap<ByteString, Arc<sink::Target>>>,
    /// Topics of other brokers that files declare and that could not be attached yet: nobody creates others of their names.
    awaited: Mutex<HashSet<TopicName>>,
    /// Held by whoever changes what topics and subscriptions ask for, so that what was checked is what is changed.
    writing: tokio::sync::Mutex<()>,
    waiters: reply::Waiters,
    elsewhere: reply::Elsewhere,
    environment: Environment,
    options: Options,
}

impl PubSub {
    /// The block over a backbone whose delivery was started. Deliveries go out once [`PubSub::apply`] has said what the
    /// files declare. `environment` is the one that delivery runs in.
    pub fn start(
        log: Arc<dyn PartitionLog>,
        consume: Arc<Consume>,
        environment: Environment,
        options: Options,
        sinks: Sinks,
        traces: Traces,
    ) -> Self {
        let publisher = Publisher::new(Arc::clone(&log), Arc::clone(consume.catalogue()));
        let targets = Mutex::new(HashMap::new());
        let flights = Flights::new(options.publishes_in_flight);
        let (waiters, elsewhere) = (reply::Waiters::default(), reply::Elsewhere::default());
        Self(Arc::new(Inner {
            log,
            consume,
            publisher,
            flights,
            sinks,
            traces,
            targets,
            awaited: Mutex::default(),
            waiters,
            elsewhere,
            writing: tokio::sync::Mutex::new(()),
            environment,
            options,
        }))
    }

    fn catalogue(&self) -> &Arc<Catalogue> {
        self.0.consume.catalogue()
    }

    /// The output bindings that subscriptions deliver to.
    pub fn outputs(&self) -> &sink::Outputs {
        &self.0.sinks.outputs
    }

    /// Takes the deliveries of every subscription, whichever gateway created it, and of those to come, until the process
    /// stops. To be run once it is known from the files where subscriptions deliver to.
    pub async fn deliver_all(self) {
        let mut changes = self.0.consume.changes();
        loop {
            for subscription in self.subscriptions() {
                self.deliver(&subscription);
            }
            tokio::select! {
                () = self.0.environment.stopping().cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    fn deliver(&self, subscription: &Subscription) {
        if let Some(consumer) = self.0.consume.consumer(subscription.uid) {
            self.0.environment.spawn(deliver::run(self.clone(), consumer));
        }
    }

    /// Where a subscription delivers to. The error says why it can deliver nowhere.
    fn target(&self, subscription: &Subscription) -> std::result::Result<Arc<sink::Target>, String> {
        // What a request may make the gateway call is bounded, so that nobody reaches through it what only it can.
        let (known, policy) = match subscription.spec.origin {
            Origin::File(_) => {
                let known = self.0.targets.lock().get(&subscription.spec.name).cloned();
                // Another gateway may declare the name otherwise; what the catalogue says is in force.
                let known = known.filter(|target| target.sink().to_string() == subscription.spec.sink);
                (known, sink::AddressPolicy::Any)
            }
            Origin::Api | Origin::FirstUse => (None, self.0.options.request_sinks),
        };
        known.map_or_else(|| sink::Target::listed(&subscription.spec, policy).map(Arc::new), Ok)
    }

    /// Whether a topic takes events: it is there, or would be created by the first.
    pub fn takes_events(&self, name: &TopicName) -> std::result::Result<(), PublishError> {
        if self.catalogue().topic(name.as_str()).is_some() {
            return Ok(());
        }
        if name.is_reserved() {
            return Err(PublishError::Reserved(name.clone()));
        }
        if self.0.awaited.lock().contains(name) {
            let context = format!("topic {name} is on a broker that cannot be reached yet");
            return Err(ChangeError::Broker(Error::new(ErrorKind::Unavailable, context)).into());
        }
        if !self.0.options.create_topics_on_first_use {
            return Err(PublishError::UnknownTopic(name.clone()));
        }
        Ok(())
    }

    /// The topic that an event is published to, created where that is allowed.
    pub async fn topic_for_publish(&self, name: &TopicName) -> std::result::Result<Arc<Topic>, PublishError> {
        if let Some(topic) = self.catalogue().topic(name.as_str()) {
            return Ok(topic);
        }
        self.takes_events(name)?;
        let partitions = self.0.log.capability().partitions_default;
        let (topic, created) =
            self.0.consume.create_topic(TopicSpec::new(name.clone(), partitions, Origin::FirstUse)).await?;
        if created {
            info!(topic = %name, partitions, "created a topic on its first use");
        }
        Ok(topic)
    }

    /// Whether an event more may be published now; to be asked before its body is read.
    ///
    /// # Errors
    /// Backpressure.
    pub fn check_room(&self) -> Result<()> {
        self.0.flights.check()
    }

    /// Events on their way to the log, and how often publishing was refused for their number.
    pub fn flights(&self) -> (usize, u64) {
        (self.0.flights.out(), self.0.flights.refused())
    }

    /// Publishes one event; the receipt comes when it is durable. It is queued when this is called, so that events
    /// published one after the other keep their order.
    pub fn publish(
        &self,
        topic: &Topic,
        mut event: Event,
    ) -> impl Future<Output = Result<Receipt>> + Send + 'static + use<> {
        let span = self.0.traces.publish(topic.spec.name.as_str(), &mut event);
        let timeout = self.0.options.publish_timeout;
        let begun = self.0.flights.begin(1).map(|flight| (flight, self.0.publisher.publish(topic, event, timeout)));
        async move {
            let outcome = match begun {
                Ok((_flight, stored)) => stored.await,
                Err(full) => Err(full),
            };
            record(&span, &outcome);
            outcome
        }
    }

    /// Publishes many events, each by itself.
    pub async fn publish_all(&self, topic: &Topic, mut events: Vec<Event>) -> Vec<Result<Receipt>> {
        let name = topic.spec.name.as_str();
        let spans: Vec<traces::Span> = events.iter_mut().map(|event| self.0.traces.publish(name, event)).collect();
        let outcomes = match self.0.flights.begin(events.len()) {
            Ok(_flight) => self.0.publisher.publish_all(topic, events, self.0.options.publish_timeout).await,
            Err(full) => events.iter().map(|_| Err(Error::new(full.kind().clone(), full.context()))).collect(),
        };
        spans.iter().zip(&outcomes).for_each(|(span, outcome)| record(span, outcome));
        outcomes
    }

    /// Creates a topic, or gives the one that is there.
    async fn create_topic(&self, spec: TopicSpec) -> std::result::Result<(Arc<Topic>, bool), ChangeError> {
        self.0.consume.create_topic(spec).await
    }

    /// Partitions of a topic for which nothing is said.
    pub fn partitions_default(&self) -> u32 {
        self.0.log.capability().partitions_default
    }

    /// Every topic, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.catalogue().view().topics.values().cloned().collect();
        topics.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
        topics
    }

    /// The topic of that name.
    pub fn topic(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.catalogue().topic(name.as_str())
    }

    /// What is known of each partition of a topic, and how many events it holds.
    pub async fn partitions(&self, topic: &Topic) -> Result<Vec<(LogInfo, u64)>> {
        let mut partitions = Vec::new();
        for id in topic.logs() {
            let info = self.0.log.info(&id).await?;
            partitions.push((info, self.0.log.count(&id, Position::ZERO).await?));
        }
        Ok(partitions)
    }

    /// What was lost of a topic, where a partition of it is not delivered here for that.
    pub fn damage(&self, topic: &TopicName) -> Option<String> {
        self.0.consume.damage(topic.as_str())
    }

    /// Every subscription, by name.
    pub fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        let mut subscriptions: Vec<_> = self.catalogue().view().subscriptions.values().cloned().collect();
        subscriptions.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
        subscriptions
    }

    /// The subscription of that name.
    pub fn subscription(&self, name: &str) -> Option<Arc<Subscription>> {
        self.catalogue().subscription(name)
    }

    /// How subscriptions stand in the whole cluster, by uid.
    pub async fn statuses(&self, uids: &[u64]) -> Whole<HashMap<u64, Status>> {
        self.0.consume.statuses(uids).await
    }

    /// How a subscription stands in the partitions that this gateway delivers.
    pub fn status(&self, subscription: &Subscription) -> Option<Status> {
        self.0.consume.status(subscription.uid)
    }

    /// How far a subscription is behind its topics; none where it has ended.
    pub async fn lag(&self, subscription: &Subscription) -> Result<Option<Lag>> {
        self.0.consume.lag(subscription.uid).await
    }

    /// Stops the deliveries of a subscription for that reason, or lets them go on where there is none.
    pub async fn pause(
        &self,
        name: &ByteString,
        reason: Option<String>,
    ) -> std::result::Result<Arc<Subscription>, ChangeError> {
        self.0.consume.pause(name, reason).await
    }

    /// Keys of a subscription that stand still, at most `limit`.
    pub async fn paused_keys(&self, uid: u64, limit: usize) -> Result<Whole<Vec<PausedKey>>> {
        self.0.consume.paused_keys(uid, limit).await
    }

    /// Lets keys of a subscription go on that stand still; gives how many.
    pub async fn resume_keys(
        &self,
        name: &ByteString,
        which: &Which,
        head: Head,
    ) -> std::result::Result<Whole<usize>, ChangeError> {
        self.0.consume.resume_keys(name, which, head).await
    }

    /// Dead letters of a subscription behind `after`.
    pub async fn dead_letters(
        &self,
        name: &ByteString,
        selection: &Selection,
        after: Option<LetterId>,
        limit: usize,
    ) -> std::result::Result<Whole<Vec<DeadLetter>>, ChangeError> {
        self.0.consume.dead_letters(name, selection, after, limit).await
    }

    /// Dead letters of a subscription, counted by what they have in common.
    pub async fn dead_letter_groups(
        &self,
        name: &ByteString,
        selection: &Selection,
    ) -> std::result::Result<Whole<Vec<DeadLetterGroup>>, ChangeError> {
        self.0.consume.dead_letter_groups(name, selection).await
    }

    /// What became of the events of that id, and of that source where it is given.
    pub async fn passports(&self, id: &str, source: Option<&str>) -> Result<Passports> {
        self.0.consume.passports(id, source).await
    }

    /// Sends dead letters to their subscription again.
    pub async fn redrive(
        &self,
        name: &ByteString,
        selection: &Selection,
        redrive: &Redrive,
    ) -> std::result::Result<Whole<Redriven>, ChangeError> {
        self.0.consume.redrive(name, selection, redrive).await
    }

    /// Lets go of dead letters.
    pub async fn drop_dead_letters(
        &self,
        name: &ByteString,
        selection: &Selection,
    ) -> std::result::Result<Whole<usize>, ChangeError> {
        self.0.consume.drop_dead_letters(name, selection).await
    }
}

/// Tells the span of a publish what came of it.
fn record(span: &traces::Span, outcome: &Result<Receipt>) {
    match outcome {
        Ok(receipt) => span.stored(receipt.partition, receipt.position.map(|position| position.0)),
        Err(error) => span.failed(error.kind().name(), error),
    }
}
