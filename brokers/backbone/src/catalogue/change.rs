//! Changes of the catalogue. Each names the revision of what it was made from.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tidegate_routing::topic::TopicName;
use tidegate_schemas::limits;

use super::entry::{Foreign, Subscription, Topic, TopicSpec, foreign_topic};
use super::{Catalogue, ChangeError, SUBSCRIPTION_PREFIX, TOPIC_PREFIX, key, write};
use crate::log::LogSpec;
use crate::slot::{Command, CommitError, Expect};

/// How often a topic is looked at anew because other gateways change it at the same time.
const ATTEMPTS: u32 = 8;
/// How long what another gateway has changed may take to be seen here.
const CATCH_UP: Duration = Duration::from_secs(2);
const CATCH_UP_MIN: Duration = Duration::from_millis(10);

impl Catalogue {
    /// Creates a topic: its logs first, then its entry. One that is there with the same number of partitions is given
    /// as it is (`false`), with its other settings brought to what is asked. Of several gateways that create a topic at
    /// once, one does.
    ///
    /// One that is attached has the partitions that it has on the broker, whatever is asked. The delivery keys in `also` are
    /// written where it is created.
    pub async fn create_topic(
        &self,
        mut spec: TopicSpec,
        created_at: u64,
        also: Command,
    ) -> Result<(Arc<Topic>, bool), ChangeError> {
        let _changing = self.changing.lock().await;
        if let Some(to) = &spec.attached {
            let other = self.view.load().topics.get(spec.name.as_byte_string()).cloned();
            match other {
                // Attached when it was seen; to attach it anew here would not tell more.
                Some(existing) if existing.spec.attached.as_ref() == Some(to) => {
                    spec.partitions = existing.spec.partitions
                }
                Some(existing) => return Err(other_attachment(&existing)),
                None => spec.partitions = self.log.attach(spec.name.as_str(), to).await?,
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
                        self.log.create(LogSpec::topic(spec.name.as_byte_string().clone(), spec.partitions)).await?;
                    }
                    (Topic::new(self.random.bits(), spec.clone(), created_at), true)
                }
            };
            let name = spec.name.as_byte_string();
            let command = if created { also.clone() } else { Command::new() };
            let command = command.put(key(TOPIC_PREFIX, name), view.expect_topic(name), write(&topic));
            match self.slot.commit(command).await {
                Ok(_) => {
                    self.refresh().await;
                    return Ok((Arc::new(topic), created));
                }
                Err(CommitError::Conflict { current, .. }) if attempt < ATTEMPTS => self.catch_up(current).await,
                Err(error) => return Err(error.into()),
            }
        }
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
        if existing.spec.attached != spec.attached {
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

    /// Deletes a topic: its entry with the delivery keys in `also` first, then its logs. One that was attached is let go
    /// of.
    pub async fn delete_topic(&self, name: &TopicName, also: Command) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().await;
        let view = self.view.load_full();
        let name = name.as_byte_string();
        let Some(topic) = view.topics.get(name) else {
            return Err(ChangeError::NotFound { what: "topic", name: name.to_string() });
        };
        self.slot.commit(also.delete(key(TOPIC_PREFIX, name), view.expect_topic(name))).await?;
        self.refresh().await;
        if topic.spec.attached.is_none() {
            self.log.delete(LogSpec::topic(name.clone(), topic.spec.partitions)).await?;
        }
        Ok(())
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
        match self.slot.commit(command).await {
            Ok(_) => {
                self.refresh().await;
                Ok(Arc::new(subscription))
            }
            Err(error) => {
                if let CommitError::Conflict { current, .. } = &error {
                    self.catch_up(*current).await;
                }
                Err(error.into())
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
        self.slot.commit(also.delete(key(SUBSCRIPTION_PREFIX, name), expect)).await?;
        self.refresh().await;
        Ok(())
    }
}

fn other_attachment(existing: &Topic) -> ChangeError {
    let is = match &existing.spec.attached {
        Some(to) => format!("is {to} on the broker"),
        None => "is no topic of somebody else's".to_owned(),
    };
    ChangeError::OtherAttachment { name: existing.spec.name.clone(), is }
}
