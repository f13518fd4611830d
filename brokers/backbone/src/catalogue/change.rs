//! Changes of the catalogue. Each names the revision of what it was made from.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::stream::{self, StreamExt as _};
use tidegate_routing::topic::TopicName;
use tidegate_schemas::limits;
use tracing::warn;

use super::entry::{Attachment, Foreign, Subscription, Topic, TopicSpec, foreign_topic};
use super::{Catalogue, ChangeError, DELETING_PREFIX, Deletion, SUBSCRIPTION_PREFIX, TOPIC_PREFIX, key, read, write};
use crate::error::{Error, ErrorKind};
use crate::log::{BoxFuture, LogSpec};
use crate::slot::{Command, CommitError, Expect};

/// How often a topic is looked at anew because other gateways change it at the same time.
const ATTEMPTS: u32 = 8;
/// How long what another gateway has changed may take to be seen here.
const CATCH_UP: Duration = Duration::from_secs(2);
const CATCH_UP_MIN: Duration = Duration::from_millis(10);

/// A topic that is being created: its place among those that were asked for, with the topic and whether it is new.
type Creating<'a> = BoxFuture<'a, (usize, Result<(Arc<Topic>, bool), ChangeError>)>;

impl Catalogue {
    /// Creates a topic: its logs first, then its entry. One that is there with the same number of partitions is given
    /// as it is (`false`), with its other settings brought to what is asked. Of several gateways that create a topic at
    /// once, one does.
    ///
    /// One that is attached has the partitions that it has on the broker, whatever is asked. The delivery keys in `also` are
    /// written where it is created.
    pub async fn create_topic(
        &self,
        spec: TopicSpec,
        created_at: u64,
        also: Command,
    ) -> Result<(Arc<Topic>, bool), ChangeError> {
        let _changing = self.changing.lock().await;
        self.create_one(spec, created_at, also).await
    }

    /// Creates topics, [`limits::TOPIC_CREATIONS`] at once. The outcomes are in the order of what was asked.
    pub async fn create_topics(
        &self,
        specs: Vec<TopicSpec>,
        created_at: u64,
    ) -> Vec<Result<(Arc<Topic>, bool), ChangeError>> {
        let _changing = self.changing.lock().await;
        let mut outcomes: Vec<Option<_>> = specs.iter().map(|_| None).collect();
        // Those that may stand in each other's way come one after the other: none of them sees what is not there yet.
        let mut names = HashSet::new();
        let (alone, together): (Vec<_>, Vec<_>) =
            specs.into_iter().enumerate().partition(|(_, spec)| !names.insert(spec.name.collision_key().into_owned()));
        let creating: Vec<Creating<'_>> = together
            .into_iter()
            .map(|(place, spec)| {
                Box::pin(async move { (place, self.create_one(spec, created_at, Command::new()).await) })
                    as Creating<'_>
            })
            .collect();
        let mut created = stream::iter(creating).buffer_unordered(limits::TOPIC_CREATIONS);
        while let Some((place, outcome)) = created.next().await {
            outcomes[place] = Some(outcome);
        }
        for (place, spec) in alone {
            outcomes[place] = Some(self.create_one(spec, created_at, Command::new()).await);
        }
        outcomes.into_iter().flatten().collect()
    }

    /// To be called while `changing` is held; several at once have different names.
    async fn create_one(
        &self,
        mut spec: TopicSpec,
        created_at: u64,
        also: Command,
    ) -> Result<(Arc<Topic>, bool), ChangeError> {
        if let Some(to) = &spec.attachment() {
            let other = self.view.load().topics.get(spec.name.as_byte_string()).cloned();
            match other {
                // Attached when it was seen; to attach it anew here would not tell more.
                Some(existing) if existing.spec.attachment().as_ref() == Some(to) => {
                    spec.partitions = existing.spec.partitions
                }
                Some(existing) => return Err(other_attachment(&existing)),
                None => spec.partitions = self.attach_new(&spec.name, to).await?,
            }
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let view = self.view.load_full();
            let existing = self.check_topic(&spec)?;
            let (topic, created) = match &existing {
                Some(existing) if existing.spec == spec => return Ok((Arc::clone(existing), false)),
                Some(existing) => (Topic { spec: spec.clone(), ..Topic::clone(existing) }, false),
                None => {
                    if spec.attached.is_none() {
                        if !self.end_deletion(&spec.name).await? {
                            continue;
                        }
                        self.log.create(logs_of(&spec)).await?;
                    }
                    (Topic::new(self.random.bits(), spec.clone(), created_at), true)
                }
            };
            let name = spec.name.as_byte_string();
            let mut command = if created { also.clone() } else { Command::new() };
            if created && spec.attached.is_none() {
                // One that has begun since would delete the logs that were found above.
                command = command.delete(key(DELETING_PREFIX, name), view.expect_deletion(name));
            }
            let command = command.put(key(TOPIC_PREFIX, name), view.expect_topic(name), write(&topic));
            match self.change(command).await {
                Ok(committed) => {
                    self.shows(committed.revision).await;
                    if created && spec.attached.is_none() && !self.log.capability().exclusive {
                        // Another gateway may have created and deleted the same before the entry was there, logs and all.
                        // Nobody can have published yet, and from now on nobody deletes it without an entry to delete.
                        self.log.create(logs_of(&spec)).await?;
                    }
                    return Ok((Arc::new(topic), created));
                }
                Err(ChangeError::Commit(CommitError::Conflict { current, .. })) if attempt < ATTEMPTS => {
                    self.catch_up(current).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Attaches a new topic of a further broker once before others are kept from changing anything: that broker may take its time,
    /// or not answer.
    pub(crate) async fn reach(&self, spec: &TopicSpec) -> Result<(), ChangeError> {
        match spec.attachment().filter(|to| to.broker.is_some()) {
            Some(to) if self.check_topic(spec)?.is_none() => self.attach_new(&spec.name, &to).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Makes a topic of somebody else's readable under that name; gives its partitions.
    pub(crate) async fn attach_new(&self, name: &TopicName, to: &Attachment) -> Result<u32, ChangeError> {
        to.attach(self.log.as_ref(), name.as_str()).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let broker = match &to.broker {
                    None => format!("the {} backbone", self.log.capability().broker),
                    Some(broker) => format!("the broker {broker}"),
                };
                ChangeError::NothingToAttach { name: name.clone(), to: to.to.clone(), broker }
            }
            _ => error.into(),
        })
    }

    /// Waits, for a while, until what another gateway has changed is seen here.
    async fn catch_up(&self, current: Option<u64>) {
        // Too long a wait shows as the same conflict again.
        let _late = tokio::time::timeout(CATCH_UP, self.reached(current.unwrap_or(0))).await;
        tokio::time::sleep(CATCH_UP_MIN).await;
        self.refresh().await;
    }

    /// Whether a topic could be created with these settings, or the one that is there be brought to them; gives that one.
    pub fn check_topic(&self, spec: &TopicSpec) -> Result<Option<Arc<Topic>>, ChangeError> {
        let view = self.view.load();
        if spec.foreign == Foreign::DeadLetter {
            foreign_topic(&spec.name)?;
        }
        let existing = view.topics.get(spec.name.as_byte_string());
        // What is attached has what the broker says.
        let partitions = match existing {
            Some(existing) if spec.attached.is_some() => existing.spec.partitions,
            _ => spec.partitions,
        };
        if !(1..=limits::TOPIC_PARTITIONS).contains(&partitions) {
            return Err(ChangeError::Partitions { wanted: partitions, max: limits::TOPIC_PARTITIONS });
        }
        let Some(existing) = existing else {
            let collides = view.topics.values().find(|other| other.spec.name.collides_with(&spec.name));
            return collides.map_or(Ok(None), |other| {
                Err(ChangeError::Collision { name: spec.name.clone(), other: other.spec.name.clone() })
            });
        };
        if existing.spec.attachment() != spec.attachment() {
            return Err(other_attachment(existing));
        }
        if existing.spec.partitions != partitions {
            return Err(ChangeError::OtherPartitions {
                name: spec.name.clone(),
                existing: existing.spec.partitions,
                wanted: partitions,
            });
        }
        // Keys that wait for a retry are looked for by what they are now.
        if existing.spec.key_from != spec.key_from {
            return Err(ChangeError::OtherKey { name: spec.name.clone() });
        }
        Ok(Some(Arc::clone(existing)))
    }

    /// Deletes a topic: its entry with the delivery keys in `also` first, then its logs; until those are gone nobody creates
    /// it again. One that was attached is let go of.
    pub async fn delete_topic(&self, name: &TopicName, also: Command) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let view = self.view.load_full();
        let Some(topic) = view.topics.get(name.as_byte_string()) else {
            let known = !matches!(view.expect_deletion(name.as_byte_string()), Expect::Absent);
            if !known {
                return Err(ChangeError::NotFound { what: "topic", name: name.to_string() });
            }
            // Its logs are still there.
            while !self.end_deletion(name).await? {}
            let expect = self.view.load().expect_deletion(name.as_byte_string());
            if expect != Expect::Absent {
                self.slot.commit(Command::new().delete(key(DELETING_PREFIX, name.as_byte_string()), expect)).await?;
                self.refresh().await;
            }
            return Ok(());
        };
        let mut command =
            also.delete(key(TOPIC_PREFIX, name.as_byte_string()), view.expect_topic(name.as_byte_string()));
        let deleting = key(DELETING_PREFIX, name.as_byte_string());
        if topic.spec.attached.is_none() {
            command = command.put(deleting.clone(), Expect::Absent, write(&Deletion::new(topic.spec.partitions)));
        }
        let committed = self.change(command).await?;
        self.refresh().await;
        if topic.spec.attached.is_none() {
            self.delete_logs(logs_of(&topic.spec), name).await?;
            let done = Command::new().delete(deleting, Expect::Revision(committed.revision));
            match self.slot.commit(done).await {
                Ok(_) => self.refresh().await,
                Err(error) => warn!(topic = %name, %error,
                    "a topic is deleted, and that it is cannot be written down; whoever creates it again finds out"),
            }
        }
        Ok(())
    }

    /// Deletes logs, for no longer than others wait for it.
    async fn delete_logs(&self, logs: LogSpec, name: &TopicName) -> Result<(), ChangeError> {
        let deleted = tokio::time::timeout(limits::TOPIC_DELETE_TIMEOUT, self.log.delete(logs)).await;
        deleted.unwrap_or_else(|_| {
            let seconds = limits::TOPIC_DELETE_TIMEOUT.as_secs();
            let context = format!(
                "topic {name} is gone from the catalogue, and the broker did not delete its logs within {seconds} s; delete \
                 or create it again later"
            );
            Err(Error::new(ErrorKind::Unavailable, context).outcome_unknown())
        })?;
        Ok(())
    }

    /// Sees to it that no logs of that name are being deleted: waits a while for whoever does, and does it where they must be
    /// gone. Gives false where the catalogue is to be looked at anew.
    async fn end_deletion(&self, name: &TopicName) -> Result<bool, ChangeError> {
        let deleting = key(DELETING_PREFIX, name.as_byte_string());
        let Some((revision, since)) = self.deletions.lock().get(&deleting).copied() else { return Ok(true) };
        let overdue = limits::TOPIC_DELETE_TIMEOUT + limits::TOPIC_DELETE_GRACE;
        if self.log.capability().exclusive || since.elapsed() >= overdue {
            let Some(head) = self.slot.get(&deleting).filter(|head| head.revision == revision) else {
                self.refresh().await;
                return Ok(false);
            };
            let deletion: Deletion = read(&deleting, &head.value)?;
            self.delete_logs(LogSpec::topic(name.as_byte_string().clone(), deletion.partitions), name).await?;
            return Ok(true);
        }
        let ended = tokio::time::timeout(CATCH_UP, async {
            while self.slot.get(&deleting).is_some_and(|head| head.revision == revision) {
                tokio::time::sleep(CATCH_UP_MIN).await;
            }
        });
        if ended.await.is_err() {
            return Err(ChangeError::Deleting { name: name.clone() });
        }
        self.refresh().await;
        Ok(false)
    }

    /// Writes a subscription, new or changed, together with the delivery keys in `also`.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] where it is not what `expect` says.
    pub async fn put_subscription(
        &self,
        subscription: Subscription,
        expect: Expect,
        also: Command,
    ) -> Result<Arc<Subscription>, ChangeError> {
        let _changing = self.changing.lock().await;
        let name = &subscription.spec.name;
        let command = also.put(key(SUBSCRIPTION_PREFIX, name), expect, write(&subscription));
        match self.change(command).await {
            Ok(_) => {
                self.refresh().await;
                Ok(Arc::new(subscription))
            }
            Err(error) => {
                if let ChangeError::Commit(CommitError::Conflict { current, .. }) = &error {
                    self.catch_up(*current).await;
                }
                Err(error)
            }
        }
    }

    /// Removes a subscription together with the delivery keys in `also`.
    pub async fn remove_subscription(
        &self,
        name: &ByteString,
        expect: Expect,
        also: Command,
    ) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        self.change(also.delete(key(SUBSCRIPTION_PREFIX, name), expect)).await?;
        self.refresh().await;
        Ok(())
    }
}

fn logs_of(spec: &TopicSpec) -> LogSpec {
    LogSpec::topic(spec.name.as_byte_string().clone(), spec.partitions)
}

fn other_attachment(existing: &Topic) -> ChangeError {
    let is = match existing.spec.attachment() {
        Some(Attachment { broker: Some(broker), to }) => format!("is {to} on the broker {broker}"),
        Some(Attachment { broker: None, to }) => format!("is {to} on the broker"),
        None => "is no topic of somebody else's".to_owned(),
    };
    ChangeError::OtherAttachment { name: existing.spec.name.clone(), is }
}
