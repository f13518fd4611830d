//! Brings what runs here to what the catalogue says, whoever changed it: subscriptions, and the partitions of the slots that
//! this process owns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytestring::ByteString;
use tidegate_routing::{Filter, Matcher, SubscriptionId, TopicName};
use tracing::{info, warn};

use super::checkpoint;
use super::core::{Core, Partition};
use super::engine::Consume;
use super::feeder;
use super::owned::Owned;
use super::progress::Checkpoint;
use super::router::{Router, Routing};
use crate::catalogue::{Subscription, SubscriptionSpec, Topic, View};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogSpec, Position};
use crate::slot::placement::slot_of;

/// Beyond the time of an attempt, how long it may take to come back.
const QUIET_GRACE: Duration = Duration::from_secs(1);

impl Consume {
    /// Brings what runs to what the catalogue says: every subscription, with every partition that it reads and that is
    /// owned here. What the broker refuses for now is tried again with the next checkpoint; the catalogue has it, so it is
    /// never lost. Gives the first such fault.
    ///
    /// To be called while `changing` is held.
    pub(super) async fn reconcile(&self) -> Result<()> {
        self.unreconciled.store(false, Ordering::Relaxed);
        let view = self.shared.catalogue.view().clone();
        self.end_former(&view).await;
        let mut first = self.forget_topics(&view).await;
        let forgotten = first.is_ok();
        let begun = self.begin_new(&view);
        // Before a subscription joins a router it is in the index: the router would skip its events otherwise.
        self.rebuild(&view);
        for core in begun {
            self.shared.environment.spawn(feeder::run(Arc::clone(&self.shared), core, Arc::clone(&self.readers)));
        }
        let readers = self.readers(&view);
        let mut failed = HashSet::new();
        for topic in view.topics.values() {
            let outcome = self.open_topic(topic, &readers, &mut failed).await;
            if let Err(error) = &outcome {
                warn!(topic = %topic.spec.name, %error, "a topic cannot be read; trying again");
            }
            first = first.and(outcome);
        }
        // A checkpoint of a slot that lacks a partition must not say that this revision is taken into account: where
        // subscriptions start in that partition would be forgotten.
        if forgotten {
            let whole = |owned: &Arc<Owned>| !failed.contains(&owned.slot());
            self.shared
                .owned_all()
                .iter()
                .filter(|owned| whole(owned))
                .for_each(|owned| owned.has_followed(view.revision));
        }
        if first.is_ok() {
            self.followed.store(view.revision, Ordering::Release);
        } else {
            self.unreconciled.store(true, Ordering::Relaxed);
        }
        self.changed.send_replace(view.revision);
        first
    }

    /// Ends subscriptions that are gone, and those that ask for something else now; the latter have everything written
    /// down first, and begin again from there.
    async fn end_former(&self, view: &View) {
        let by_uid: HashMap<u64, &Arc<Subscription>> =
            view.subscriptions.values().map(|subscription| (subscription.uid, subscription)).collect();
        let running: Vec<Arc<Core>> = self.shared.cores.lock().values().cloned().collect();
        let mut changed = Vec::new();
        for core in running {
            let known = core.subscription();
            match by_uid.get(&core.uid) {
                None => {
                    self.end(core.uid);
                    for owned in self.shared.owned_all() {
                        let keys = checkpoint::keys_of_subscription(&owned.journal, core.uid);
                        if let Err(error) = checkpoint::delete(&owned.journal, &keys).await {
                            warn!(subscription = %known.spec.name, slot = owned.slot(), %error,
                                "the progress of a subscription that is gone stays until the slot is owned anew");
                        }
                    }
                }
                Some(subscription) if subscription.spec != known.spec => changed.push(core),
                Some(subscription) if ***subscription != *known => {
                    self.tell_gate(&known, subscription);
                    core.update(Arc::clone(subscription));
                }
                Some(_) => {}
            }
        }
        if changed.is_empty() {
            return;
        }
        futures_util::future::join_all(changed.iter().map(|core| self.quiet(core))).await;
        if let Err(error) = self.checkpoint().await {
            warn!(%error, "progress cannot be written before subscriptions change; some events are delivered again");
        }
        for core in changed {
            info!(subscription = %core.subscription().spec.name, "a subscription goes on with what it asks for now");
            self.end(core.uid);
        }
    }

    fn tell_gate(&self, before: &Subscription, after: &Subscription) {
        let name = &after.spec.name;
        match &after.paused {
            Some(reason) if before.paused.as_ref() != Some(reason) => {
                warn!(subscription = %name, reason, "a subscription is paused");
            }
            None if before.paused.is_some() => info!(subscription = %name, "a subscription goes on"),
            _ => {}
        }
    }

    /// Ends what runs for a subscription.
    pub(super) fn end(&self, uid: u64) {
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
    pub(super) async fn quiet(&self, core: &Arc<Core>) {
        core.close();
        self.leave(core);
        let until = tokio::time::Instant::now() + core.subscription().spec.timeout + QUIET_GRACE;
        while core.depth().in_flight > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes the run-time part of every subscription that has none, without partitions.
    fn begin_new(&self, view: &View) -> Vec<Arc<Core>> {
        let mut cores = self.shared.cores.lock();
        let mut begun = Vec::new();
        for subscription in view.subscriptions.values() {
            if !cores.contains_key(&subscription.uid) {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                let core = Arc::new(Core::new(number, Arc::clone(subscription), &self.shared.environment));
                cores.insert(core.uid, Arc::clone(&core));
                begun.push(core);
            }
        }
        begun
    }

    /// Makes the index anew from the subscriptions that there are.
    fn rebuild(&self, view: &View) {
        let cores: HashMap<u32, Arc<Core>> =
            self.shared.cores.lock().values().map(|core| (core.number, Arc::clone(core))).collect();
        let specs: Vec<(u32, Arc<Subscription>)> =
            cores.values().map(|core| (core.number, core.subscription())).collect();
        let matcher = Matcher::build(specs.iter().map(|(number, subscription)| {
            let spec = &subscription.spec;
            (SubscriptionId(*number), spec.topics.as_slice(), spec.filters.as_slice())
        }))
        .with_dead_letter_topics(dead_letter_topics(view));
        self.shared.routing.store(Arc::new(Routing { matcher, cores }));
    }

    /// Tells which topics a subscription takes in; wildcards never take in a dead-letter topic. To be made once for all
    /// topics that are asked about.
    pub(super) fn reader_of(&self, spec: &SubscriptionSpec) -> Matcher {
        reader(spec, &self.shared.catalogue.view())
    }

    fn readers(&self, view: &View) -> Vec<(Arc<Core>, Matcher)> {
        let cores: Vec<Arc<Core>> = self.shared.cores.lock().values().cloned().collect();
        cores
            .into_iter()
            .map(|core| {
                let matcher = reader(&core.subscription().spec, view);
                (core, matcher)
            })
            .collect()
    }

    /// Lets go of topics that are gone, or are others of the same name by now, and of the progress in them.
    async fn forget_topics(&self, view: &View) -> Result<()> {
        let is = |name: &str, uid: u64| view.topics.get(name).is_some_and(|topic| topic.uid == uid);
        let gone: HashSet<ByteString> = {
            let mut topics = self.topics.lock();
            let gone = topics.iter().filter(|(name, uid)| !is(name, **uid)).map(|(name, _)| name.clone()).collect();
            topics.retain(|name, uid| is(name, *uid));
            gone
        };
        for name in &gone {
            for core in self.shared.cores.lock().values() {
                core.forget_topic(name);
            }
            self.shared.routers.lock().retain(|partition, router| {
                let stays = partition.topic.as_str() != &**name;
                if !stays {
                    router.retire();
                }
                stays
            });
        }
        for owned in self.shared.owned_all() {
            let mut names: HashSet<String> = gone.iter().map(ToString::to_string).collect();
            names.extend(
                checkpoint::incarnations(&owned.journal)?
                    .into_iter()
                    .filter(|(name, uid)| !is(name, *uid))
                    .map(|(name, _)| name),
            );
            for name in names {
                let keys = checkpoint::keys_of_topic(&owned.journal, &name);
                checkpoint::delete(&owned.journal, &keys).await.map_err(|error| {
                    Error::new(
                        ErrorKind::Unavailable,
                        format!("the progress in a topic {name} that is gone cannot be deleted"),
                    )
                    .with_source(error)
                })?;
            }
        }
        Ok(())
    }

    /// Gives subscriptions those partitions of a topic that are owned here, and the partitions their routers.
    async fn open_topic(
        &self,
        topic: &Topic,
        readers: &[(Arc<Core>, Matcher)],
        failed: &mut HashSet<u32>,
    ) -> Result<()> {
        let name = &topic.spec.name;
        let reads: Vec<&Arc<Core>> =
            readers.iter().filter(|(_, matcher)| matcher.reads(name)).map(|(core, _)| core).collect();
        let letters: Vec<&Arc<Core>> = readers
            .iter()
            .map(|(core, _)| core)
            .filter(|core| core.subscription().spec.dead_letter_topic == *name)
            .collect();
        self.topics.lock().insert(name.as_byte_string().clone(), topic.uid);
        if reads.is_empty() && letters.is_empty() {
            return Ok(());
        }
        let mut first = Ok(());
        for number in 0..topic.spec.partitions {
            let Some(owned) = self.shared.owned(slot_of(name.as_str(), number, self.shared.slots)) else { continue };
            let partition = Partition { topic: name.clone(), number };
            if let Some(router) = self.shared.router(&partition) {
                router.set_foreign(topic.spec.foreign);
            }
            let lacking = |cores: &[&Arc<Core>]| -> Vec<Arc<Core>> {
                cores.iter().filter(|core| !core.has(&partition)).map(|core| Arc::clone(core)).collect()
            };
            let (reads, letters) = (lacking(&reads), lacking(&letters));
            if !reads.is_empty() || !letters.is_empty() {
                let outcome = self.open_partition(&owned, topic, &partition, (reads, letters)).await;
                if outcome.is_err() {
                    failed.insert(owned.slot());
                }
                first = first.and(outcome);
            }
        }
        first
    }

    /// Everything that can fail comes first: a router must not go on before each subscription that it would have fed is
    /// there, or the next checkpoint would say that it has what was routed meanwhile.
    async fn open_partition(
        &self,
        owned: &Arc<Owned>,
        topic: &Topic,
        partition: &Partition,
        (reads, letters): (Vec<Arc<Core>>, Vec<Arc<Core>>),
    ) -> Result<()> {
        let starts = self.shared.starts();
        let load = |core: &Core| checkpoint::load(&owned.journal, starts, core.uid, partition);
        let loaded = reads.iter().map(|core| load(core)).collect::<Result<Vec<_>>>()?;
        let redriven = letters.iter().map(|core| load(core)).collect::<Result<Vec<_>>>()?;
        let routed = checkpoint::routed(&owned.journal, partition)?;
        let router = match self.shared.router(partition) {
            None if !reads.is_empty() => Some(self.new_router(owned, topic, partition, routed).await?),
            _ => None,
        };
        let _standing = owned.standing.lock();
        if owned.is_over() {
            return Ok(());
        }
        if let Some(router) = router {
            self.shared.routers.lock().insert(partition.clone(), Arc::clone(&router));
            self.shared.environment.spawn(router.run(Arc::clone(&self.shared)));
        }
        for (core, (read, progress)) in reads.iter().zip(loaded) {
            // Neither is there for a topic that was created after the subscription: it is read from its start.
            let read = read.or(routed).unwrap_or(Position::ZERO);
            core.add(owned, partition.clone(), topic.spec.key_from, (read, progress));
        }
        for (core, (_, progress)) in letters.iter().zip(redriven) {
            core.add_redrive(owned, partition.clone(), Checkpoint { open: Vec::new(), parked: progress.parked });
        }
        Ok(())
    }

    async fn new_router(
        &self,
        owned: &Arc<Owned>,
        topic: &Topic,
        partition: &Partition,
        routed: Option<Position>,
    ) -> Result<Arc<Router>> {
        let id = partition.log();
        let info = match self.shared.log.info(&id).await {
            // Other gateways created, deleted and created it at once; the last of them is about to see to its logs.
            Err(error) if *error.kind() == ErrorKind::NotFound && topic.spec.attached.is_none() => {
                let spec = LogSpec::topic(topic.spec.name.as_byte_string().clone(), topic.spec.partitions);
                self.shared.log.create(spec).await?;
                self.shared.log.info(&id).await?
            }
            other => other?,
        };
        if let Some(routed) = routed.filter(|routed| *routed > info.end) {
            let context = format!("{} ends at {} but was routed up to {routed}", info.id, info.end);
            return Err(Error::new(ErrorKind::DataLoss, context));
        }
        let start = routed.unwrap_or(info.end).max(info.begin);
        Ok(Arc::new(Router::new(Arc::clone(owned), partition.clone(), topic, start)))
    }
}

fn dead_letter_topics(view: &View) -> Vec<TopicName> {
    view.subscriptions.values().map(|subscription| subscription.spec.dead_letter_topic.clone()).collect()
}

fn reader(spec: &SubscriptionSpec, view: &View) -> Matcher {
    Matcher::build([(SubscriptionId(0), spec.topics.as_slice(), &[] as &[Filter])])
        .with_dead_letter_topics(dead_letter_topics(view))
}
