//! Brings what runs here to what the catalogue says, whoever changed it: subscriptions, and the partitions of the slots that
//! this process owns.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::stream::{self, StreamExt as _};
use tidegate_routing::{Filter, Matcher, SubscriptionId, TopicName};
use tidegate_schemas::limits;
use tracing::{info, warn};

use super::checkpoint::{self, Loaded};
use super::core::{Begin, Core, Partition};
use super::engine::Consume;
use super::feeder;
use super::owned::Owned;
use super::progress::Checkpoint;
use super::router::{Router, Routing};
use crate::catalogue::{Subscription, SubscriptionSpec, Topic, View};
use crate::error::{Error, ErrorKind, Result};
use crate::log::{LogInfo, LogSpec, PartitionLog, Position};
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
        let (mut failed, mut told) = (HashSet::new(), HashSet::new());
        let openings: Vec<Opening> = view.topics.values().flat_map(|topic| self.openings(topic, &readers)).collect();
        let opens = !openings.is_empty();
        let asked: Vec<_> = openings
            .iter()
            .filter(|opening| self.lacks_router(opening))
            .map(|opening| ends_of(Arc::clone(&self.shared.log), opening.partition.clone(), Arc::clone(&opening.topic)))
            .collect();
        let mut known: HashMap<Partition, Result<LogInfo>> =
            stream::iter(asked).buffer_unordered(limits::BROKER_QUESTIONS).collect().await;
        for opening in openings {
            let topic = Arc::clone(&opening.topic);
            let (slot, outcome) = (opening.owned.slot(), self.open_partition(opening, &mut known));
            if outcome.is_err() {
                failed.insert(slot);
            }
            if let Err(error) = &outcome
                && told.insert(topic.uid)
            {
                warn!(topic = %topic.spec.name, %error, "a topic cannot be read; trying again");
            }
            first = first.and(outcome);
        }
        if opens {
            readers.iter().for_each(|(core, _)| core.added());
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
            gone.iter().for_each(|name| owned.marks.forget_topic(name));
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

    /// The partitions of a topic that are owned here and that subscriptions lack.
    fn openings(&self, topic: &Arc<Topic>, readers: &[(Arc<Core>, Matcher)]) -> Vec<Opening> {
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
            return Vec::new();
        }
        let mut openings = Vec::new();
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
                openings.push(Opening { topic: Arc::clone(topic), owned, partition, reads, letters });
            }
        }
        openings
    }

    fn lacks_router(&self, opening: &Opening) -> bool {
        !opening.reads.is_empty() && self.shared.router(&opening.partition).is_none()
    }

    /// Gives subscriptions a partition, and it its router. Everything that can fail comes first: a router must not go on
    /// before each subscription that it would have fed is there, or the next checkpoint would say that it has what was routed
    /// meanwhile.
    fn open_partition(&self, opening: Opening, known: &mut HashMap<Partition, Result<LogInfo>>) -> Result<()> {
        let lacks_router = self.lacks_router(&opening);
        let Opening { topic, owned, partition, reads, letters } = opening;
        let starts = self.shared.starts();
        let load = |core: &Core| checkpoint::load(&owned.journal, starts, core.uid, &partition);
        let loaded = reads.iter().map(|core| load(core)).collect::<Result<Vec<_>>>()?;
        let redriven = letters.iter().map(|core| load(core)).collect::<Result<Vec<_>>>()?;
        let routed = checkpoint::routed(&owned.journal, &partition)?;
        let router = match known.remove(&partition).filter(|_| lacks_router) {
            Some(info) => Some(new_router((&owned, &topic, &partition), routed, info)?),
            None => None,
        };
        let _standing = owned.standing.lock();
        if owned.is_over() {
            return Ok(());
        }
        if let Some(router) = router {
            self.shared.routers.lock().insert(partition.clone(), Arc::clone(&router));
            router.mark();
            self.shared.environment.spawn(router.run(Arc::clone(&self.shared)));
        }
        let begin = self.shared.router(&partition).map(|router| router.begin());
        for (core, Loaded { read, first, progress }) in reads.iter().zip(loaded) {
            // Neither is there for a topic that was created after the subscription: it is read from its start.
            let read = read.or(routed).unwrap_or(Position::ZERO);
            let from = match begin {
                Some(begin) if first => Begin::First(read.max(begin)),
                _ if first => Begin::First(read),
                _ => Begin::At(read),
            };
            core.add(&owned, partition.clone(), topic.spec.key_from, (from, progress));
        }
        for (core, loaded) in letters.iter().zip(redriven) {
            let parked = loaded.progress.parked;
            core.add_redrive(&owned, partition.clone(), Checkpoint { open: Vec::new(), parked });
        }
        Ok(())
    }
}

/// A partition that subscriptions are to have: those that read it, and those whose dead letters it holds.
struct Opening {
    topic: Arc<Topic>,
    owned: Arc<Owned>,
    partition: Partition,
    reads: Vec<Arc<Core>>,
    letters: Vec<Arc<Core>>,
}

/// Where a partition begins and ends.
async fn ends_of(log: Arc<dyn PartitionLog>, partition: Partition, topic: Arc<Topic>) -> (Partition, Result<LogInfo>) {
    let id = partition.log();
    let mut info = log.info(&id).await;
    // Other gateways created, deleted and created it at once; the last of them is about to see to its logs.
    if let Err(error) = &info
        && *error.kind() == ErrorKind::NotFound
        && topic.spec.attached.is_none()
    {
        let spec = LogSpec::topic(topic.spec.name.as_byte_string().clone(), topic.spec.partitions);
        info = match log.create(spec).await {
            Ok(()) => log.info(&id).await,
            Err(error) => Err(error),
        };
    }
    (partition, info)
}

fn new_router(
    (owned, topic, partition): (&Arc<Owned>, &Topic, &Partition),
    routed: Option<Position>,
    info: Result<LogInfo>,
) -> Result<Arc<Router>> {
    let router = |start, info| Arc::new(Router::new(Arc::clone(owned), partition.clone(), topic, start, info));
    let info = match (info, routed) {
        (Ok(info), _) => info,
        // Another broker is away, refuses, or has lost the topic. Its router meets that, and the slot's other partitions do not.
        (Err(_), Some(routed)) if topic.spec.broker.is_some() => return Ok(router(routed, None)),
        (Err(error), _) => return Err(error),
    };
    if let Some(routed) = routed.filter(|routed| topic.spec.broker.is_some() && *routed > info.end) {
        return Ok(router(routed, None));
    }
    if let Some(routed) = routed.filter(|routed| *routed > info.end) {
        let context = format!("{} ends at {} but was routed up to {routed}", info.id, info.end);
        return Err(Error::new(ErrorKind::DataLoss, context));
    }
    let start = routed.unwrap_or(info.end).max(info.begin);
    Ok(router(start, Some(info)))
}

fn dead_letter_topics(view: &View) -> Vec<TopicName> {
    view.subscriptions.values().map(|subscription| subscription.spec.dead_letter_topic.clone()).collect()
}

fn reader(spec: &SubscriptionSpec, view: &View) -> Matcher {
    Matcher::build([(SubscriptionId(0), spec.topics.as_slice(), &[] as &[Filter])])
        .with_dead_letter_topics(dead_letter_topics(view))
}
