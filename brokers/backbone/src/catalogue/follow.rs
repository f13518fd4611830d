//! The view follows its slot: what any gateway changes is read here, and topics of others are attached.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use bytestring::ByteString;
use tidegate_schemas::limits;
use tokio::sync::{MutexGuard, watch};
use tracing::{error, info, warn};

use super::entry::{Attachment, Subscription, Topic};
use super::{Catalogue, DELETING_PREFIX, PREFIX, SUBSCRIPTION_PREFIX, TOPIC_PREFIX, View, read};
use crate::environment::Environment;
use crate::error::Error;
use crate::log::{LogSpec, PartitionLog};
use crate::slot::{SlotHandle, Watch, Watched};

/// How often a topic is tried to be attached that could not be.
const ATTACH_INTERVAL: Duration = Duration::from_secs(5);
/// How often it is looked whether the slot has been followed far enough.
const REACH_INTERVAL: Duration = Duration::from_millis(10);

/// The topics of others that the adapter of this process knows, by name.
#[derive(Debug, Default)]
pub(super) struct Attached {
    topics: HashMap<ByteString, (Attachment, u32)>,
    /// Some could not be attached.
    missing: bool,
    /// Those of which that was told.
    told: HashSet<ByteString>,
}

impl Catalogue {
    /// Reads the catalogue from its slot and follows it, until the environment stops. Topics of others are attached.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DataLoss`] where an entry cannot be read.
    pub async fn open(
        log: Arc<dyn PartitionLog>,
        slot: Arc<dyn SlotHandle>,
        environment: &Environment,
    ) -> Result<Arc<Self>, Error> {
        // Before the first look, so that no change falls between.
        let watch = slot.watch(Bytes::from_static(PREFIX.as_bytes()));
        let (view, faults) = look(slot.as_ref(), &View::default());
        if let Some(fault) = faults.into_iter().next() {
            return Err(fault);
        }
        let catalogue = Arc::new(Self {
            log,
            slot,
            random: Arc::clone(&environment.random),
            changed: watch::Sender::new(view.revision),
            view: ArcSwap::default(),
            changing: tokio::sync::Mutex::new(()),
            deletions: parking_lot::Mutex::default(),
            following: tokio::sync::Mutex::default(),
        });
        catalogue.refresh().await;
        environment.spawn(Arc::clone(&catalogue).follow(watch, environment.clone()));
        Ok(catalogue)
    }

    async fn follow(self: Arc<Self>, mut watch: Watch, environment: Environment) {
        loop {
            let missing = self.following.lock().await.missing;
            tokio::select! {
                () = environment.stopping().cancelled() => return,
                change = watch.next() => match change {
                    None => return,
                    // One of this process, or one that an earlier look has seen.
                    Some(Watched::Changed { revision, .. }) if revision <= self.view.load().revision => {}
                    Some(_) => self.refresh().await,
                },
                () = tokio::time::sleep(ATTACH_INTERVAL), if missing => self.refresh().await,
            }
        }
    }

    /// Brings the view to what the slot holds now, as this process has followed it.
    pub(super) async fn refresh(&self) {
        self.bring(self.following.lock().await).await;
    }

    /// Brings the view to a revision, where nobody did so meanwhile.
    pub(super) async fn shows(&self, revision: u64) {
        let attached = self.following.lock().await;
        if self.view.load().revision < revision {
            self.bring(attached).await;
        }
    }

    async fn bring(&self, mut attached: MutexGuard<'_, Attached>) {
        let old = self.view.load_full();
        let (next, faults) = look(self.slot.as_ref(), &old);
        for fault in faults {
            error!(error = %fault, "an entry of the catalogue is left as it was before, where it was there");
        }
        self.note_deletions(&next);
        self.attach(&mut attached, &next).await;
        let differs = next.revisions != old.revisions;
        let revision = next.revision;
        self.view.store(Arc::new(next));
        if differs {
            self.changed.send_replace(revision);
        }
    }

    fn note_deletions(&self, view: &View) {
        let mut deletions = self.deletions.lock();
        deletions.retain(|key, (revision, _)| view.revisions.get(key) == Some(revision));
        for (key, revision) in &view.revisions {
            if key.starts_with(DELETING_PREFIX.as_bytes()) {
                deletions.entry(key.clone()).or_insert_with(|| (*revision, tokio::time::Instant::now()));
            }
        }
    }

    /// Waits until the view shows every change up to that revision of the slot.
    pub async fn reached(&self, revision: u64) {
        while self.slot.revision() < revision {
            tokio::time::sleep(REACH_INTERVAL).await;
        }
        if self.view.load().revision < revision {
            self.refresh().await;
        }
    }

    /// Attaches topics of others that came, and lets go of those that went.
    async fn attach(&self, attached: &mut Attached, view: &View) {
        let wanted = |name: &ByteString| view.topics.get(name).and_then(|topic| topic.spec.attachment());
        let gone: Vec<ByteString> = attached
            .topics
            .iter()
            .filter(|(name, (to, _))| wanted(name).as_ref() != Some(to))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            let Some((to, partitions)) = attached.topics.remove(&name) else { continue };
            match self.log.delete(LogSpec::topic(name.clone(), partitions)).await {
                Ok(()) => info!(topic = %name, %to, "let go of an attached topic"),
                Err(error) => warn!(topic = %name, %to, %error, "an attached topic cannot be let go of"),
            }
        }
        attached.missing = false;
        attached.told.retain(|name| view.topics.contains_key(name));
        let mut elsewhere = Vec::new();
        for topic in view.topics.values() {
            let name = topic.spec.name.as_byte_string();
            let Some(to) = topic.spec.attachment().filter(|_| !attached.topics.contains_key(name)) else {
                continue;
            };
            if to.broker.is_some() {
                elsewhere.push((topic, to));
            } else {
                let outcome = to.attach(self.log.as_ref(), name).await;
                note(attached, topic, to, outcome);
            }
        }
        // All at once, and not for long: the catalogue waits for no further broker. What is not attached by then is by itself,
        // once it is asked for, and its topic leads to that broker already.
        let attaching = elsewhere.iter().map(|(topic, to)| to.attach(self.log.as_ref(), topic.spec.name.as_str()));
        let attaching = attaching.map(|attach| tokio::time::timeout(limits::BRIDGE_FOLLOW_TIMEOUT, attach));
        let outcomes = futures_util::future::join_all(attaching).await;
        for ((topic, to), outcome) in elsewhere.into_iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => note(attached, topic, to, outcome),
                Err(_) => attached.missing = true,
            }
        }
    }
}

/// What came of attaching a topic.
fn note(attached: &mut Attached, topic: &Topic, to: Attachment, outcome: Result<u32, Error>) {
    let (name, known) = (topic.spec.name.as_byte_string(), topic.spec.partitions);
    match outcome {
        Ok(partitions) if partitions >= known => {
            attached.topics.insert(name.clone(), (to, known));
            attached.told.remove(name);
        }
        Ok(partitions) => {
            attached.missing = true;
            if attached.told.insert(name.clone()) {
                error!(topic = %name, %to, partitions, known,
                    "an attached topic has fewer partitions than when it was attached; delete it and attach it again");
            }
        }
        Err(error) => {
            attached.missing = true;
            if attached.told.insert(name.clone()) {
                warn!(topic = %name, %to, %error, "a topic cannot be attached; trying again");
            }
        }
    }
}

/// What the slot holds, and what of it cannot be read. Entries that did not change are taken from the view before.
fn look(slot: &dyn SlotHandle, old: &View) -> (View, Vec<Error>) {
    // Before the keys are read: what they show may be later, and never earlier.
    let mut view = View { revision: slot.revision(), ..View::default() };
    let mut faults = Vec::new();
    for (key, revision, value) in slot.scan(PREFIX.as_bytes()) {
        let same = old.revisions.get(&key) == Some(&revision);
        let name = |prefix: &str| {
            let rest = key.strip_prefix(prefix.as_bytes())?;
            ByteString::try_from(rest).ok()
        };
        if let Some(name) = name(TOPIC_PREFIX) {
            let known = old.topics.get(&name).cloned();
            let topic = entry::<Topic>(&key, &value, known, same, &mut faults);
            view.topics.extend(topic.map(|topic| (name, topic)));
        } else if let Some(name) = name(SUBSCRIPTION_PREFIX) {
            let known = old.subscriptions.get(&name).cloned();
            let subscription = entry::<Subscription>(&key, &value, known, same, &mut faults);
            view.subscriptions.extend(subscription.map(|subscription| (name, subscription)));
        }
        view.revisions.insert(key, revision);
    }
    (view, faults)
}

fn entry<T: serde::de::DeserializeOwned>(
    key: &[u8],
    value: &[u8],
    known: Option<Arc<T>>,
    same: bool,
    faults: &mut Vec<Error>,
) -> Option<Arc<T>> {
    if same {
        return known;
    }
    match read(key, value) {
        Ok(entry) => Some(Arc::new(entry)),
        Err(error) => {
            faults.push(error);
            known
        }
    }
}
