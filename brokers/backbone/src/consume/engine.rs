//! Delivery as a whole: its subscriptions and partitions come and go here, and its progress is written down from here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytestring::ByteString;
use parking_lot::Mutex;
use tidegate_routing::breaker::{Cause as BreakerCause, Open};
use tidegate_routing::{Filter, Matcher, SubscriptionId, TopicName};
use tidegate_schemas::limits;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::Shared;
use super::checkpoint::{self, Draft};
use super::core::{Core, Depth, Gate, Partition};
use super::delivery::Consumer;
use super::feeder;
use super::index::Index;
use super::observe::Observer;
use super::outcomes::Outcomes;
use super::progress::Checkpoint;
use super::router::{Router, Routing};
use crate::catalogue::{Catalogue, ChangeError, Subscription, SubscriptionSpec, Topic, TopicSpec, View};
use crate::cursor::Cursor;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::log::{PartitionLog, Position};
use crate::slot::{Command, CommitError, Expect, Journal};

/// How often old outcomes are let go.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);
/// How often pausing is tried anew because other gateways change the subscription at the same time.
const PAUSE_ATTEMPTS: u32 = 5;

/// Where a new subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first event that is still there.
    Earliest,
    /// With what comes after its creation.
    Latest,
    /// With the first event appended at or after that time, in milliseconds since 1970.
    Time(u64),
    /// At that place; for a subscription to one topic.
    At(Cursor),
}

/// Whether deliveries of a subscription go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They do.
    Active,
    /// They were stopped, for that reason.
    Paused(String),
    /// The sink cannot be reached; it is probed.
    Unreachable(Probing),
    /// The sink fails whatever it is sent; it is probed.
    BreakerOpen(Probing),
}

/// How a sink at fault is probed; times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// Since when deliveries wait.
    pub since: u64,
    /// When the next probe goes out, or when the one went out that is out now.
    pub probe_at: u64,
}

/// How a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether deliveries go out.
    pub standing: Standing,
    /// Events in memory that wait for their turn.
    pub queued: usize,
    /// Keys, and events without a key, that wait for a retry, and events that are to be delivered later.
    pub parked: usize,
    /// Dead letters that were sent again and are not settled.
    pub redriving: usize,
    /// Keys, and events without a key, that stand still until somebody resumes them.
    pub paused_keys: usize,
    /// Deliveries that are out.
    pub in_flight: u32,
    /// Events between what it has read and what is routed, over all its partitions.
    pub behind: u64,
    /// Events that it lost to the retention of their topics, since the process started.
    pub trimmed: u64,
}

/// See the module `consume`.
#[derive(Debug)]
pub struct Consume {
    pub(super) shared: Arc<Shared>,
    readers: Arc<Semaphore>,
    numbers: AtomicU32,
    /// What runs may differ from what the catalogue says.
    unreconciled: AtomicBool,
    /// Held while subscriptions or topics change and while a checkpoint is taken, so that it never sees half a change.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl Consume {
    /// Takes delivery up where the slot says that it was. Deliveries wait until a [`Consumer`] asks for them.
    pub async fn start(
        log: Arc<dyn PartitionLog>,
        journal: Journal,
        catalogue: Arc<Catalogue>,
        environment: Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>> {
        let outcomes = Outcomes::open(Arc::clone(&log), journal.slot()).await?;
        let index = Index::new(Arc::clone(&log), journal.clone(), Arc::clone(&catalogue), environment.clone());
        let shared = Arc::new(Shared {
            log,
            journal,
            catalogue,
            environment,
            observer,
            outcomes,
            index: Arc::new(index),
            routing: Arc::new(ArcSwap::from_pointee(Routing::default())),
            routers: Mutex::new(HashMap::new()),
            cores: Mutex::new(HashMap::new()),
        });
        let consume = Arc::new(Self {
            shared,
            readers: Arc::new(Semaphore::new(feeder::READERS)),
            numbers: AtomicU32::new(0),
            unreconciled: AtomicBool::new(false),
            changing: tokio::sync::Mutex::new(()),
        });
        let subscriptions: Vec<_> = consume.shared.catalogue.view().subscriptions.values().cloned().collect();
        let mut restored = Vec::new();
        for subscription in subscriptions {
            restored.push(consume.restore(subscription).await?);
        }
        consume.rebuild();
        for core in restored {
            consume.run(core);
        }
        let writer = Arc::clone(&consume);
        consume.shared.environment.spawn(async move { writer.write_checkpoints().await });
        let keeper = Arc::clone(&consume);
        consume.shared.environment.spawn(async move { keeper.retain_forever().await });
        consume.shared.environment.spawn(Arc::clone(&consume.shared.index).run());
        Ok(consume)
    }

    /// Makes the run-time part of a subscription from what the slot says. It is in the index only after
    /// [`Consume::rebuild`], and may join a router only then: [`Consume::run`] comes last.
    async fn restore(&self, subscription: Arc<Subscription>) -> Result<Arc<Core>> {
        let core = self.core_of(&subscription);
        let topics: Vec<_> = self.shared.catalogue.view().topics.values().cloned().collect();
        let reader = self.reader_of(&subscription.spec);
        for topic in topics {
            if reader.reads(&topic.spec.name) {
                self.add_topic(&core, &topic).await?;
            }
            if topic.spec.name == subscription.spec.dead_letter_topic {
                self.add_letters(&core, &topic)?;
            }
        }
        self.shared.cores.lock().insert(core.uid, Arc::clone(&core));
        Ok(core)
    }

    fn core_of(&self, subscription: &Arc<Subscription>) -> Arc<Core> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        Arc::new(Core::new(number, Arc::clone(subscription), &self.shared.environment))
    }

    /// Tells which topics a subscription takes in; wildcards never take in a dead-letter topic. To be made once for all
    /// topics that are asked about.
    pub(super) fn reader_of(&self, spec: &SubscriptionSpec) -> Matcher {
        Matcher::build([(SubscriptionId(0), spec.topics.as_slice(), &[] as &[Filter])])
            .with_dead_letter_topics(self.dead_letter_topics())
    }

    fn dead_letter_topics(&self) -> Vec<TopicName> {
        let view = self.shared.catalogue.view();
        view.subscriptions.values().map(|subscription| subscription.spec.dead_letter_topic.clone()).collect()
    }

    fn run(&self, core: Arc<Core>) {
        self.shared.environment.spawn(feeder::run(Arc::clone(&self.shared), core, Arc::clone(&self.readers)));
    }

    /// Gives a subscription the partitions of a topic, and the topic its routers.
    async fn add_topic(&self, core: &Core, topic: &Topic) -> Result<()> {
        for number in 0..topic.spec.partitions {
            let partition = Partition { topic: topic.spec.name.clone(), number };
            let routed = checkpoint::routed(&self.shared.journal, &partition)?;
            let (read, progress) = checkpoint::load(&self.shared.journal, core.uid, &partition)?;
            // Neither is there for a topic that was created after the subscription: it is read from its start.
            let read = read.or(routed).unwrap_or(Position::ZERO);
            self.ensure_router(&partition, routed, topic).await?;
            core.add(partition, topic.spec.key_from, read, progress);
        }
        Ok(())
    }

    fn add_letters(&self, core: &Core, topic: &Topic) -> Result<()> {
        for number in 0..topic.spec.partitions {
            let partition = Partition { topic: topic.spec.name.clone(), number };
            let (_, progress) = checkpoint::load(&self.shared.journal, core.uid, &partition)?;
            core.add_redrive(partition, Checkpoint { open: Vec::new(), parked: progress.parked });
        }
        Ok(())
    }

    async fn ensure_router(&self, partition: &Partition, routed: Option<Position>, topic: &Topic) -> Result<()> {
        if self.shared.router(partition).is_some() {
            return Ok(());
        }
        let info = self.shared.log.info(&partition.log()).await?;
        if routed.is_some_and(|routed| routed > info.end) {
            return Err(Error::new(
                ErrorKind::DataLoss,
                format!("{} ends at {} but was routed up to {}", info.id, info.end, routed.unwrap_or_default()),
            ));
        }
        let start = routed.unwrap_or(info.end).max(info.begin);
        let index = &self.shared.index;
        let index = (Arc::clone(index), index.number(partition, topic.created_at));
        let router = Arc::new(Router::new(partition.clone(), start, topic.spec.dedupe_window, index));
        self.shared.routers.lock().insert(partition.clone(), Arc::clone(&router));
        self.shared.environment.spawn(router.run(
            Arc::clone(&self.shared.log),
            Arc::clone(&self.shared.routing),
            self.shared.environment.clone(),
            Arc::clone(&self.shared.observer),
        ));
        Ok(())
    }

    /// Makes the index anew from the subscriptions that there are.
    fn rebuild(&self) {
        let cores: HashMap<u32, Arc<Core>> =
            self.shared.cores.lock().values().map(|core| (core.number, Arc::clone(core))).collect();
        let specs: Vec<(u32, Arc<Subscription>)> =
            cores.values().map(|core| (core.number, core.subscription())).collect();
        let matcher = Matcher::build(specs.iter().map(|(number, subscription)| {
            let spec = &subscription.spec;
            (SubscriptionId(*number), spec.topics.as_slice(), spec.filters.as_slice())
        }))
        .with_dead_letter_topics(self.dead_letter_topics());
        self.shared.routing.store(Arc::new(Routing { matcher, cores }));
    }

    /// Creates a topic, or gives the one that is there; subscriptions whose patterns match read it from its start.
    pub async fn create_topic(&self, spec: TopicSpec) -> std::result::Result<(Arc<Topic>, bool), ChangeError> {
        let _changing = self.changing.lock().await;
        let now = self.shared.environment.clock.unix_milliseconds();
        let (topic, created) = self.shared.catalogue.create_topic(spec, now).await?;
        if created {
            self.reconcile().await;
        }
        Ok((topic, created))
    }

    /// Brings what runs to what the catalogue says: every subscription, with every topic that it reads. What the broker
    /// refuses for now is tried again with the next checkpoint; the catalogue has it, so it is never lost.
    async fn reconcile(&self) {
        self.unreconciled.store(false, Ordering::Relaxed);
        let view = self.shared.catalogue.view().clone();
        let mut begun = Vec::new();
        for subscription in view.subscriptions.values() {
            let running = self.shared.cores.lock().get(&subscription.uid).cloned();
            let outcome = match running {
                Some(core) => self.add_missing(&core, &view).await,
                None => self.restore(Arc::clone(subscription)).await.map(|core| begun.push(core)),
            };
            if let Err(error) = outcome {
                warn!(subscription = %subscription.spec.name, %error, "a subscription cannot begin to read; trying again");
                self.unreconciled.store(true, Ordering::Relaxed);
            }
        }
        if !begun.is_empty() {
            self.rebuild();
        }
        for core in begun {
            self.run(core);
        }
    }

    async fn add_missing(&self, core: &Core, view: &View) -> Result<()> {
        let subscription = core.subscription();
        let reader = self.reader_of(&subscription.spec);
        for topic in view.topics.values() {
            if reader.reads(&topic.spec.name) && !core.has(topic) {
                self.add_topic(core, topic).await?;
            }
        }
        Ok(())
    }

    /// Deletes a topic with its events. Subscriptions to it stay, and have nothing to read.
    pub async fn delete_topic(&self, name: &TopicName) -> std::result::Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let text = name.as_str();
        for core in self.shared.cores.lock().values() {
            core.forget_topic(text);
        }
        self.shared.routers.lock().retain(|partition, router| {
            let stays = partition.topic.as_str() != text;
            if !stays {
                router.retire();
            }
            stays
        });
        checkpoint::delete(&self.shared.journal, checkpoint::keys_of_topic(&self.shared.journal, text)).await?;
        self.shared.catalogue.delete_topic(name, Command::new()).await
    }

    /// Creates a subscription, which begins at `start` in every topic that is there.
    pub async fn create_subscription(
        &self,
        spec: SubscriptionSpec,
        start: &Start,
    ) -> std::result::Result<Arc<Subscription>, ChangeError> {
        let _changing = self.changing.lock().await;
        if self.shared.catalogue.subscription(&spec.name).is_some() {
            return Err(ChangeError::Exists { what: "subscription", name: spec.name.to_string() });
        }
        let uid = self.shared.environment.random.bits();
        let mut command = Command::new();
        let topics: Vec<_> = self.shared.catalogue.view().topics.values().cloned().collect();
        let reader = self.reader_of(&spec);
        for topic in &topics {
            if !reader.reads(&topic.spec.name) {
                continue;
            }
            for number in 0..topic.spec.partitions {
                let position = self.start_of(topic, number, start).await?;
                let partition = Partition { topic: topic.spec.name.clone(), number };
                command = checkpoint::put_start(command, uid, &partition, position);
            }
        }
        let created_at = Some(self.shared.environment.clock.unix_milliseconds());
        let subscription = Subscription { created_at, ..Subscription::new(uid, spec) };
        let subscription = self.shared.catalogue.put_subscription(subscription, Expect::Absent, command).await?;
        self.reconcile().await;
        Ok(subscription)
    }

    async fn start_of(&self, topic: &Topic, partition: u32, start: &Start) -> Result<Position> {
        let id = topic.log(partition);
        let info = self.shared.log.info(&id).await?;
        Ok(match start {
            Start::Earliest => info.begin,
            Start::Latest => info.end,
            Start::Time(time) => self.shared.log.lookup(&id, *time).await?,
            Start::At(cursor) => {
                cursor.0.get(partition as usize).copied().unwrap_or(info.begin).clamp(info.begin, info.end)
            }
        })
    }

    /// Changes what a subscription asks for; its progress stays. New topics of changed patterns begin at their end.
    pub async fn update_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> std::result::Result<Arc<Subscription>, ChangeError> {
        let _changing = self.changing.lock().await;
        let Some(existing) = self.shared.catalogue.subscription(&spec.name) else {
            return Err(ChangeError::NotFound { what: "subscription", name: spec.name.to_string() });
        };
        if existing.spec == spec {
            return Ok(existing);
        }
        // What is out comes back first and everything is written down; then it goes on as a new one with the same uid.
        self.quiet(&existing).await;
        let changed = self.change(&existing, spec).await;
        self.end(existing.uid);
        // Where the change failed, it goes on as it was.
        self.reconcile().await;
        changed
    }

    async fn change(
        &self,
        existing: &Subscription,
        spec: SubscriptionSpec,
    ) -> std::result::Result<Arc<Subscription>, ChangeError> {
        self.checkpoint().await?;
        let mut command = Command::new();
        let topics: Vec<_> = self.shared.catalogue.view().topics.values().cloned().collect();
        let (wanted, existed) = (self.reader_of(&spec), self.reader_of(&existing.spec));
        for topic in &topics {
            if !wanted.reads(&topic.spec.name) || existed.reads(&topic.spec.name) {
                continue;
            }
            for number in 0..topic.spec.partitions {
                let position = self.start_of(topic, number, &Start::Latest).await?;
                let partition = Partition { topic: topic.spec.name.clone(), number };
                command = checkpoint::put_start(command, existing.uid, &partition, position);
            }
        }
        let changed_at = Some(self.shared.environment.clock.unix_milliseconds());
        let changed = Subscription { spec, changed_at, ..Subscription::clone(existing) };
        let expect = self.shared.catalogue.view().expect_subscription(&existing.spec.name);
        self.shared.catalogue.put_subscription(changed, expect, command).await
    }

    /// Stops deliveries of a subscription for that reason, or lets them go on where there is none.
    pub async fn pause(
        &self,
        name: &ByteString,
        reason: Option<String>,
    ) -> std::result::Result<Arc<Subscription>, ChangeError> {
        let _changing = self.changing.lock().await;
        let subscription = self.put_paused(name, reason).await?;
        if let Some(core) = self.shared.cores.lock().get(&subscription.uid) {
            core.update(Arc::clone(&subscription));
        }
        match &subscription.paused {
            Some(reason) => warn!(subscription = %name, reason, "a subscription is paused"),
            None => info!(subscription = %name, "a subscription goes on"),
        }
        Ok(subscription)
    }

    /// Writes that a subscription is paused or not. Whoever changed it meanwhile changed something else, and keeps it.
    async fn put_paused(
        &self,
        name: &ByteString,
        reason: Option<String>,
    ) -> std::result::Result<Arc<Subscription>, ChangeError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let view = self.shared.catalogue.view().clone();
            let Some(existing) = view.subscriptions.get(name) else {
                return Err(ChangeError::NotFound { what: "subscription", name: name.to_string() });
            };
            let changed = Subscription { paused: reason.clone(), ..Subscription::clone(existing) };
            let expect = view.expect_subscription(name);
            match self.shared.catalogue.put_subscription(changed, expect, Command::new()).await {
                Err(ChangeError::Commit(CommitError::Conflict { .. })) if attempt < PAUSE_ATTEMPTS => {}
                outcome => return outcome,
            }
        }
    }

    /// Ends a subscription; its progress is forgotten, its dead letters stay in their topic.
    pub async fn remove_subscription(&self, name: &ByteString) -> std::result::Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let Some(existing) = self.shared.catalogue.subscription(name) else {
            return Err(ChangeError::NotFound { what: "subscription", name: name.to_string() });
        };
        let expect = self.shared.catalogue.view().expect_subscription(name);
        self.shared.catalogue.remove_subscription(name, expect, Command::new()).await?;
        self.end(existing.uid);
        self.rebuild();
        let keys = checkpoint::keys_of_subscription(&self.shared.journal, existing.uid);
        checkpoint::delete(&self.shared.journal, keys).await?;
        Ok(())
    }

    fn end(&self, uid: u64) {
        let Some(core) = self.shared.cores.lock().remove(&uid) else { return };
        core.close();
        self.leave(&core);
    }

    fn leave(&self, core: &Core) {
        for router in self.shared.routers.lock().values() {
            router.leave(core);
        }
    }

    /// Hands nothing more of a subscription out and waits for what is out, at most as long as an attempt may take.
    async fn quiet(&self, subscription: &Subscription) {
        let Some(core) = self.shared.cores.lock().get(&subscription.uid).cloned() else { return };
        core.close();
        self.leave(&core);
        let until = tokio::time::Instant::now() + subscription.spec.timeout + Duration::from_secs(1);
        while core.depth().in_flight > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The deliveries of a subscription, for the one who takes them: none where somebody has them already. A subscription
    /// that is changed has to be asked for again.
    pub fn consumer(&self, uid: u64) -> Option<Consumer> {
        let core = self.shared.cores.lock().get(&uid).filter(|core| core.consume()).cloned()?;
        Some(Consumer::new(Arc::clone(&self.shared), core))
    }

    /// Whether a subscription takes an event of that topic and is not paused.
    pub fn is_wanted(&self, topic: &TopicName, event: &tidegate_schemas::Event) -> bool {
        let routing = self.shared.routing.load();
        let mut matched = Vec::new();
        routing.matcher.matches(topic, event, &mut matched);
        let runs = |id: &SubscriptionId| routing.cores.get(&id.0).is_some_and(|core| !core.is_paused());
        matched.iter().any(runs)
    }

    /// How a subscription stands.
    pub fn status(&self, uid: u64) -> Option<Status> {
        let core = self.shared.cores.lock().get(&uid).cloned()?;
        let Depth { queued, parked, paused_keys, in_flight, gate } = core.depth();
        let standing = match gate {
            Gate::Open => Standing::Active,
            Gate::Paused(reason) => Standing::Paused(reason),
            Gate::Breaker(Open { cause, since, probe_at }) => match cause {
                BreakerCause::Unreachable => Standing::Unreachable(Probing { since, probe_at }),
                BreakerCause::Failing => Standing::BreakerOpen(Probing { since, probe_at }),
            },
        };
        let behind = core
            .behind()
            .into_iter()
            .filter_map(|(partition, read)| Some(self.shared.router(&partition)?.peek().0.saturating_sub(read.0)))
            .sum();
        let (redriving, trimmed) = (core.redriving(), core.lost());
        Some(Status { standing, queued, parked, redriving, paused_keys, in_flight, behind, trimmed })
    }

    /// What the catalogue holds.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.shared.catalogue
    }

    async fn write_checkpoints(&self) {
        let stopping = self.shared.environment.stopping();
        let mut trimmed = tokio::time::Instant::now();
        let mut seen = self.shared.catalogue.view().clone();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(limits::CHECKPOINT_INTERVAL) => {}
            }
            let _changing = self.changing.lock().await;
            // A dead letter creates its topic without asking here.
            let view = self.shared.catalogue.view().clone();
            if self.unreconciled.load(Ordering::Relaxed) || !Arc::ptr_eq(&view, &seen) {
                self.reconcile().await;
                seen = view;
            }
            if let Err(error) = self.checkpoint().await {
                warn!(%error, "the progress of deliveries cannot be written; it is tried again, and a crash now means redelivery");
            }
            if trimmed.elapsed() >= TRIM_INTERVAL {
                trimmed = tokio::time::Instant::now();
                if let Err(error) = self.shared.outcomes.trim(&self.shared.environment).await {
                    warn!(%error, "old outcomes of deliveries cannot be trimmed");
                }
            }
        }
    }

    /// Writes progress down as it is now. Routed positions are taken first: what a subscription is found to hold
    /// afterwards can only be more.
    pub(super) async fn checkpoint(&self) -> std::result::Result<(), CommitError> {
        self.shared.outcomes.flush(&self.shared.index).await;
        let routers: Vec<_> = self.shared.routers.lock().values().cloned().collect();
        let cores: Vec<_> = self.shared.cores.lock().values().cloned().collect();
        let view = self.shared.catalogue.view().clone();
        let mut draft = Draft::new(view.subscriptions.values().map(|subscription| subscription.uid));
        let mut routed = HashMap::new();
        for router in routers {
            let position = router.position();
            draft.routed(&router.partition, position);
            routed.insert(router.partition.clone(), position);
        }
        for core in cores {
            for standing in core.checkpoint(|partition| routed.get(partition).copied().unwrap_or_default()) {
                draft.subscription(core.uid, &standing);
            }
        }
        checkpoint::commit(&self.shared.journal, &draft).await
    }

    /// Ends delivery: nothing new goes out, what is out is waited for by whoever holds it, and progress is written one
    /// last time. To be called after the environment was told to stop and the holders of deliveries have ended.
    pub async fn finish(&self) {
        let _changing = self.changing.lock().await;
        if let Err(error) = self.checkpoint().await {
            warn!(%error, "the last progress of deliveries could not be written; the next start delivers some again");
        }
        self.shared.index.finish().await;
    }
}
