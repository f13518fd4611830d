//! Changes of topics and subscriptions, made here: the catalogue first, then what runs.

use std::sync::Arc;

use bytestring::ByteString;
use tidegate_routing::TopicName;
use tracing::{info, warn};

use super::checkpoint;
use super::core::Partition;
use super::engine::Consume;
use crate::catalogue::{ChangeError, Start, Subscription, SubscriptionSpec, Topic, TopicSpec};
use crate::error::Result;
use crate::log::Position;
use crate::slot::{Command, CommitError, Expect};

/// How often pausing is tried anew because other gateways change the subscription at the same time.
const PAUSE_ATTEMPTS: u32 = 5;

impl Consume {
    /// Creates a topic, or gives the one that is there; subscriptions whose patterns match read it from its start, or from
    /// where they say that they begin where it is attached and so may hold much that came before them.
    pub async fn create_topic(&self, mut spec: TopicSpec) -> std::result::Result<(Arc<Topic>, bool), ChangeError> {
        let _changing = self.changing.lock().await;
        let catalogue = &self.shared.catalogue;
        let mut starts = Command::new();
        if let (Some(to), None) = (&spec.attached, catalogue.check_topic(&spec)?) {
            spec.partitions = catalogue.attach_new(&spec.name, to).await?;
            for subscription in catalogue.view().clone().subscriptions.values() {
                if self.reader_of(&subscription.spec).reads(&spec.name) {
                    let within = (&spec.name, spec.partitions);
                    starts = self.put_starts(starts, subscription.uid, within, &subscription.spec.from).await?;
                }
            }
        }
        let now = self.shared.environment.clock.unix_milliseconds();
        let (topic, created) = catalogue.create_topic(spec, now, starts).await?;
        // What fails is told, and tried again with the next checkpoint, here and below.
        self.reconcile().await.ok();
        Ok((topic, created))
    }

    /// Deletes a topic with its events. Subscriptions to it stay, and have nothing to read.
    pub async fn delete_topic(&self, name: &TopicName) -> std::result::Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let slot = self.shared.catalogue.slot();
        let keys = checkpoint::keys_of_topic(slot.as_ref(), name.as_str());
        let (command, rest) = checkpoint::first_deletions(&keys);
        let deleted = self.shared.catalogue.delete_topic(name, command).await;
        if self.shared.catalogue.topic(name.as_str()).is_none() {
            checkpoint::delete(slot.as_ref(), rest).await?;
            self.reconcile().await.ok();
        }
        deleted
    }

    /// Creates a subscription, which begins where it says in every topic that is there.
    pub async fn create_subscription(
        &self,
        spec: SubscriptionSpec,
    ) -> std::result::Result<Arc<Subscription>, ChangeError> {
        let _changing = self.changing.lock().await;
        if self.shared.catalogue.subscription(&spec.name).is_some() {
            return Err(ChangeError::Exists { what: "subscription", name: spec.name.to_string() });
        }
        let uid = self.shared.environment.random.bits();
        let mut command = Command::new();
        let topics: Vec<_> = self.shared.catalogue.view().topics.values().cloned().collect();
        let reader = self.reader_of(&spec);
        for topic in topics.iter().filter(|topic| reader.reads(&topic.spec.name)) {
            command = self.put_starts(command, uid, (&topic.spec.name, topic.spec.partitions), &spec.from).await?;
        }
        let created_at = Some(self.shared.environment.clock.unix_milliseconds());
        let subscription = Subscription { created_at, ..Subscription::new(uid, spec) };
        let subscription = self.shared.catalogue.put_subscription(subscription, Expect::Absent, command).await?;
        self.reconcile().await.ok();
        Ok(subscription)
    }

    /// Adds to a command for slot 0 where a subscription begins in each of the partitions of a topic.
    async fn put_starts(
        &self,
        mut command: Command,
        uid: u64,
        (topic, partitions): (&TopicName, u32),
        start: &Start,
    ) -> Result<Command> {
        let only_slot = self.shared.slots == 1;
        for number in 0..partitions {
            let partition = Partition { topic: topic.clone(), number };
            let position = self.start_of(&partition, start).await?;
            command = checkpoint::put_start(command, only_slot, uid, &partition, position);
        }
        Ok(command)
    }

    async fn start_of(&self, partition: &Partition, start: &Start) -> Result<Position> {
        let id = partition.log();
        let info = self.shared.log.info(&id).await?;
        Ok(match start {
            Start::Earliest => info.begin,
            Start::Latest => info.end,
            Start::Time(time) => self.shared.log.lookup(&id, *time).await?,
            Start::At(cursor) => {
                cursor.0.get(partition.number as usize).copied().unwrap_or(info.begin).clamp(info.begin, info.end)
            }
        })
    }

    /// Changes what a subscription asks for; its progress stays. It begins in new topics of changed patterns where it says.
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
        let core = self.shared.cores.lock().get(&existing.uid).cloned();
        if let Some(core) = core {
            self.quiet(&core).await;
        }
        let changed = self.change(&existing, spec).await;
        self.end(existing.uid);
        // Where the change failed, it goes on as it was.
        self.reconcile().await.ok();
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
        let comes = |name: &TopicName| wanted.reads(name) && !existed.reads(name);
        for topic in topics.iter().filter(|topic| comes(&topic.spec.name)) {
            let within = (&topic.spec.name, topic.spec.partitions);
            command = self.put_starts(command, existing.uid, within, &spec.from).await?;
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
        let core = self.shared.cores.lock().get(&subscription.uid).cloned();
        // One that another gateway changed besides is brought to that as a whole.
        if let Some(core) = core.filter(|core| core.subscription().spec == subscription.spec) {
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
        let slot = self.shared.catalogue.slot();
        let keys = checkpoint::keys_of_subscription(slot.as_ref(), existing.uid);
        let (command, rest) = checkpoint::first_deletions(&keys);
        self.shared.catalogue.remove_subscription(name, expect, command).await?;
        checkpoint::delete(slot.as_ref(), rest).await?;
        self.reconcile().await.ok();
        Ok(())
    }
}
