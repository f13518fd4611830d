//! Changes of topics and subscriptions, made here: the catalogue first, then what runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytestring::ByteString;
use tidegate_routing::TopicName;
use tracing::{info, warn};

use super::checkpoint;
use super::engine::Consume;
use super::starts::{Moment, too_many};
use crate::catalogue::{ChangeError, Subscription, SubscriptionSpec, Topic, TopicSpec};
use crate::slot::{Command, CommitError, Expect};

/// How often pausing is tried anew because other gateways change the subscription at the same time.
const PAUSE_ATTEMPTS: u32 = 5;

impl Consume {
    /// Creates a topic, or gives the one that is there; subscriptions whose patterns match read it from its start, or from
    /// where they say that they begin where it is attached and so may hold much that came before them.
    pub async fn create_topic(&self, mut spec: TopicSpec) -> std::result::Result<(Arc<Topic>, bool), ChangeError> {
        let catalogue = &self.shared.catalogue;
        catalogue.reach(&spec).await?;
        let _changing = self.changing.lock().await;
        let (mut starts, mut moment) = (Command::new(), Moment::default());
        if let (Some(to), None) = (&spec.attachment(), catalogue.check_topic(&spec)?) {
            spec.partitions = catalogue.attach_new(&spec.name, to).await?;
            for subscription in catalogue.view().clone().subscriptions.values() {
                if self.reader_of(&subscription.spec).reads(&spec.name) {
                    let within = [(spec.name.clone(), spec.partitions)];
                    let from = &subscription.spec.from;
                    starts = self.put_starts(starts, subscription.uid, &within, from, &mut moment).await?;
                }
            }
        }
        let now = self.shared.environment.clock.unix_milliseconds();
        let (topic, created) = catalogue.create_topic(spec, now, starts).await?;
        self.follow().await;
        Ok((topic, created))
    }

    /// Creates topics as [`Consume::create_topic`] does, many at once. The outcomes are in the order of what was asked.
    pub async fn create_topics(
        &self,
        specs: Vec<TopicSpec>,
    ) -> Vec<std::result::Result<(Arc<Topic>, bool), ChangeError>> {
        let mut outcomes: Vec<Option<_>> = specs.iter().map(|_| None).collect();
        let (attached, own): (Vec<_>, Vec<_>) =
            specs.into_iter().enumerate().partition(|(_, spec)| spec.attached.is_some());
        {
            let _changing = self.changing.lock().await;
            let now = self.shared.environment.clock.unix_milliseconds();
            let (places, own): (Vec<usize>, Vec<TopicSpec>) = own.into_iter().unzip();
            let created = self.shared.catalogue.create_topics(own, now).await;
            for (place, outcome) in places.into_iter().zip(created) {
                outcomes[place] = Some(outcome);
            }
            self.follow().await;
        }
        // These are few, and subscriptions begin somewhere in them.
        for (place, spec) in attached {
            outcomes[place] = Some(self.create_topic(spec).await);
        }
        outcomes.into_iter().flatten().collect()
    }

    /// What was lost of a topic, where a partition of it is owned here and nothing more of it is delivered for that.
    pub fn damage(&self, topic: &str) -> Option<String> {
        let routers = self.shared.routers.lock();
        let mut of_it = routers.values().filter(|router| router.partition.topic.as_str() == topic);
        of_it.find_map(|router| router.damage())
    }

    /// Brings what runs to the catalogue, where it is behind. What fails is told, and tried again with the next checkpoint.
    async fn follow(&self) {
        let behind = self.followed.load(Ordering::Acquire) < self.shared.catalogue.view().revision;
        if behind || self.unreconciled.load(Ordering::Relaxed) {
            self.reconcile().await.ok();
        }
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
        self.create_subscription_at(spec, &mut Moment::default()).await
    }

    /// Creates one of several subscriptions that begin at the same moment.
    ///
    /// It is there when where it begins is stored, and by the same commit: neither is without the other.
    pub async fn create_subscription_at(
        &self,
        spec: SubscriptionSpec,
        moment: &mut Moment,
    ) -> std::result::Result<Arc<Subscription>, ChangeError> {
        let _changing = self.changing.lock().await;
        if self.shared.catalogue.subscription(&spec.name).is_some() {
            return Err(ChangeError::Exists { what: "subscription", name: spec.name.to_string() });
        }
        let uid = self.shared.environment.random.bits();
        let reader = self.reader_of(&spec);
        let topics = self.topics_where(|name| reader.reads(name));
        let command = self.put_starts(Command::new(), uid, &topics, &spec.from, moment).await?;
        let created_at = Some(self.shared.environment.clock.unix_milliseconds());
        let subscription = Subscription { created_at, ..Subscription::new(uid, spec) };
        let name = subscription.spec.name.clone();
        let put = self.shared.catalogue.put_subscription(subscription, Expect::Absent, command).await;
        let subscription = put.map_err(|error| too_many(error, &name, topics.len()))?;
        self.reconcile().await.ok();
        Ok(subscription)
    }

    /// The topics of that kind, with the number of their partitions.
    fn topics_where(&self, is: impl Fn(&TopicName) -> bool) -> Vec<(TopicName, u32)> {
        let view = self.shared.catalogue.view();
        let topics = view.topics.values().filter(|topic| is(&topic.spec.name));
        topics.map(|topic| (topic.spec.name.clone(), topic.spec.partitions)).collect()
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
        let (wanted, existed) = (self.reader_of(&spec), self.reader_of(&existing.spec));
        let topics = self.topics_where(|name| wanted.reads(name) && !existed.reads(name));
        let mut moment = Moment::default();
        let command = self.put_starts(Command::new(), existing.uid, &topics, &spec.from, &mut moment).await?;
        let changed_at = Some(self.shared.environment.clock.unix_milliseconds());
        let changed = Subscription { spec, changed_at, ..Subscription::clone(existing) };
        let expect = self.shared.catalogue.view().expect_subscription(&existing.spec.name);
        let put = self.shared.catalogue.put_subscription(changed, expect, command).await;
        put.map_err(|error| too_many(error, &existing.spec.name, topics.len()))
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
