//! Delivery as a whole: its subscriptions and partitions come and go here, and its progress is written down from here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytestring::ByteString;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tidegate_routing::breaker::{Cause as BreakerCause, Open};
use tidegate_routing::{SubscriptionId, TopicName};
use tidegate_schemas::limits;
use tokio::sync::{Semaphore, watch};
use tracing::warn;

use super::Shared;
use super::checkpoint::{self, Draft};
use super::core::{Depth, Gate, Partition};
use super::delivery::Consumer;
use super::feeder;
use super::marks::Marked;
use super::observe::Observer;
use super::owned::Owned;
use super::retention::Look;
use super::router::{Router, Routing};
use crate::catalogue::Catalogue;
use crate::environment::Environment;
use crate::error::Result;
use crate::log::PartitionLog;
use crate::slot::CommitError;

/// How often old outcomes are let go.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);

/// Whether deliveries of a subscription go out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probing {
    /// Since when deliveries wait.
    pub since: u64,
    /// When the next probe goes out, or when the one went out that is out now.
    pub probe_at: u64,
}

/// How a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Events between what it has read and what is routed, over all its partitions. Of [`Consume::status`] these are
    /// positions, of [`Consume::statuses`] events, as far as the broker counts them.
    pub behind: u64,
    /// Events that it lost to the retention of their topics, since the process started.
    pub trimmed: u64,
}

/// See the module `consume`.
#[derive(Debug)]
pub struct Consume {
    pub(super) shared: Arc<Shared>,
    pub(super) readers: Arc<Semaphore>,
    pub(super) numbers: AtomicU32,
    /// What runs may differ from what the catalogue says.
    pub(super) unreconciled: AtomicBool,
    /// Up to which revision of the catalogue everything runs.
    pub(super) followed: AtomicU64,
    /// The topics that something runs for may be there for, with their uids.
    pub(super) topics: Mutex<HashMap<ByteString, u64>>,
    /// What was found when topics were last looked at for events that are to go.
    pub(super) looks: Mutex<HashMap<Partition, Look>>,
    /// Tells that what runs was brought to the catalogue.
    pub(super) changed: watch::Sender<u64>,
    /// Held while subscriptions or topics change and while all checkpoints are taken.
    pub(super) changing: tokio::sync::Mutex<()>,
}

impl Consume {
    /// Runs every subscription of the catalogue, in a cluster of so many slots, as yet without any partition: those come
    /// with [`Consume::acquire`]. Deliveries wait until a [`Consumer`] asks for them.
    pub async fn start(
        log: Arc<dyn PartitionLog>,
        catalogue: Arc<Catalogue>,
        slots: u32,
        environment: Environment,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            log,
            catalogue,
            slots,
            environment,
            observer,
            peers: ArcSwapOption::empty(),
            owned: Mutex::new(HashMap::new()),
            routing: Arc::new(ArcSwap::from_pointee(Routing::default())),
            routers: Mutex::new(HashMap::new()),
            cores: Mutex::new(HashMap::new()),
        });
        let consume = Arc::new(Self {
            shared,
            readers: Arc::new(Semaphore::new(feeder::READERS)),
            numbers: AtomicU32::new(0),
            unreconciled: AtomicBool::new(false),
            followed: AtomicU64::new(0),
            topics: Mutex::default(),
            looks: Mutex::default(),
            changed: watch::Sender::new(0),
            changing: tokio::sync::Mutex::new(()),
        });
        {
            let _changing = consume.changing.lock().await;
            consume.reconcile().await?;
        }
        let writer = Arc::clone(&consume);
        consume.shared.environment.spawn(async move { writer.write_checkpoints().await });
        let keeper = Arc::clone(&consume);
        consume.shared.environment.spawn(async move { keeper.retain_forever().await });
        Ok(consume)
    }

    /// Tells, after a change of the catalogue, that what runs here was brought to it: subscriptions that came or changed
    /// have a [`Consumer`] to be asked for.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
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

    /// How a subscription stands in the partitions that are delivered here.
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
        let mut catalogue = self.shared.catalogue.changes();
        let mut next = tokio::time::Instant::now() + limits::CHECKPOINT_INTERVAL;
        loop {
            let changed = tokio::select! {
                () = stopping.cancelled() => return,
                // Another gateway changed it, or a dead letter its topic.
                changed = catalogue.changed() => changed.is_ok(),
                () = tokio::time::sleep_until(next) => false,
            };
            let _changing = self.changing.lock().await;
            let view = self.shared.catalogue.view().revision;
            let behind = changed && self.followed.load(Ordering::Acquire) < view;
            if behind || self.unreconciled.load(Ordering::Relaxed) {
                // What failed was told, and is tried again.
                let _again = self.reconcile().await;
            }
            if changed {
                continue;
            }
            next = tokio::time::Instant::now() + limits::CHECKPOINT_INTERVAL;
            if let Err(error) = self.checkpoint().await {
                warn!(%error, "the progress of deliveries cannot be written; it is tried again, and a crash now means redelivery");
            }
            if trimmed.elapsed() >= TRIM_INTERVAL {
                trimmed = tokio::time::Instant::now();
                for owned in self.shared.owned_all() {
                    if let Err(error) = owned.outcomes.trim(&self.shared.environment).await {
                        warn!(slot = owned.slot(), %error, "old outcomes of deliveries cannot be trimmed");
                    }
                }
            }
        }
    }

    /// Writes progress down as it is now, of every slot that is owned.
    pub(super) async fn checkpoint(&self) -> std::result::Result<(), CommitError> {
        let all = self.shared.owned_all();
        let written = futures_util::future::join_all(all.iter().map(|owned| self.checkpoint_of(owned))).await;
        // One that was lost meanwhile has nothing more to write.
        written
            .into_iter()
            .zip(&all)
            .find_map(|(outcome, owned)| outcome.err().filter(|_| !owned.is_over()))
            .map_or(Ok(()), Err)
    }

    /// Writes the progress of one slot down as it is now.
    pub(super) async fn checkpoint_of(&self, owned: &Arc<Owned>) -> std::result::Result<(), CommitError> {
        let _writing = owned.writing.lock().await;
        owned.outcomes.flush(&owned.index).await;
        if owned.is_over() {
            return Ok(());
        }
        // Before the marks are taken: what a change brought is marked before it counts as followed.
        let followed = owned.followed();
        let mut marked = Unwritten { owned, marked: owned.marks.take() };
        if marked.marked.is_empty() {
            return Ok(());
        }
        checkpoint::commit(&owned.journal, &self.draft(owned, &marked.marked, followed)).await?;
        marked.marked = Marked::default();
        Ok(())
    }

    /// How what is marked of a slot stands now. Routed positions are taken first: what a subscription is found to hold
    /// afterwards can only be more.
    fn draft(&self, owned: &Arc<Owned>, marked: &Marked, followed: u64) -> Draft {
        let _standing = owned.standing.lock();
        let here = |router: &&Arc<Router>| Arc::ptr_eq(&router.owned, owned);
        let routers: Vec<Arc<Router>> = {
            let routers = self.shared.routers.lock();
            if marked.whole {
                routers.values().filter(here).cloned().collect()
            } else {
                marked.partitions().filter_map(|partition| routers.get(partition)).filter(here).cloned().collect()
            }
        };
        let cores: Vec<_> = self.shared.cores.lock().values().cloned().collect();
        let view = self.shared.catalogue.view().clone();
        let mut draft = Draft::new(marked.whole, view.subscriptions.values().map(|subscription| subscription.uid));
        let mut topics: HashSet<TopicName> = HashSet::new();
        let mut routed = HashMap::new();
        for router in routers {
            let position = router.position();
            draft.routed(&router.partition, position);
            topics.insert(router.partition.topic.clone());
            routed.insert(router.partition.clone(), position);
        }
        for core in cores {
            for standing in
                core.checkpoint(owned, marked, |partition| routed.get(partition).copied().unwrap_or_default())
            {
                if !standing.progress.parked.is_empty() {
                    topics.insert(standing.partition.topic.clone());
                }
                draft.subscription(core.uid, &standing);
            }
        }
        draft.followed(followed);
        if self.shared.slots > 1 {
            let known = self.topics.lock();
            for topic in topics {
                if let Some(uid) = known.get(topic.as_byte_string()) {
                    draft.incarnation((topic.as_str(), *uid));
                }
            }
        }
        draft
    }

    /// Ends delivery: nothing new goes out, what is out is waited for by whoever holds it, and progress is written one
    /// last time. To be called after the environment was told to stop and the holders of deliveries have ended.
    pub async fn finish(&self) {
        let _changing = self.changing.lock().await;
        if let Err(error) = self.checkpoint().await {
            warn!(%error, "the last progress of deliveries could not be written; the next start delivers some again");
        }
        for owned in self.shared.owned_all() {
            owned.index.finish().await;
        }
    }
}

/// What is marked until it is written: given back where a checkpoint fails, or is given up in the middle.
struct Unwritten<'a> {
    owned: &'a Owned,
    marked: Marked,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.owned.marks.give_back(std::mem::take(&mut self.marked));
    }
}
